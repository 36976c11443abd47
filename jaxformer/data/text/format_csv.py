"""Comma-separated values (RFC 4180) with a header line."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxformer.data.text.format_table import Row, TableFormat, at_line
from jaxformer.data.text.formats import Broken, TextFile, counted

INTEGER = re.compile(r"[+-]?[0-9]+")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class CsvFormat(TableFormat):
    """The rows of CSV files. A column is numbers if all its cells can be read as numbers, else texts."""

    extensions: ClassVar[frozenset[str]] = frozenset({".csv"})

    def kind(self, value: Any) -> str:
        """What a cell's text reads as."""
        value = value.strip() if value else value
        if not value:
            return "nothing"
        if INTEGER.fullmatch(value):
            return "integer"
        return "number" if NUMBER.fullmatch(value) else "text"

    def rows(self, file: TextFile, text: str, broken: list[Broken]) -> Iterator[Row]:
        """Rows with their cells by the header; empty lines are none.

        Raises:
          UserError: a header is there twice, or quotes do not match.
        """
        before = csv.field_size_limit(max(len(text), 1))  # the module's own limit is 131,072 characters
        begin = 1
        try:
            reader = csv.reader(io.StringIO(text, newline="\n"), strict=True)
            header = [name.strip() for name in next(reader, [])]
            self.check_header(file, header)
            begin = reader.line_num + 1
            for cells in reader:
                if cells and len(cells) != len(header):
                    broken.append(
                        (
                            file.path,
                            f"line {begin}: has {counted(len(cells), 'value')} for {counted(len(header), 'column')}",
                        )
                    )
                elif cells:
                    yield Row(file, begin, dict(zip(header, cells)))
                begin = reader.line_num + 1
        except csv.Error as error:
            raise at_line(file.path, begin, f"not CSV ({error}); look for a stray quote") from error
        finally:
            csv.field_size_limit(before)

    def check_header(self, file: TextFile, header: list[str]) -> None:
        """Refuses headers that are there twice, and rows where the header should be."""
        for name in header:
            if name and header.count(name) > 1:
                raise at_line(file.path, 1, f"there are two columns {name!r}; rename one")
        if not any(header):
            raise at_line(file.path, 1, "is empty; the first line names the columns")
        if len(header) == 1 and {";", "\t"} & set(header[0]):
            raise at_line(file.path, 1, f"is one column, {header[0]!r}; put commas between columns")
        if all(self.kind(name) in ("integer", "number") for name in header if name):
            given = ", ".join(header)
            raise at_line(file.path, 1, f"{given}: numbers, where the columns' names belong")
