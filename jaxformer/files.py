"""Reading texts and JSON, and writing files so that nothing is ever half-written."""

import codecs
import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError, printable

OR_DELETE = "restore it, or delete it to go without"
IMAGE_EXTENSIONS = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class BrokenFile(UserError):
    """A file cannot be used; `reason` says why, perhaps with the line: "line 7: label is empty"."""

    def __init__(self, path: Path, reason: str):
        self.path, self.reason = path, reason
        super().__init__(located(path, reason))


def located(path: Path, reason: str) -> str:
    """A file and what is wrong with it: "a.csv, line 7: label is empty", or "a.csv: is empty"."""
    return f"{path}, {reason}" if reason.startswith("line ") else f"{path}: {reason}"


def read_text(path: Path, may_be_empty: bool = False) -> str:
    """A UTF-8 file without its byte order mark; "\\n" ends the lines that end with "\\r\\n" in the file.

    Args:
      path: the file.
      may_be_empty: whether a file that holds nothing but white space is a text.

    Raises:
      BrokenFile: the file cannot be read, is not UTF-8, or is empty; the reason names the line and the byte.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BrokenFile(path, f"cannot be read ({error.strerror or error})") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BrokenFile(path, "line 1: byte 0 begins UTF-16; save the file as UTF-8")
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = f"byte {error.start} ({content[error.start]:#04x})"
        raise BrokenFile(path, f"line {line}: {wrong} is not UTF-8; save the file as UTF-8") from error
    if not text.strip() and not may_be_empty:
        raise BrokenFile(path, "holds nothing but white space" if text else "is empty")
    return text.replace("\r\n", "\n")


def lines_of(text: str) -> list[str]:
    """Lines as "\\n" ends them, and nothing else does: U+2028 and its like are part of a text."""
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def parse_json(content: str) -> Any:
    """JSON (RFC 8259) in which no object has a key twice.

    Raises:
      ValueError: it is something else; the message names the mistake and the character.
    """
    try:
        return json.loads(content, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("not JSON that can be read: it is nested too deeply") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if "\n" in content.rstrip("\n") else ""
        raise ValueError(f"not JSON ({error.msg} at {place}character {error.colno})") from error


def parse_object(content: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
      ValueError: as `parse_json`, or it is a list, a text or a number.
    """
    value = parse_json(content)
    if not isinstance(value, dict):
        raise ValueError('expected a JSON object, as in {"text": "..."}')
    return value


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of a text file; blank lines are passed over.

    Raises:
      BrokenFile: as `read_text`.
    """
    for number, line in enumerate(lines_of(read_text(path, may_be_empty=True)), 1):
        if line.strip():
            yield number, line


def numbered_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, object) of a file of JSON lines.

    Raises:
      BrokenFile: as `read_text`, or a line is no JSON object.
    """
    for number, line in numbered_lines(path):
        try:
            yield number, parse_object(line)
        except ValueError as error:
            raise BrokenFile(path, f"line {number}: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice!r} is there twice in an object")
    return members


def _no_constant(name: str) -> Any:
    """Refuses NaN and Infinity, which JSON does not have and Python's module reads."""
    raise ValueError(f"{name} is not JSON; write a number, or leave it out")


@contextlib.contextmanager
def writing_to(path: Path, remedy: str = "name another place") -> Iterator[None]:
    """Turns an error of the file system into a UserError that names `path` and the remedy."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot write there ({error.strerror or error}); {remedy}") from error


@contextlib.contextmanager
def as_written(path: Path, remedy: str = OR_DELETE) -> Iterator[None]:
    """Turns what values of other kinds than ours bring about into a UserError that names their file `path`."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: is not as a run writes it ({what}); {remedy}") from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name beside `path`, then renames it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; see `to_json` for numbers that are not finite."""
    write_atomically(path, json.dumps(to_json(value), indent=2, allow_nan=False) + "\n")


def json_line(value: Any) -> str:
    """A line of JSON whose texts can be read, and are `printable`; see `to_json` for numbers that are not finite."""
    return printable(json.dumps(to_json(value), ensure_ascii=False, allow_nan=False)) + "\n"


def to_json(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinities become "NaN", "Infinity" and "-Infinity", which float() reads.

    Protobuf's JSON does the same.
    """
    return json.loads(json.dumps(value), parse_constant=str)


def read_json(path: Path, needs: tuple[str, ...], remedy: str = OR_DELETE) -> dict[str, Any] | None:
    """A JSON object with the keys `needs`; None if there is no such file.

    Raises:
      UserError: it is no JSON object, or lacks a key.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); {remedy}") from error
    missing = [key for key in needs if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}; {remedy}")
    return content
