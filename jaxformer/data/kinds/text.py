"""What all kinds of text have in common: a split is opened as rows of tokens, with what is mixed into it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from jaxformer.config.fields import at_least
from jaxformer.data.base import Array, DatasetConfig, RowSource, Spec
from jaxformer.data.kinds.base import Kind
from jaxformer.data.records import Records
from jaxformer.data.text.cache import Writer, cached
from jaxformer.data.text.rows import Batch, MixedRows, Places, TokenRows, build_tokenizer, id_dtype
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.data.transform import Transform

WRITTEN = 1024  # rows that are written at a time
Row = Mapping[str, Any]  # lists and arrays of items
RowLength = Annotated[int, at_least(2, "at least 2 tokens")]


@dataclass(frozen=True)
class TextKind(Kind):
    """A kind of text."""

    modality: ClassVar[Literal["image", "text"]] = "text"
    tokenized: ClassVar[bool] = True
    text_fields: ClassVar[tuple[str, ...]] = ()
    """The fields that name the features of texts."""
    by_token: ClassVar[tuple[str, ...]]
    """The arrays of a batch with an item for each token."""
    by_row: ClassVar[tuple[str, ...]] = ()
    """Those with an item for each row."""
    length: RowLength
    """Tokens in a row (T), special tokens included."""

    @property
    def texts_in_a_row(self) -> int | None:
        """How many texts a row is made of, with the special tokens around them; None where texts are cut into rows."""
        return None

    @property
    def texts(self) -> dict[str, str]:
        """The features that hold texts, which a tokenizer is learnt from, by the field that names each."""
        return {field: getattr(self, field) for field in self.text_fields}

    @property
    def table_columns(self) -> dict[str, str]:
        return self.texts

    def nominal_spec(self, image: tuple[int, int, int], transforms: Sequence[Transform]) -> Spec:
        added = [name for transform in transforms for name in transform.fills]
        spec: Spec = dict.fromkeys((*self.by_token, *added), ((self.length,), np.dtype(np.int32)))
        if "token_mask" in spec:
            spec["token_mask"] = ((self.length,), np.dtype(bool))
        return spec | dict.fromkeys(self.by_row, ((), np.dtype(np.int32)))

    def check(self, records: Records) -> None:
        """Raises UserError for features that are not there, or are not what they have to be."""
        for field, feature in self.texts.items():
            records.check_text(feature, f"data.examples.{field}")

    def rows(self, records: Records, tokenizer: Tokenizer) -> TokenRows:
        """Tokenises a split, or finds it in the cache.

        Raises:
          UserError: an example is broken, or the tokenizer lacks a token that is needed.
        """
        raise NotImplementedError

    def open(self, config: DatasetConfig, split: str, train: bool) -> RowSource:
        """A split's rows; in training, with those of the datasets that are mixed in.

        The tokenizer is learnt from the training splits, whatever split is opened.

        Raises:
          UserError: a dataset, version, split or feature is not there, or not what it has to be; the tokenizer
            cannot be made, or lacks a token that the kind of rows needs.
        """
        opened = Records(config, split)
        parts = [opened if split == config.train_split else Records(config, config.train_split)]
        for part in config.mixture:
            other: Any = replace(config, name=part.name, version=part.version, fold=None)
            parts.append(Records(other, part.train_split or config.train_split))
        for records in [opened, *parts]:
            self.check(records)
        tokenizer = build_tokenizer(config.tokenizer, tuple(self.texts.values()), parts)
        rows = self.rows(opened, tokenizer)
        if not (train and config.mixture):
            return rows
        others = [self.rows(records, tokenizer) for records in parts[1:]]
        return MixedRows([rows, *others], [1.0, *(part.weight for part in config.mixture)])


@dataclass(frozen=True)
class RunningText(TextKind):
    """Texts of one feature, cut into rows of one length."""

    text_fields: ClassVar[tuple[str, ...]] = ("feature",)
    feature: str = "text"
    """The dataset's feature that holds the text."""


@dataclass(frozen=True)
class Stored:
    """An array that is made of a split's examples and kept in the cache, with an item for each row or each token."""

    name: str
    """Its name in the cache."""
    dtype: Any
    """The type of its items there; of a batch's arrays, those with an item for each token are int32."""
    key: str | None = None
    """Its name in a batch; None if batches do not have it."""
    fill: int = 0
    """What stands on padding."""
    by_row: bool = False
    """Whether there is an item for each row, and not for each token."""
    shape: tuple[int, ...] = ()
    """The shape of an item."""
    offsets: str | None = None
    """The name of a further array, int64 [N + 1]: row i has the items from offsets[i] to offsets[i + 1]."""


@dataclass(frozen=True)
class TextExamples(TextKind):
    """Examples of text, each of which is a row, or several; rows differ in length."""

    varying: ClassVar[bool] = True

    def rows(self, records: Records, tokenizer: Tokenizer) -> "RaggedRows":
        return RaggedRows(self, records, tokenizer)

    def made_of(self, rows: "RaggedRows") -> dict[str, Any]:
        """What decides the rows, as JSON values, besides the dataset and the tokenizer.

        In this and the following methods, `rows` are those of a split, which know its `records` and `tokenizer`.
        """
        raise NotImplementedError

    def classes(self, records: Records) -> tuple[list[str] | None, int | None]:
        """Names and number of the classes, as far as there are any and they are known."""
        return None, None

    def columns(self, rows: "RaggedRows") -> list[Stored]:
        """The arrays that rows have besides their tokens."""
        raise NotImplementedError

    def encode(self, rows: "RaggedRows") -> Iterator[Row]:
        """Each row of a split: the token ids as "ids", and the items of each of `columns` by its name.

        What `facts` tells is added to `rows.counts`.

        Raises:
          UserError: an example is broken.
        """
        raise NotImplementedError

    def facts(self, rows: "RaggedRows") -> Iterable[str]:
        """Lines for people about a split."""
        raise NotImplementedError


class RaggedRows(TokenRows):
    """Rows that differ in length, one after the other in `ids`; row i is ids[offsets[i] : offsets[i + 1]].

    Batches have `tokens`, `token_mask`, and the columns that have a key.
    """

    def __init__(self, settings: TextExamples, records: Records, tokenizer: Tokenizer):
        """Tokenises the split, or finds it in the cache.

        Raises:
          UserError: an example is broken, or the tokenizer lacks a token that is needed.
        """
        super().__init__(records, tokenizer, settings.length)
        self.settings = settings
        self.counts: Counter[str] = Counter()
        ids = Stored("ids", id_dtype(tokenizer), "tokens", self.pad_id, offsets="offsets")
        self.columns = [ids, *settings.columns(self)]
        inputs = {"kind": settings.kind, "data": records.digest(), "tokenizer": tokenizer.digest}
        entry = cached({**inputs, **settings.made_of(self)}, self._build)
        self.arrays, self.counts = entry.arrays, Counter(entry.notes)
        self.ids, self.offsets = self.arrays["ids"], self.arrays["offsets"]
        self.lengths = self.filled = np.diff(self.offsets).astype(np.int32)
        self.class_names, self.num_classes = settings.classes(records)
        self.spec["token_mask"] = Array((self.length,), np.bool_)
        for column in self.columns:
            if column.key:
                array = Array((), column.dtype) if column.by_row else Array((self.length,), fill=column.fill)
                self.spec[column.key] = array
        self.facts = [f"{self.split}: {fact}" for fact in settings.facts(self)]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def gather(self, indices: np.ndarray, length: int) -> Batch:
        """The rows at `indices`, int64 [B], padded to `length`."""
        places = Places(self.offsets[indices], self.offsets[indices + 1], length)
        batch = {"token_mask": places.inside}
        for column in self.columns:
            if column.key:
                values = self.arrays[column.name]
                batch[column.key] = values[indices] if column.by_row else places.take(values, column.fill)
        return batch

    def texts_of(self, indices: np.ndarray) -> list[tuple[str, ...]]:
        """The texts of the examples at `indices` [B] as the dataset has them, feature by feature."""
        examples = zip(indices.tolist(), self.records.read(indices.tolist()))
        features = self.settings.texts.values()
        return [tuple(self.records.text(found, name, at) for name in features) for at, found in examples]

    def average(self, what: str) -> str:
        """A line about how many rows and tokens there are."""
        return f"{len(self):,} {what}, {len(self.ids) / len(self):.1f} tokens on average"

    def _build(self, writer: Writer) -> None:
        """Writes the columns, and where each row's items begin."""
        files = {column: writer.column(column.name, column.dtype, column.shape) for column in self.columns}
        offsets = {name: writer.column(name, np.int64) for column in files if (name := column.offsets)}
        for file in offsets.values():
            file.append([0])
        rows = self.settings.encode(self)
        while group := list(islice(rows, WRITTEN)):
            for column, file in files.items():
                items = [np.asarray(row[column.name], column.dtype) for row in group]
                if column.offsets:
                    offsets[column.offsets].append(file.count + np.cumsum([len(part) for part in items]))
                file.append(np.concatenate(items))
        writer.notes.update(self.counts)
