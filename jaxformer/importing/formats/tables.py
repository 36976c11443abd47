"""Tables of examples: which columns are kept, and what they hold. csv.py and jsonl.py read their rows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxformer.config.schema import did_you_mean
from jaxformer.errors import UserError
from jaxformer.importing.contents import Contents, Example, all_in_train, natural, several
from jaxformer.importing.formats.asked import LABELS, Asked
from jaxformer.importing.sources import File, Sources

# What a cell can be, as messages say it; "nothing" and "nested" cells never meet in a message.
WORDS = {"boolean": "true or false", "integer": "a whole number", "number": "a number", "text": "text"}
NUMBERS = {"integer": np.int64, "number": np.float32, "boolean": np.bool_}


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    file: File
    """Where it is from."""
    line: int
    """The line in which it begins, from 1."""
    cells: dict[str, Any]
    """Values by column; None where there is nothing."""


@dataclass(frozen=True)
class Table:
    """Rows as examples; columns of texts become texts, those of numbers numbers.

    Raises:
      UserError: options contradict each other.
    """

    kind: Callable[[Any], str]
    """What a cell holds, a key of WORDS."""
    label: str | None = None
    """The column to predict: classes by name, or with `regression` a number. None makes no label."""
    regression: bool = False
    """Whether the label is a number."""
    text: Sequence[str] = ()
    """The columns of texts to keep; empty keeps all."""
    classes: Sequence[str] = ()
    """The classes, in the order of their labels; empty takes those that there are, sorted."""
    asked: Asked | None = None
    """What a config asks for, in the place of the other settings; its names become those of the columns."""

    def __post_init__(self) -> None:
        for name, given in (("regression", self.regression), ("classes", self.classes)):
            if given and self.label is None:
                raise UserError(f"`{name}`: is about the label, and there is none; give `label`, its column")
        if self.regression and self.classes:
            raise UserError("`classes`: a regression has none; give `classes` or `regression`")
        if self.label in self.text:
            raise UserError(f"`text`: {self.label!r} is the label; name other columns")
        if len(self.classes) == 1:
            raise UserError(f"`classes`: there is only {self.classes[0]!r}; two are needed at least")

    def contents(self, read_rows: Callable[[Sources], Iterable[Row]], sources: Sources) -> Contents:
        """The examples of all rows; what their columns hold is found out from all of them."""
        if not (rows := list(read_rows(sources))):
            return Contents({}, [])
        if self.asked is not None:
            return self.of_config(self.asked, rows, sources)
        columns, notes = self.columns(rows)
        examples = []
        for row in rows:
            with sources.checking(row.file.path, f"line {row.line}"):
                values = {name: self.value(row, name, kind, sources) for name, kind in columns.items()}
                label = values[self.label] if self.label and not self.regression else ""
                examples.append(Example(values, row.file, label))
        labels = {example.label for example in examples} - {""}
        names = list(self.classes) or sorted(labels, key=natural)
        features = {name: feature(kind, names) for name, kind in columns.items()}
        return Contents(features, examples, names, notes, check=several if self.classes else all_in_train)

    def of_config(self, asked: Asked, rows: Sequence[Row], sources: Sources) -> Contents:
        """The examples, with the columns that a config asks for, by the names that it gives them."""
        there = list(dict.fromkeys(name for row in rows for name in row.cells))
        kinds = {name: {self.kind(row.cells.get(name)) for row in rows} - {"nothing"} for name in there}
        texts = [name for name in there if name and "text" in kinds[name]]
        chosen = asked.columns(str(rows[0].file.path), there, texts)
        renamed = [
            replace(row, cells={n: row.cells[column] for n, column in chosen.items() if column in row.cells})
            for row in rows
        ]
        of_label = kinds[chosen[asked.label]] if asked.label else set()
        regression = "number" in of_label and of_label <= {"number", "integer"}
        table = Table(self.kind, asked.label, regression, asked.texts)
        contents = table.contents(lambda _: renamed, sources)
        others = {name: column for name, column in chosen.items() if name != column}
        contents.notes += [f"its column {column!r} is taken as {name!r}" for name, column in others.items()]
        return contents

    def columns(self, rows: Sequence[Row]) -> tuple[dict[str, str], list[str]]:
        """What the columns that are kept become, and notes about the others.

        Raises:
          UserError: a column is not there, or holds texts here and numbers there.
        """
        names = list(dict.fromkeys(name for row in rows for name in row.cells))
        where = rows[0].file.path
        options = dict.fromkeys(self.text, "text") | ({} if self.label is None else {self.label: "label"})
        for name, option in options.items():
            if name not in names:
                near = did_you_mean(name, names)
                raise UserError(f"{where}: has no column {name!r}, which `{option}` names; {near}")
        chosen: dict[str, str] = {}
        left_out = []
        for name in names:
            kind = self.column_kind(name, rows)
            if not name or kind is None or (kind == "text" and self.text and name not in self.text):
                left_out.append(repr(name) if name else "one without a name")
            elif "/" in name:
                raise UserError(f"{where}: column {name!r}: TFDS takes no '/' in names; rename it")
            else:
                chosen[name] = kind
        if "text" not in chosen.values():
            raise UserError(f"{where}: no column holds texts; there are: {', '.join(names)}")
        notes = [f"left out: columns {', '.join(left_out)}"] if left_out else []
        if self.label is None and (likely := [name for name in chosen if name.lower() in LABELS]):
            kept = f"is kept as {chosen[likely[0]]}; give `label` to make it the label"
            notes.append(f"column {likely[0]!r} {kept}")
        return chosen, notes

    def column_kind(self, name: str, rows: Sequence[Row]) -> str | None:
        """What a column becomes ("text", "class" or a key of NUMBERS); None if it cannot be kept."""
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
            return None  # a column of texts that was not asked for
        (one, row), (other, another) = sorted(first.items(), key=lambda item: item[1].line)[:2]
        elsewhere = "" if row.file is another.file else f"{row.file.path}, "
        differ = f"column {name!r} holds {WORDS[other]}, but {WORDS[one]} in {elsewhere}line {row.line}"
        remedy = "make it one or the other; or name the columns of texts with `text`"
        raise UserError(f"{another.file.path}, line {another.line}: {differ}", remedy)

    def value(self, row: Row, name: str, becomes: str, sources: Sources) -> Any:
        """A cell as TFDS encodes it.

        Raises:
          ValueError: it is not what its column becomes, or cannot be stored; says what.
        """
        if name not in row.cells:
            raise ValueError(f"has no column {name!r}")
        value = row.cells[name]
        kind = self.kind(value)
        where = f"column {name!r}"
        if kind == "nothing" and not (becomes == "text" and isinstance(value, str)):
            raise ValueError(f"{where} holds nothing")
        if becomes == "text":
            return storable(value, where)
        if becomes == "class":
            return self.class_of(value, kind, where, sources)
        if becomes == "boolean":
            return bool(value)
        if kind not in ("integer", "number"):
            raise ValueError(f"{where} holds {value!r}, which is no number")
        number = float(str(value))  # of a text, as Python's own of a whole number fails where it is large
        if becomes == "integer" and abs(number) <= 2**63:
            number = int(value)
        largest = 2**63 - 1 if becomes == "integer" else float(np.finfo(np.float32).max)
        if not -largest <= number <= largest:
            raise ValueError(f"{where} holds {str(value)[:40]}, which is too large")
        return number

    def class_of(self, value: Any, kind: str, where: str, sources: Sources) -> str:
        """A label as the name of a class."""
        if kind == "number" and isinstance(value, float):
            raise ValueError(f"{where} holds {value!r}, which is no class's name (or give `regression`)")
        name = sources.class_of(value, f"{where}: ")
        if self.classes and name not in self.classes:
            near = did_you_mean(name, self.classes)
            raise ValueError(f"{where} holds {name!r}, which is not in `classes`; {near}")
        return name


def feature(kind: str, class_names: list[str]) -> Any:
    """The TFDS feature that a column becomes."""
    if kind == "text":
        return tfds.features.Text()
    if kind == "class":
        return tfds.features.ClassLabel(names=class_names)
    return tfds.features.Tensor(shape=(), dtype=NUMBERS[kind])


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
