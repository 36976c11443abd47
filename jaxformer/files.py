"""Writing files so that nothing is ever half-written, and locks."""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TextIO

from jaxformer.errors import NoRoom, UserError, data_size, printable

FULL = (errno.ENOSPC, errno.EDQUOT)
INCOMPLETE = ".incomplete-"  # in the names of what is being written; host and process follow


@contextlib.contextmanager
def writing_to(path: Path, remedy: str = "name another place") -> Iterator[None]:
    """Turns an error of the file system into a UserError that names `path` and the remedy."""
    try:
        yield
    except OSError as error:
        kind, why = explained(error, path)
        raise kind(f"{path}: cannot write there ({why}); {remedy}") from error


@contextlib.contextmanager
def naming_files(folder: Path, remedy: str) -> Iterator[None]:
    """Turns an error of the file system into a UserError that names the file, or else `folder`, and the remedy."""
    try:
        yield
    except OSError as error:
        kind, why = explained(error, folder)
        raise kind(f"{error.filename or folder}: {why}; {remedy}") from error


def explained(error: OSError, place: Path) -> tuple[type[UserError], str]:
    """What an error of the file system is for the user, and its reason: on a full disk with the room that is left.

    Args:
      error: the error.
      place: what was written, or a folder above it.
    """
    why = error.strerror or str(error)
    if error.errno not in FULL:
        return UserError, why
    there = next(each for each in (place.absolute(), *place.absolute().parents) if each.exists())
    disk = shutil.disk_usage(there)
    return NoRoom, f"{why}, {data_size(disk.free)} of {data_size(disk.total)} are free"


@contextlib.contextmanager
def locked(path: Path, refusal: Exception | None = None) -> Iterator[IO[str]]:
    """Holds a lock: a file that is there while a process holds it, and which the system releases if the process dies.

    If another process holds it, this waits, or raises `refusal`.
    """
    while True:
        with path.open("a", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
            except BlockingIOError as error:
                raise refusal or error from error
            except OSError:
                pass  # a file system without locks
            if not is_at(lock, path):  # who held it has removed it meanwhile
                continue
            try:
                yield lock
            finally:
                if is_at(lock, path):
                    path.unlink()
            return


def is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file still has this path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


@contextlib.contextmanager
def incomplete(path: Path) -> Iterator[Path]:
    """A hidden name beside `path`, under which a file or a folder is written or deleted; it is gone afterwards.

    The name tells host and process, so that what a process that died has left there can be cleared away. That is done
    first. An error of the file system about the hidden name, or about none, names `path`.
    """
    clear_incomplete(path.parent)
    process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    hidden = path.with_name(f".{path.name[:40]}{INCOMPLETE}{process}")
    try:
        yield hidden
    except OSError as error:
        if str(error.filename or hidden).startswith(str(hidden)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        remove(hidden)


@contextlib.contextmanager
def made(folder: Path) -> Iterator[None]:
    """Makes a folder and those above it; of these, those in which nothing is in the end are taken away again."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for each in new:
            with contextlib.suppress(OSError):
                each.rmdir()


def clear_incomplete(folder: Path, everything: bool = False) -> None:
    """Removes what dead processes of this machine have left in a folder; with `everything`, what any process has."""
    for hidden in folder.glob(f".*{INCOMPLETE}*"):
        maker = re.search(rf"{INCOMPLETE}(.+)-(\d+)-\w+$", hidden.name)
        died = maker and maker[1] == socket.gethostname() and not is_running(maker[2])
        if everything or died:
            remove(hidden)


def is_running(process: str) -> bool:
    """Whether a process with this number runs on this machine."""
    try:
        os.kill(int(process), 0)
    except (OSError, ValueError) as error:
        return isinstance(error, PermissionError)  # it runs, and is someone else's
    return True


def remove(path: Path) -> None:
    """Removes a file, or a folder and all that is in it, as far as the system lets it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def delete_at_once(folder: Path) -> None:
    """Deletes a folder in such a way that nobody ever sees half of it under its name."""
    with incomplete(folder) as hidden:
        folder.rename(hidden)


def flush(path: Path) -> None:
    """Has a file's content, or the names in a folder, on the disk and not only in memory when it returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems cannot do it for folders
            raise
    finally:
        os.close(handle)


def put_in_place(new: Path, path: Path) -> None:
    """Renames a file or a folder that is written to its name, so that it outlasts a power cut; a file may be there."""
    if is_device(path):
        raise OSError(errno.EINVAL, "is a device or a pipe", str(path))
    for each in (*new.rglob("*"), new):
        flush(each)
    new.replace(path)
    flush(path.parent)


def is_device(path: Path) -> bool:
    """Whether a path is that of a device, a pipe or a socket."""
    return path.exists() and not (path.is_file() or path.is_dir())


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file under a hidden name beside `path`, then renames it into place.

    A device or a pipe, as /dev/null or /dev/stdout, is written to: a file in its place would be the end of it.
    """
    if is_device(path):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with incomplete(path) as hidden:
        hidden.write_bytes(content.encode() if isinstance(content, str) else content)
        put_in_place(hidden, path)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; see `to_json` for numbers that are not finite."""
    write_atomically(path, json.dumps(to_json(value), indent=2, allow_nan=False) + "\n")


def json_line(value: Any) -> str:
    """A line of JSON whose texts can be read, and are `printable`; see `to_json` for numbers that are not finite."""
    return printable(json.dumps(to_json(value), ensure_ascii=False, allow_nan=False)) + "\n"


def write_to(stream: TextIO, text: str) -> None:
    """Writes to a stream at once; an error names the stream."""
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        named = isinstance(stream.name, str) and stream.name != "<stdout>"
        name = stream.name if named else "standard output"
        raise OSError(error.errno, error.strerror or str(error), name) from error


def to_json(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinities become "NaN", "Infinity" and "-Infinity", which float() reads.

    Protobuf's JSON does the same.
    """
    return json.loads(json.dumps(value), parse_constant=str)
