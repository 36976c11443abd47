"""Digests of a folder's files: whether they still are as they were written."""

import json
import os
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jaxformer.files import write_json

DIGESTS = "digests.json"
BLOCK = 2**22  # bytes read at a time


def write_digests(folder: Path) -> None:
    """Writes the size and the crc32 of every file in the sub-folders of `folder` into its digests.json.

    Before that, every file is on the disk and not only in memory. The files were just written, so that they
    are read back from memory: about a second a gigabyte and core.
    """
    files = sorted(path for path in folder.glob("*/**/*") if path.is_file())
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda path: checksum(path, flush=True), files))
    write_json(
        folder / DIGESTS, {path.relative_to(folder).as_posix(): sums for path, sums in zip(files, found)}
    )


def damage(folder: Path, parts: Iterable[str]) -> str | None:
    """The first damage to the files in a folder, in a few words; None if they are as they were written.

    Args:
      folder: one that `write_digests` was called for.
      parts: the sub-folders whose files are looked at.
    """
    try:
        written = json.loads((folder / DIGESTS).read_text())
        names = [name for name in written if name.split("/")[0] in set(parts)]
        with ThreadPoolExecutor() as pool:
            for name, found in zip(names, pool.map(lambda name: checksum(folder / name), names)):
                size = written[name][0]
                if found[0] != size:
                    return f"{name} has {found[0]} of {size} bytes"
                if found != written[name]:
                    return f"{name} is not what was written (crc32)"
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(folder)} is missing"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except (ValueError, TypeError, AttributeError, IndexError):
        return f"{DIGESTS} is not what was written"
    return None


def checksum(path: Path, flush: bool = False) -> list[int]:
    """[size in bytes, crc32] of a file; `flush` has it on the disk when this returns."""
    size = crc = 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            size, crc = size + len(block), zlib.crc32(block, crc)
        if flush:
            os.fsync(file.fileno())
    return [size, crc]
