"""Arrays that are made once and then mapped into memory: tokens, offsets, packings.

An entry is a folder `KEY/` of .npy files and an `entry.json` that names them with their sizes. KEY is a hash of
all that decides its content. One process makes it, under a lock, in a hidden folder that is renamed into place
when it is complete; the others wait and read. So what a killed process leaves behind is never read, and the next
process that makes an entry clears it away.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxformer.errors import UserError
from jaxformer.files import incomplete, locked, put_in_place, remove
from jaxformer.reading import load_json

VERSION = 1  # of the code that makes entries: a change of what any of them holds needs a new number
ENTRY = "entry.json"


@dataclass(frozen=True)
class Entry:
    """What was made."""

    arrays: Mapping[str, np.ndarray]
    """By name; read-only, mapped from the files."""
    notes: Mapping[str, Any]
    """JSON values that were noted while they were made."""
    digest: str
    """Hash of what the arrays were made from."""


class Column:
    """An .npy file that grows at its end; its items may be single numbers or rows."""

    def __init__(self, file: IO[bytes], dtype: np.typing.DTypeLike, row: tuple[int, ...] = ()):
        self.dtype, self.row, self.count = np.dtype(dtype), row, 0
        self._file = file
        self._write_header()

    def append(self, values: Any) -> None:
        """Adds items [N, *row].

        Raises:
          OverflowError: an integer of a list is not within the dtype.
        """
        values = np.asarray(values, self.dtype)
        if values.size:
            self._file.write(values.tobytes())
            self.count += len(values)

    def finish(self) -> None:
        """Writes the final header."""
        self._file.seek(0)
        self._write_header()
        self._file.flush()

    def _write_header(self) -> None:
        """NumPy leaves room for the length to grow, so that the header keeps its size (numpy.lib.format)."""
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count, *self.row)}
        np.lib.format.write_array_header_1_0(self._file, header)


class Writer:
    """What a build writes into."""

    def __init__(self, folder: Path, files: contextlib.ExitStack):
        """Writes into `folder`; `files` closes what is opened."""
        self.folder, self._files = folder, files
        self.notes: dict[str, Any] = {}
        self.columns: dict[str, Column] = {}

    def column(self, name: str, dtype: np.typing.DTypeLike, row: tuple[int, ...] = ()) -> Column:
        """A new array, to be appended to."""
        file = self._files.enter_context((self.folder / f"{name}.npy").open("wb"))
        self.columns[name] = Column(file, dtype, row)
        return self.columns[name]

    def finish(self) -> None:
        """Completes the entry: from here on it can be read."""
        for column in self.columns.values():
            column.finish()
        sizes = {path.name: path.stat().st_size for path in sorted(self.folder.glob("*.npy"))}
        content = json.dumps({"files": sizes, "notes": self.notes})
        (self.folder / ENTRY).write_text(content, encoding="utf-8")


def cache_folder() -> Path:
    """$JAXFORMER_CACHE/text, else $XDG_CACHE_HOME/jaxformer/text, else ~/.cache/jaxformer/text."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "jaxformer"
    return Path(os.environ.get("JAXFORMER_CACHE") or home).expanduser() / "text"


def cached(inputs: Mapping[str, Any], build: Callable[[Writer], None]) -> Entry:
    """The entry for `inputs`; `build` makes it if it is not there.

    Args:
      inputs: JSON values: all that decides what `build` writes.
      build: called at most once on a machine at a time.

    Raises:
      UserError: the cache's folder cannot be written.
    """
    versions = {"version": VERSION, "tokenizers": importlib.metadata.version("tokenizers")}
    text = json.dumps({**versions, **inputs}, sort_keys=True)
    root, key = cache_folder(), hashlib.sha256(text.encode()).hexdigest()[:32]
    lock = root / f".{key}.lock"
    if entry := read_entry(root / key):
        remove(lock)  # of a process that was killed when it had made the entry
        return entry
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(lock):
            if not read_entry(root / key):  # another process may have made it while this one waited
                make_entry(root, key, build)
    except OSError as error:
        raise UserError(
            f"{error.filename or root}: cannot keep tokenised text there: {error.strerror or error}",
            "name a folder that can be written, and has room, in JAXFORMER_CACHE",
        ) from error
    if entry := read_entry(root / key):
        return entry
    raise UserError(f"{root / key}: was made, and cannot be read; is the disk full?")


def make_entry(root: Path, key: str, build: Callable[[Writer], None]) -> None:
    """Makes an entry; the caller has its lock, so that whatever else lies there is a dead process's."""
    shutil.rmtree(root / key, ignore_errors=True)
    with incomplete(root / key) as scratch:
        scratch.mkdir()
        with contextlib.ExitStack() as files:
            writer = Writer(scratch, files)
            build(writer)
            writer.finish()
        put_in_place(scratch, root / key)


def read_entry(folder: Path) -> Entry | None:
    """Maps an entry's arrays; None if it is not there, or any file has not the size that it was written with."""
    try:
        content = load_json(folder / ENTRY)
        paths = {folder / name: size for name, size in content["files"].items()}
        if any(path.stat().st_size != size for path, size in paths.items()):
            return None
        maps = {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in paths}
        # Plain arrays, since np.memmap is slow to index.
        return Entry({name: np.asarray(array) for name, array in maps.items()}, content["notes"], folder.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
