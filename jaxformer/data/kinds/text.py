"""What all kinds of text have in common: a split is opened as rows of tokens, with what is mixed into it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from jaxformer.config.fields import at_least
from jaxformer.data.base import DatasetConfig, RowSource
from jaxformer.data.kinds.base import Kind
from jaxformer.data.records import Records
from jaxformer.data.text.rows import TokenRows
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.data.text.tokens import build_tokenizer
from jaxformer.errors import UserError

RowLength = Annotated[int, at_least(2, "at least 2 tokens")]


@dataclass(frozen=True)
class TextKind(Kind):
    """A kind of text."""

    modality: ClassVar[Literal["image", "text"]] = "text"
    varying: ClassVar[bool] = True
    length: RowLength
    """Tokens in a row (T), special tokens included."""

    @property
    def texts_in_a_row(self) -> int | None:
        """How many texts a row is made of, with the special tokens around them; None where texts are cut into rows."""
        return None

    @property
    def text_features(self) -> tuple[str, ...]:
        """The features that a tokenizer is learnt from."""
        raise NotImplementedError

    def check(self, records: Records) -> None:
        """Raises UserError for features that are not there, or are not what they have to be."""
        raise NotImplementedError

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
            other: Any = replace(config, name=part.name, version=part.version)
            parts.append(Records(other, part.train_split or config.train_split))
        for records in [opened, *parts]:
            self.check(records)
        tokenizer = build_tokenizer(config.tokenizer, self.text_features, parts)
        rows = self.rows(opened, tokenizer)
        if not (train and config.mixture):
            return rows
        others = [self.rows(records, tokenizer) for records in parts[1:]]
        return MixedRows([rows, *others], [1.0, *(part.weight for part in config.mixture)])


@dataclass(frozen=True)
class RunningText(TextKind):
    """Texts of one feature, cut into rows of one length."""

    varying: ClassVar[bool] = False
    feature: str = "text"
    """The dataset's feature that holds the text."""

    @property
    def text_features(self) -> tuple[str, ...]:
        return (self.feature,)

    def check(self, records: Records) -> None:
        records.check_text(self.feature, "data.examples.feature")


class MixedRows(RowSource):
    """The rows of several datasets, numbered one dataset after the other."""

    def __init__(self, sources: Sequence[TokenRows], weights: Sequence[float]):
        """Mixes `sources` in the ratio of `weights`.

        Raises:
          UserError: their classes differ.
        """
        first = sources[0]
        for source in sources[1:]:
            if source.class_names != first.class_names or source.spec.keys() != first.spec.keys():
                raise UserError(
                    f"data.mixture: {source.name} has other classes than {first.name}; mix datasets of the same"
                )
        self.sources, self.weights = sources, list(weights)
        self.starts = np.cumsum([0, *(len(source) for source in sources)])
        self.name, self.split = " + ".join(source.name for source in sources), first.split
        self.class_names, self.tokenizer, self.length = first.class_names, first.tokenizer, first.length
        self.spec = first.spec
        lengths = [source.lengths for source in sources if source.lengths is not None]
        self.lengths = np.concatenate(lengths) if lengths else None
        filled = [source.lengths if source.filled is None else source.filled for source in sources]
        self.filled = np.concatenate(filled) if lengths else None  # type: ignore[arg-type]
        self.facts = [
            *(f"{source.name}, {fact}" for source in sources for fact in source.facts),
            "mixed in the ratio " + " : ".join(f"{weight:g}" for weight in weights),
        ]

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def sizes(self) -> dict[str, int]:
        """Those of each."""
        return self.sources[0].sizes

    @property
    def parts(self) -> tuple[list[int], list[float]]:
        """Rows and weight of each dataset."""
        return [len(source) for source in self.sources], self.weights

    def gather(self, indices: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """The rows at `indices`, int64 [B], padded to `length`."""
        which = np.searchsorted(self.starts, indices, side="right") - 1
        batch: dict[str, np.ndarray] = {}
        for number, source in enumerate(self.sources):
            rows = np.flatnonzero(which == number)
            for key, value in source.gather(indices[rows] - self.starts[number], length).items():
                if key not in batch:
                    batch[key] = np.empty((len(indices), *value.shape[1:]), value.dtype)
                batch[key][rows] = value
        return batch

    def where(self, index: int) -> str:
        """How messages name a row."""
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.sources[number].where(index - int(self.starts[number]))
