"""Leases: which worker has which trial in hand, on any number of machines that share a folder.

A lease is a file that its worker touches. It is never deleted and never changes hands: who takes over from a dead
worker makes the next file of the same name, with a larger number, and the file system lets only one do so.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from jaxformer.files import incomplete, is_running
from jaxformer.preemption import EXIT_CODE
from jaxformer.reading import read_json

logger = logging.getLogger("jaxformer")
TOUCHED = 10.0  # seconds between two signs of life
EXPIRES = 60.0  # seconds without one after which another machine takes over
BOOT = Path("/proc/sys/kernel/random/boot_id")


def this_process() -> dict[str, Any]:
    """What tells this process from all others."""
    boot = BOOT.read_text().strip() if BOOT.exists() else ""
    return {"host": socket.gethostname(), "boot": boot, "pid": os.getpid()}


class Leases:
    """The leases in a folder, as one worker sees them.

    Args:
      folder: where they are; it is there.
    """

    def __init__(self, folder: Path):
        self.folder, self.me = folder, this_process()
        self.seen: dict[Path, tuple[int, float]] = {}
        """Lease -> when it was touched, by its file; and when that was seen first, by this machine's own clock."""

    def newest(self, name: str) -> Path | None:
        """The lease that counts."""
        return max(self.numbered(f"{name}.*"), key=lambda path: int(path.suffix[1:]), default=None)

    def numbered(self, pattern: str) -> list[Path]:
        """The leases of a pattern; other files are none."""
        return [path for path in self.folder.glob(pattern) if path.suffix[1:].isdecimal()]

    def is_free(self, lease: Path) -> bool:
        """Whether nobody holds a lease: it was given back, its process is dead, or it has not been touched for long."""
        holder = read_json(lease, {}) or {}
        if "pid" not in holder:
            return True
        if holder["host"] == self.me["host"]:
            if holder["boot"] != self.me["boot"] or not is_running(str(holder["pid"])):
                return True
            if holder["pid"] == self.me["pid"]:
                return False
        touched, now = lease.stat().st_mtime_ns, time.monotonic()
        if self.seen.get(lease, (0, 0.0))[0] != touched:
            self.seen[lease] = (touched, now)
        return now - self.seen[lease][1] > EXPIRES

    def held(self, names: Collection[str]) -> list[str]:
        """Those of the names that workers have in hand."""
        newest: dict[str, Path] = {}
        for path in sorted(self.numbered("[!.]*"), key=lambda path: int(path.suffix[1:])):
            newest[path.stem] = path
        return [name for name in names if name in newest and not self.is_free(newest[name])]

    @contextlib.contextmanager
    def claimed(self, name: str) -> Iterator[bool]:
        """Within this context nobody else has the lease; yields False, and holds nothing, where somebody has."""
        newest = self.newest(name)
        mine = self.folder / f"{name}.{0 if newest is None else int(newest.suffix[1:]) + 1}"
        if (newest is not None and not self.is_free(newest)) or not self._made(mine):
            yield False
            return
        ended = threading.Event()
        thread = threading.Thread(target=keep, args=(mine, ended), daemon=True)
        thread.start()
        try:
            yield True
        finally:
            ended.set()
            thread.join()
            with incomplete(mine) as hidden:
                hidden.write_text(json.dumps({"host": self.me["host"], "given_back": True}))
                hidden.replace(mine)

    def _made(self, lease: Path) -> bool:
        """Makes a lease with its content; False if another worker was quicker."""
        with incomplete(lease) as hidden:
            hidden.write_text(json.dumps(self.me))
            try:
                os.link(hidden, lease)
            except FileExistsError:
                return False
        return True


def keep(lease: Path, ended: threading.Event) -> None:
    """Touches a lease until `ended`; if another worker has taken over meanwhile, this process ends at once.

    That is when this one did nothing for EXPIRES seconds, as a machine that was suspended: another one writes in the
    same folder now.
    """
    following = lease.with_suffix(f".{int(lease.suffix[1:]) + 1}")
    while not ended.wait(TOUCHED):
        if following.exists():
            logger.error("%s: another worker has taken over", lease)
            os._exit(EXIT_CODE)
        with contextlib.suppress(OSError):
            os.utime(lease)
