"""The trials of a sweep that are decided as it goes on: a file each, written once, before the trial starts."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxformer.files import flush, incomplete, locked
from jaxformer.reading import read_json

REMEDY = "restore it, or begin the sweep in a new folder"
PATIENCE = 20.0  # seconds for which another worker may think about a record; then whoever waits does so, too
LOOKS = 0.01  # seconds between two looks for it


class Records:
    """The records in a folder, numbered without gaps; behind the last one may stand why there are no more.

    Args:
      folder: where they are.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def known(self) -> list[dict[str, Any]]:
        """Those that were read; they never change."""
        return []

    def read(self) -> list[dict[str, Any]]:
        """What is there now."""
        while (record := self.following()) is not None and "end" not in record:
            self.known.append(record)
        return self.known

    def following(self) -> dict[str, Any] | None:
        """What stands behind those that were read."""
        return read_json(self.at(len(self.known)), {}, REMEDY)

    def at(self, number: int) -> Path:
        """The file of a number."""
        return self.folder / f"{number:04}.json"

    @property
    def is_ended(self) -> bool:
        """Whether it is decided that there are no more."""
        self.read()
        return self.at(len(self.known)).exists()

    def go_on(self) -> None:
        """Takes the end away, so that more may come."""
        if self.is_ended:
            self.at(len(self.known)).unlink()

    @contextmanager
    def deciding(self, number: int) -> Iterator[bool]:
        """Within this context no other worker thinks about the next record; yields whether it is still to be written.

        It saves work and nothing else: whatever becomes of the lock, all workers come to the same record.
        """
        path, until = self.at(number), time.monotonic() + PATIENCE
        with ExitStack() as held:
            while not path.exists() and time.monotonic() < until:
                try:
                    held.enter_context(locked(self.folder / ".next", BlockingIOError()))
                    break
                except BlockingIOError:
                    time.sleep(LOOKS)
            yield not path.exists()

    def write(self, number: int, record: dict[str, Any]) -> None:
        """Writes a record as a whole, if no other worker was quicker."""
        path = self.at(number)
        with incomplete(path) as hidden:
            hidden.write_text(json.dumps(record, allow_nan=False) + "\n")
            flush(hidden)
            with suppress(FileExistsError):
                os.link(hidden, path)
