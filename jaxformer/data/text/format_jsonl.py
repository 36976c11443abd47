"""JSON Lines: a JSON object in every line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxformer.data.text.format_table import Row, TableFormat
from jaxformer.data.text.formats import Broken, TextFile, lines_of


@dataclass(frozen=True)
class JsonLinesFormat(TableFormat):
    """The objects of JSON Lines files; a column is what the values of one key are."""

    extensions: ClassVar[frozenset[str]] = frozenset({".jsonl", ".ndjson"})

    def kind(self, value: Any) -> str:
        """A value's type."""
        if value is None or value == "":
            return "nothing"
        kinds = {bool: "boolean", int: "integer", float: "number", str: "text"}
        return kinds.get(type(value), "nested")

    def rows(self, file: TextFile, text: str, broken: list[Broken]) -> Iterator[Row]:
        """The objects; empty lines are none."""
        for line, content in enumerate(lines_of(text), 1):
            if not content.strip():
                continue
            try:
                yield Row(file, line, parse_object(content))
            except ValueError as error:
                broken.append((file.path, f"line {line}: {error}"))


def parse_object(content: str) -> dict[str, Any]:
    """A JSON object (RFC 8259).

    Raises:
      ValueError: it is none, or has a key twice; says what is wrong, and at which character.
    """
    value = parse_json(content)
    if not isinstance(value, dict):
        raise ValueError('expected a JSON object, as in {"text": "..."}')
    return value


def parse_json(content: str) -> Any:
    """JSON in which no key is there twice.

    Raises:
      ValueError: it is not; `json.JSONDecodeError` where its grammar is broken.
    """
    try:
        return json.loads(content, object_pairs_hook=without_repeats, parse_constant=no_constant)
    except RecursionError as error:
        raise ValueError("not JSON that can be read: it is nested too deeply") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if "\n" in content.rstrip("\n") else ""
        raise ValueError(f"not JSON ({error.msg} at {place}character {error.colno})") from error


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's members."""
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice!r} is there twice in an object")
    return members


def no_constant(name: str) -> Any:
    """Refuses what JSON does not have, and Python's module reads."""
    raise ValueError(f"{name} is not JSON; write a number, or leave it out")
