"""Tables of examples: which columns are kept, and what they hold. format_csv.py and format_jsonl.py read rows."""

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jaxformer.config.schema import did_you_mean
from jaxformer.data.importing import natural
from jaxformer.data.text.formats import (
    Broken,
    Example,
    Parsed,
    TextFile,
    check_classes,
    is_class_name,
    read_files,
)
from jaxformer.data.text.importing_splits import random_share
from jaxformer.errors import UserError

# What a cell can be, as messages say it.
WORDS = {
    "boolean": "true or false",
    "integer": "a whole number",
    "nested": "a list or an object",
    "nothing": "nothing",
    "number": "a number",
    "text": "text",
}


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    file: TextFile
    """Where it is from."""
    line: int
    """The line in which it begins, from 1."""
    cells: dict[str, Any]
    """Values by column; None where there is nothing."""


@dataclass(frozen=True)
class Column:
    """What a column becomes."""

    name: str
    """The column's name, and the feature's."""
    kind: str
    """ "text", "class", "integer", "number" or "boolean"."""


@dataclass(frozen=True)
class TableFormat(abc.ABC):
    """Rows as examples; columns of texts become texts, those of numbers numbers."""

    test_share: ClassVar[float] = 0.2

    label: str | None = None
    """The column to predict: classes by name, or with `regression` a number. None makes no label."""
    regression: bool = False
    """Whether the label is a number."""
    text: tuple[str, ...] = ()
    """The columns of texts to keep; empty keeps all."""
    classes: tuple[str, ...] = field(default=())
    """The classes, in the order of their labels; empty takes those that there are, sorted."""

    def problems(self) -> Iterator[str]:
        """Yields a line for every combination of options that cannot work."""
        for name, given in (("regression", self.regression), ("classes", self.classes)):
            if given and self.label is None:
                yield f"{name}: is about the label, and there is none; name its column with --label"
        if self.regression and self.classes:
            yield "classes: a regression has none; give --classes or --regression"
        if self.label in self.text:
            yield f"text: {self.label!r} is the label; name other columns"
        yield from check_classes(self.classes)
        if len(self.classes) == 1:
            yield f"classes: there is only {self.classes[0]!r}; two are needed at least"

    @abc.abstractmethod
    def rows(self, file: TextFile, text: str, broken: list[Broken]) -> Iterator[Row]:
        """The rows of one file, all with the same columns or with some missing."""

    @abc.abstractmethod
    def kind(self, value: Any) -> str:
        """What a cell holds: a key of WORDS."""

    def read(self, files: Sequence[TextFile], broken: list[Broken]) -> Parsed:
        """All rows; what their columns hold is found out from all of them."""
        import tensorflow_datasets as tfds

        rows = [row for file, text in read_files(files, broken) for row in self.rows(file, text, broken)]
        if not rows:
            return Parsed({}, [])
        columns, notes = self.columns(rows)
        kept = []
        for row in rows:
            try:
                kept.append((row, {column.name: self.value(row, column) for column in columns}))
            except ValueError as error:
                broken.append((row.file.path, f"line {row.line}: {error}"))
        of_classes = self.label if self.label is not None and not self.regression else None
        names = list(self.classes) or sorted({v[of_classes] for _, v in kept if of_classes}, key=natural)
        numbers = {"integer": np.int64, "number": np.float32, "boolean": np.bool_}
        features: dict[str, Any] = {}
        for column in columns:
            if column.kind == "text":
                features[column.name] = tfds.features.Text()
            elif column.kind == "class":
                features[column.name] = tfds.features.ClassLabel(names=names)
            else:
                features[column.name] = tfds.features.Tensor(shape=(), dtype=numbers[column.kind])
        examples = [Example(v, row.file.split, label=v[of_classes] if of_classes else "") for row, v in kept]
        return Parsed(features, examples, names, [] if self.classes else names, notes)

    def columns(self, rows: Sequence[Row]) -> tuple[list[Column], list[str]]:
        """The columns that are kept, and notes about the others.

        Raises:
          UserError: a column is not there, or holds texts here and numbers there.
        """
        names = list(dict.fromkeys(name for row in rows for name in row.cells))
        for option, wanted in (
            ("label", [self.label] if self.label is not None else []),
            ("text", self.text),
        ):
            for name in wanted:
                if name not in names:
                    raise UserError(
                        f"{rows[0].file.path}: has no column {name!r}, which --{option} names; "
                        f"{did_you_mean(name, names)}"
                    )
        chosen, left_out = [], []
        for name in names:
            kind = self.column_kind(name, rows)
            if not name or kind is None or (kind == "text" and self.text and name not in self.text):
                left_out.append(repr(name) if name else "one without a name")
                continue
            if "/" in name:
                raise UserError(
                    f"{rows[0].file.path}: column {name!r}: TFDS takes no '/' in names; rename it"
                )
            chosen.append(Column(name, kind))
        if not any(column.kind == "text" for column in chosen):
            raise UserError(f"{rows[0].file.path}: no column holds texts; there are: {', '.join(names)}")
        return chosen, [f"left out: columns {', '.join(left_out)}"] if left_out else []

    def column_kind(self, name: str, rows: Sequence[Row]) -> str | None:
        """What a column becomes; None if it cannot be kept."""
        if name == self.label:
            return "number" if self.regression else "class"
        if name in self.text:
            return "text"
        first: dict[str, Row] = {}
        for row in rows:
            first.setdefault(self.kind(row.cells.get(name)), row)
        first.pop("nothing", None)
        if not first or "nested" in first:
            return None
        if set(first) == {"integer", "number"}:
            return "number"
        if len(first) == 1:
            return next(iter(first))
        if self.text and "text" in first:
            return None  # some column of texts that was not asked for
        (one, row), (other, another) = sorted(first.items(), key=lambda item: item[1].line)[:2]
        raise UserError(
            f"{another.file.path}, line {another.line}: column {name!r} holds {WORDS[other]}, but "
            f"{WORDS[one]} in {'' if row.file is another.file else f'{row.file.path}, '}line {row.line}",
            "make it one or the other; or name the columns of texts with --text",
        )

    def value(self, row: Row, column: Column) -> Any:
        """A cell as TFDS encodes it.

        Raises:
          ValueError: it is not of the column's kind, or cannot be stored; says what.
        """
        if column.name not in row.cells:
            raise ValueError(f"has no column {column.name!r}")
        value = row.cells[column.name]
        kind = self.kind(value)
        where = f"column {column.name!r}"
        if kind == "nothing" and not (column.kind == "text" and isinstance(value, str)):
            raise ValueError(f"{where} holds nothing")
        if column.kind == "text":
            return storable(value, where)
        if column.kind == "class":
            return self.class_of(value, kind, where)
        if column.kind == "boolean":
            return bool(value)
        if kind not in ("integer", "number"):
            raise ValueError(f"{where} holds {value!r}, which is no number")
        number = int(value) if column.kind == "integer" else float(value)
        largest = 2**63 - 1 if column.kind == "integer" else float(np.finfo(np.float32).max)
        if not -largest <= number <= largest:
            raise ValueError(f"{where} holds {value}, which is too large")
        return number

    def class_of(self, value: Any, kind: str, where: str) -> str:
        """A label as the name of a class."""
        if kind == "nested" or (isinstance(value, float) and kind == "number"):
            raise ValueError(
                f"{where} holds {value!r}, which is no class's name (a number needs --regression)"
            )
        name = str(value).strip()
        if not is_class_name(name):
            raise ValueError(f"{where} holds {value!r}, which is no class's name; it needs to be one line")
        if self.classes and name not in self.classes:
            raise ValueError(
                f"{where} holds {name!r}, which is not in --classes; {did_you_mean(name, self.classes)}"
            )
        return storable(name, where)

    def hold_out(self, examples: list[Example], share: float) -> tuple[list[Example], list[Example]]:
        """A random share, of each class where there are classes."""
        return random_share(examples, share)


def storable(value: Any, where: str) -> str:
    """A text that UTF-8 can hold.

    Raises:
      ValueError: it is no text, or holds half of a surrogate pair, as JSON's "\\ud83d" alone.
    """
    if not isinstance(value, str):
        raise ValueError(f"{where} holds {value!r}, which is no text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} holds half of a surrogate pair at character {error.start}") from error
    return value


def at_line(path: Path, line: int, what: str) -> UserError:
    """A mistake in a line that nothing can be left out for."""
    return UserError(f"{path}, line {line}: {what}")
