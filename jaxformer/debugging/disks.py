"""A small disk of its own for a run, which can be filled without harm to anything else."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Makes a folder, on a disk in memory (tmpfs) where that may be mounted; in the end it is a plain one.

    Args:
      folder: is made; what it holds is kept.
      size: bytes.

    Yields:
      Whether it is on such a disk.
    """
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "jaxformer-chaos", str(folder)]
    mounted = False
    with suppress(OSError):  # there is no such command
        mounted = subprocess.run(words, stderr=subprocess.DEVNULL).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            kept = folder.with_name(f"{folder.name}.kept")
            shutil.copytree(folder, kept)
            subprocess.run(["umount", str(folder)], check=True)
            folder.rmdir()
            kept.rename(folder)


def fill(file: Path) -> None:
    """Has a file take all the room that is left on its disk; if others are quicker, less."""
    with suppress(OSError), file.open("ab") as filler:
        disk = os.fstatvfs(filler.fileno())
        if left := disk.f_bavail * disk.f_frsize:
            os.posix_fallocate(filler.fileno(), filler.tell(), left)


def taken(folder: Path) -> int:
    """The bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
