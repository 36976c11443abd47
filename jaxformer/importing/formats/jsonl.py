"""JSON Lines: a JSON object in every line."""

from collections.abc import Sequence
from typing import Any

from jaxformer.files import lines_of, parse_object
from jaxformer.importing.contents import Contents
from jaxformer.importing.formats.tables import Row, Table
from jaxformer.importing.sources import Sources

KINDS = {bool: "boolean", int: "integer", float: "number", str: "text"}


def read_jsonl(
    sources: Sources,
    label: str | None = None,
    regression: bool = False,
    text: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> Contents:
    """Reads the objects of JSON Lines files; a column is what the values of one key are. Empty lines are no rows.

    The options are those of `tables.Table`.
    """
    table = Table(value_kind, label, regression, tuple(text), tuple(classes))
    table.check_options()
    rows = []
    for file, content in sources.texts():
        for number, line in enumerate(lines_of(content), 1):
            if line.strip():
                try:
                    rows.append(Row(file, number, parse_object(line)))
                except ValueError as error:
                    sources.broken.append((file.path, f"line {number}: {error}"))
    return table.contents(rows, sources.broken)


def value_kind(value: Any) -> str:
    """A value's type, a key of `tables.WORDS`."""
    return "nothing" if value is None or value == "" else KINDS.get(type(value), "nested")
