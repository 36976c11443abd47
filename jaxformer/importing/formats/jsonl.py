"""JSON Lines: a JSON object in every line."""

from collections.abc import Iterator
from typing import Any

from jaxformer.importing.contents import Contents
from jaxformer.importing.formats.tables import Row, Table
from jaxformer.importing.sources import Sources
from jaxformer.reading import lines_of, parse_object

KINDS = {bool: "boolean", int: "integer", float: "number", str: "text"}


def read(sources: Sources, **options: Any) -> Contents:
    """Reads the objects of JSON Lines files; a column is what the values of one key are. Empty lines are no rows.

    The options are those of `tables.Table`.
    """
    return Table(value_kind, **options).contents(rows, sources)


def rows(sources: Sources) -> Iterator[Row]:
    """The rows of all files; lines that are no JSON object go to `sources.broken`."""
    for file, content in sources.texts():
        for number, line in enumerate(lines_of(content), 1):
            if line.strip():
                with sources.checking(file.path, f"line {number}"):
                    yield Row(file, number, parse_object(line))


def value_kind(value: Any) -> str:
    """A value's type, a key of `tables.WORDS`."""
    return "nothing" if value is None or value == "" else KINDS.get(type(value), "nested")
