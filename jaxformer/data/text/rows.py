"""Rows of tokens: what the sources of all kinds of text have in common, and several of them mixed into one."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxformer.data.base import Array, RowSource
from jaxformer.data.records import Records
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.errors import UserError

IGNORED = -1  # a target or a tag that counts nowhere
Batch = dict[str, np.ndarray]


class TokenRows(RowSource):
    """Rows of tokens of one split; `records` are the examples that they are made of."""

    tokenizer: Tokenizer
    """What made the tokens."""
    num_classes: int | None = None
    """How many classes there are, if there are classes and that is known."""

    def __init__(self, records: Records, tokenizer: Tokenizer, length: int, **fills: int):
        """Says what all rows have.

        Args:
          records: the split's examples.
          tokenizer: what makes the tokens.
          length: places in a row.
          **fills: the arrays int32 [B, length] of a batch besides `tokens`, and what stands on padding.
        """
        self.records, self.tokenizer, self.length = records, tokenizer, length
        self.name, self.split = records.name, records.split
        self.pad_id = tokenizer.pad_id or 0  # without a padding token, any: nothing looks at it
        fills = {"tokens": self.pad_id, **fills}
        self.spec: dict[str, Array] = {name: Array((length,), fill=fill) for name, fill in fills.items()}

    def where(self, index: int) -> str:
        """How messages name a row."""
        return f"dataset {self.name}, split {self.split!r}, row {index}"

    @property
    def sizes(self) -> dict[str, int]:
        """`vocab_size`, and `num_classes` if there are classes."""
        classes = {} if self.num_classes is None else {"num_classes": self.num_classes}
        return {"vocab_size": self.tokenizer.vocab_size, **classes}


class Places:
    """Where the items of rows that differ in length lie, for rows of one length.

    Attributes:
      inside: bool [B, T], where a row has an item.
      index: int64 [B, T], which item; 0 where there is none.
    """

    def __init__(self, starts: np.ndarray, stops: np.ndarray, length: int):
        """Rows of the items from `starts` to `stops`, int64 [B], in `length` places."""
        places = np.arange(length)
        self.inside = places < (stops - starts)[:, None]
        self.index = np.where(self.inside, starts[:, None] + places, 0)

    def take(self, values: np.ndarray, fill: int) -> np.ndarray:
        """int32 [B, T]: the items, and `fill` where there are none."""
        if len(values) == 0:
            return np.full(self.inside.shape, fill, np.int32)
        return np.where(self.inside, values[self.index].astype(np.int32), np.int32(fill))


class MixedRows(TokenRows):
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
        super().__init__(first.records, first.tokenizer, first.length)
        self.name, self.spec = " + ".join(source.name for source in sources), first.spec
        self.class_names, self.num_classes = first.class_names, first.num_classes
        self.sources, self.weights = sources, list(weights)
        self.starts = np.cumsum([0, *(len(source) for source in sources)])
        if first.lengths is not None:
            self.lengths = np.concatenate([np.asarray(source.lengths) for source in sources])
            self.filled = np.concatenate([np.asarray(source.filled) for source in sources])
        self.facts = [f"{source.name}, {fact}" for source in sources for fact in source.facts]
        self.facts.append("mixed in the ratio " + " : ".join(f"{weight:g}" for weight in weights))

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def parts(self) -> tuple[list[int], list[float]]:
        """Rows and weight of each dataset."""
        return [len(source) for source in self.sources], self.weights

    def gather(self, indices: np.ndarray, length: int) -> Batch:
        """The rows at `indices`, int64 [B], padded to `length`."""
        which = np.searchsorted(self.starts, indices, side="right") - 1
        batch: Batch = {}
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


def share(part: float, whole: float) -> str:
    """A share as people read it: "12%", "0.34%"."""
    return f"{100 * part / whole if whole else 0.0:.2g}%"


def shares(counts: Mapping[str, int], whole: int, **whats: str) -> list[str]:
    """Lines about counts that are not 0, each as a share of `whole`: "12% of 3,400 questions have no answer"."""
    return [f"{share(counts[key], whole)} of {whole:,} {what}" for key, what in whats.items() if counts[key]]
