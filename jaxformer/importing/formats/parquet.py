"""Parquet and Arrow files: tables with typed columns, as pandas and Hugging Face's datasets write them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxformer.importing.contents import Contents
from jaxformer.importing.formats.jsonl import value_kind
from jaxformer.importing.formats.tables import Row, Table
from jaxformer.importing.sources import Sources
from jaxformer.reading import regular

BATCH = 4096  # rows of a Parquet file that are read at once
MOST_TIMES = 1000  # how much larger than its file a table may be; Parquet makes texts some 10 times smaller
SMALL = 1 << 24  # bytes that any table may take


def read(sources: Sources, **options: Any) -> Contents:
    """Reads the rows of the files. Columns of lists, records, bytes or times are left out.

    The options are those of `tables.Table`.
    """
    return Table(value_kind, **options).contents(rows, sources)


def rows(sources: Sources) -> Iterator[Row]:
    """The rows of all files, numbered from 1; files that are no tables go to `sources.broken`."""
    for file in sources.files():
        with sources.checking(file.path):
            table = opened(file.path)
            names = class_names(table.schema.metadata)
            for number, row in enumerate(records(table), 1):
                yield Row(file, number, {name: named(value, names.get(name)) for name, value in row.items()})


def opened(path: Path) -> Any:
    """The pyarrow.Table in a file, with all its values checked: a wrong offset in one would end the process.

    Raises:
      ValueError: it is none, or a small file that becomes a table without end.
    """
    import pyarrow
    from pyarrow import ipc, parquet

    try:
        content = pyarrow.py_buffer(regular(path).read_bytes())
        if path.suffix.lower() == ".parquet":
            file = parquet.ParquetFile(content)
            schema, batches = file.schema_arrow, file.iter_batches(BATCH)
        elif content[:6].to_pybytes() == b"ARROW1":
            file = ipc.open_file(content)
            schema, batches = file.schema, map(file.get_batch, range(file.num_record_batches))
        else:
            batches = ipc.open_stream(content)
            schema = batches.schema
        return pyarrow.Table.from_batches(checked(batches, content.size), schema)
    except (pyarrow.ArrowException, OSError) as error:
        said, *_ = str(error).split("\n")
        raise ValueError(f"is no table of Parquet or Arrow ({said})") from error


def checked(batches: Iterable[Any], size: int) -> Iterator[Any]:
    """The batches of a file of `size` bytes, each valid.

    Raises:
      ValueError: together they take far more memory than such a file has reason to.
      pyarrow.ArrowException: a batch is not valid.
    """
    left = max(SMALL, MOST_TIMES * size)
    for batch in batches:
        batch.validate(full=True)
        left -= batch.nbytes + 8 * batch.num_rows * batch.num_columns  # even of nothing Python has a pointer
        if left < 0:
            raise ValueError(f"becomes more than {MOST_TIMES:,} times as large when it is read")
        yield batch


def records(table: Any) -> list[dict[str, Any]]:
    """The rows of a table by column; in columns of other things than texts and numbers, each value is their type."""
    types = {field.name: field.type for field in table.schema}
    wanted = [number for number, field in enumerate(table.schema) if holds_plain_values(field.type)]
    return [types | row for row in table.select(wanted).to_pylist()]


def holds_plain_values(of: Any) -> bool:
    """Whether a pyarrow.DataType is one of texts, numbers, true and false, or nothing."""
    from pyarrow import types

    of = of.value_type if types.is_dictionary(of) or types.is_run_end_encoded(of) else of
    texts = types.is_string(of) or types.is_large_string(of) or types.is_string_view(of)
    return texts or types.is_integer(of) or types.is_floating(of) or types.is_boolean(of) or types.is_null(of)


def class_names(metadata: Any) -> dict[str, list[str]]:
    """Column -> the names of its classes, where Hugging Face's datasets noted them."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        found = {
            name: about["names"] for name, about in features.items() if about.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
    return {name: names for name, names in found.items() if isinstance(names, list)}


def named(value: Any, names: list[str] | None) -> Any:
    """A class's name in the place of its number; None where there is no such class, as -1."""
    if names is None or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None
