"""Comma-separated values (RFC 4180) with a header line."""

import csv
import io
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError, counted
from jaxformer.importing.contents import Contents
from jaxformer.importing.formats.tables import Row, Table
from jaxformer.importing.sources import Sources
from jaxformer.reading import INTEGER, NUMBER


def read(sources: Sources, **options: Any) -> Contents:
    """Reads the rows of CSV files. A column is numbers if all its cells can be read as numbers, else texts.

    In files named ".tsv" there are tabs between columns.

    The options are those of `tables.Table`.
    """
    return Table(cell_kind, **options).contents(rows, sources)


def rows(sources: Sources) -> Iterator[Row]:
    """The rows of all files; those of another length go to `sources.broken`."""
    for file, content in sources.texts():
        (_, header), *found = csv_rows(file.path, content)
        names = [name.strip() for name in header]
        check_header(file.path, names)
        for line, cells in found:
            if len(cells) == len(names):
                yield Row(file, line, dict(zip(names, cells)))
            else:
                numbers = f"{counted(len(cells), 'value')} for {counted(len(names), 'column')}"
                sources.broken.append((file.path, f"line {line}: has {numbers}"))


def csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The header and the rows of a CSV, with the lines in which they begin, from 1; empty lines are no rows.

    A first line such as "sep=;" is no row; it says what is between columns.

    Raises:
      UserError: quotes do not match.
    """
    named = re.match(r'"?sep=([,;|\t])"?(\n|$)', text)  # what Excel writes and reads as the first line
    delimiter = named[1] if named else "\t" if path.suffix.lower() == ".tsv" else ","
    before = csv.field_size_limit(max(len(text), 1))  # the module's own limit is 131,072 characters
    line = first = 2 if named else 1
    try:
        # newline="" lets the module see every kind of line end.
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for cells in islice(reader, first - 1, None):
            if cells or line == first:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {line}: not CSV ({error}); look for a stray quote") from error
    finally:
        csv.field_size_limit(before)


def cell_kind(value: str | None) -> str:
    """What a cell's text reads as, a key of `tables.WORDS`."""
    value = (value or "").strip()
    if not value:
        return "nothing"
    if INTEGER.fullmatch(value):
        return "integer"
    return "number" if NUMBER.fullmatch(value) else "text"


def check_header(path: Path, header: list[str]) -> None:
    """Refuses headers that are there twice, and rows where the header should be."""
    twice = [name for name in header if name and header.count(name) > 1]
    problem = None
    if twice:
        problem = f"there are two columns {twice[0]!r}; rename one"
    elif not any(header):
        problem = "is empty; the first line names the columns"
    elif len(header) == 1 and {";", "\t"} & set(header[0]):
        problem = f"is one column, {header[0]!r}; put commas between columns"
    elif all(cell_kind(name) in ("integer", "number") for name in header if name):
        problem = f"{', '.join(header)}: numbers, where the columns' names belong"
    if problem:
        raise UserError(f"{path}, line 1: {problem}")
