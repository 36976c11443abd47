"""Reading files from outside, texts and JSON: what cannot be used is refused, and the message names the file."""

import codecs
import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxformer.config.fields import address, no_address
from jaxformer.errors import UserError

JSON_TYPES = {dict: "object", int: "whole number", str: "text", object: "value"}
ENOUGH = 4096  # bytes that tell the encoding
TRUE, FALSE = {"true", "1", "1.0"}, {"false", "0", "0.0", "none"}
OR_DELETE = "restore it, or delete it to go without"
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")  # how files of Excel begin: .xlsx, .xls
INTEGER = re.compile(r"[+-]?[0-9]+")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# The extensions of every format in data/decoding.py; and of HEIC, whose refusal there says what to do.
EXTENSIONS_BY_FORMAT = {
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "HEIC": (".heic", ".heif"),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"),
    "JPEG2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
    "MPO": (".mpo",),
    "PNG": (".apng", ".png"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
IMAGE_EXTENSIONS = frozenset(extension for format in EXTENSIONS_BY_FORMAT.values() for extension in format)


class BrokenFile(UserError):
    """A file cannot be used; `reason` says why, perhaps with the line: "line 7: label is empty"."""

    def __init__(self, path: Path, reason: str):
        self.path, self.reason = path, reason
        super().__init__(located(path, reason))


def located(path: Path, reason: str) -> str:
    """A file and what is wrong with it: "a.csv, line 7: label is empty", or "a.csv: is empty"."""
    return f"{path}, {reason}" if reason.startswith("line ") else f"{path}: {reason}"


def named(path: str | Path) -> Path:
    """The path that a user names.

    Raises:
      UserError: it is "", which would be the working directory; or an address (gs://bucket) and no file.
    """
    if path == "":
        raise UserError("'': is no name of a file or a folder; a variable of the shell may be empty")
    if not no_address(path) and not os.path.exists(path):
        raise UserError(f"{address(path)} is an address, and no path; mount the bucket (docs/launching.md)")
    return Path(path)


def regular(path: Path) -> Path:
    """The path, unless it is a pipe, a device or a socket, which may never end.

    Raises:
      OSError: it is one, or there is no such file.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder Python says that it is one
        raise OSError(errno.EINVAL, "a pipe, a device or a socket; copy its content into a file")
    return path


def read_text(path: Path, may_be_empty: bool = False) -> str:
    """A UTF-8 file without its byte order mark; "\\n" ends the lines that end with "\\r\\n" in the file.

    Where no line ends with "\\n", "\\r" does it, as old Macintoshes and some spreadsheets write.

    Args:
      path: the file.
      may_be_empty: whether a file that holds nothing but white space is a text.

    Raises:
      BrokenFile: the file cannot be read, is not UTF-8, or is empty; the reason names the line and the byte.
    """
    try:
        content = regular(path).read_bytes()
    except OSError as error:
        raise BrokenFile(path, f"cannot be read ({error.strerror or error})") from error
    if content.startswith(WORKBOOKS):
        raise BrokenFile(path, "is an Excel workbook or another archive; export it as CSV")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BrokenFile(path, "line 1: byte 0 begins UTF-16; save the file as UTF-8")
    few, many = sorted(content[start:ENOUGH:2].count(0) for start in (0, 1))
    if few == 0 and many > 3 and many > 0.45 * min(len(content), ENOUGH):
        raise BrokenFile(path, "line 1: every other byte is 0, as in UTF-16; save the file as UTF-8")
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = f"byte {error.start} ({content[error.start]:#04x})"
        raise BrokenFile(path, f"line {line}: {wrong} is not UTF-8; save the file as UTF-8") from error
    if not text.strip() and not may_be_empty:
        raise BrokenFile(path, "holds nothing but white space" if text else "is empty")
    text = re.sub("\r+\n", "\n", text) if "\r" in text else text  # some tools write "\r\r\n"
    return text if "\n" in text else text.replace("\r", "\n")


def lines_of(text: str) -> list[str]:
    """Lines as "\\n" ends them, and nothing else does: U+2028 and its like are part of a text."""
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def parse_json(content: str, constant: Callable[[str], Any] | None = None) -> Any:
    """JSON (RFC 8259) in which no object has a key twice.

    Args:
      content: the JSON.
      constant: what makes a value of NaN, Infinity and -Infinity; None refuses them.

    Raises:
      ValueError: it is something else; the message names the mistake and the character.
    """
    try:
        read = constant or _no_constant
        return json.loads(content, object_pairs_hook=_without_repeats, parse_constant=read)
    except RecursionError as error:
        raise ValueError("not JSON that can be read: it is nested too deeply") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if "\n" in content.rstrip("\n") else ""
        raise ValueError(f"not JSON ({error.msg} at {place}character {error.colno})") from error
    except ValueError as error:
        if "set_int_max_str_digits" not in str(error):
            raise
        raise ValueError(
            "a whole number has more than 4,300 digits; write it as a text, or leave it out"
        ) from error


def parse_number(text: str, written: re.Pattern[str] = NUMBER) -> float:
    """A number of a text file, in the digits 0 to 9; Python's own reads "1_0" and digits of all scripts, too.

    Args:
      text: the number.
      written: NUMBER, or INTEGER for whole numbers alone.

    Raises:
      ValueError: it is none.
    """
    if not written.fullmatch(text):
        raise ValueError(f"{text[:60]!r} is no {'whole ' if written is INTEGER else ''}number")
    return float(text)


def read_bool(values: Mapping[str, Any], key: str) -> bool:
    """What `key` says: true or false, 1 or 0, also as texts; false where it is not there or null.

    Raises:
      ValueError: it says something else.
    """
    word = str(values.get(key)).strip().lower()
    if word not in TRUE | FALSE:
        raise ValueError(f"{key} is {values[key]!r}; expected true or false")
    return word in TRUE


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
def as_written(path: Path, remedy: str = OR_DELETE) -> Iterator[None]:
    """Turns what values of other kinds than ours bring about into a UserError that names their file `path`."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: is not as a run writes it ({what}); {remedy}") from error


def load_json(path: Path) -> Any:
    """What a JSON file holds, NaN and infinities too.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no JSON.
    """
    return parse_json(regular(path).read_text(encoding="utf-8"), constant=float)


def read_json(path: Path, needs: Mapping[str, type], remedy: str = OR_DELETE) -> dict[str, Any] | None:
    """A JSON object with certain keys; None if there is no such file.

    Args:
      path: the file.
      needs: the keys, each with the type of its value.
      remedy: what to do if the file is another one.

    Raises:
      UserError: it is no JSON object, or lacks a key, or holds a value of another type.
    """
    if not path.exists():
        return None
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); {remedy}") from error
    missing = [key for key in needs if not isinstance(content, dict) or key not in content]
    if missing or not isinstance(content, dict):
        raise UserError(f"{path}: lacks {', '.join(missing) or 'a JSON object'}; {remedy}")
    for key, kind in needs.items():
        if not isinstance(content[key], kind):
            raise UserError(f"{path}: {key!r} is {content[key]!r}, which is no {JSON_TYPES[kind]}; {remedy}")
    return content
