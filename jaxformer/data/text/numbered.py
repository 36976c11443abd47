"""Text files and JSON lines, read line by line with the lines' numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError
from jaxformer.files import parse_object


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of a UTF-8 file; blank lines are passed over, and only "\\n" ends a line.

    Raises:
      UserError: it cannot be read, or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {number}: is not UTF-8; save the file in that encoding") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def numbered_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, object) of a file of JSON lines.

    Raises:
      UserError: as `numbered_lines`, or a line is no JSON object.
    """
    for number, line in numbered_lines(path):
        try:
            yield number, parse_object(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
