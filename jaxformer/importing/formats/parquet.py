"""Parquet and Arrow files: tables with typed columns, as pandas and Hugging Face's datasets write them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxformer.importing.contents import Contents
from jaxformer.importing.formats.jsonl import value_kind
from jaxformer.importing.formats.tables import Row, Table
from jaxformer.importing.sources import Sources
from jaxformer.reading import regular


def read(sources: Sources, **options: Any) -> Contents:
    """Reads the rows of the files. Columns of lists, records or bytes are left out.

    The options are those of `tables.Table`.
    """
    return Table(value_kind, **options).contents(rows, sources)


def rows(sources: Sources) -> Iterator[Row]:
    """The rows of all files, numbered from 1; files that are no tables go to `sources.broken`."""
    for file in sources.files():
        with sources.checking(file.path):
            table = opened(file.path)
            names = class_names(table.schema.metadata)
            for number, row in enumerate(table.to_pylist(), 1):
                yield Row(file, number, {name: named(value, names.get(name)) for name, value in row.items()})


def opened(path: Path) -> Any:
    """The pyarrow.Table in a file.

    Raises:
      ValueError: it is none.
    """
    import pyarrow
    from pyarrow import ipc, parquet

    try:
        regular(path)
        if path.suffix.lower() == ".parquet":
            return parquet.ParquetFile(path, memory_map=True).read()
        with pyarrow.memory_map(str(path)) as source:
            if source.read(6) == b"ARROW1":
                return ipc.open_file(source).read_all()
            source.seek(0)
            return ipc.open_stream(source).read_all()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"is no table of Parquet or Arrow ({str(error).splitlines()[0]})") from error


def class_names(metadata: Any) -> dict[str, list[str]]:
    """Column -> the names of its classes, where Hugging Face's datasets noted them."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        found = {
            name: about["names"] for name, about in features.items() if about.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
    return {name: names for name, names in found.items() if isinstance(names, list)}


def named(value: Any, names: list[str] | None) -> Any:
    """A class's name in the place of its number; None where there is no such class, as -1."""
    if names is None or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None
