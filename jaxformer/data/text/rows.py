"""What the sources of token rows have in common: gathering rows of any length from memory-mapped arrays."""

import numpy as np

from jaxformer.data.base import Array, RowSource
from jaxformer.data.records import Records
from jaxformer.data.text.cache import Entry
from jaxformer.data.text.tokenizers import Tokenizer

IGNORED = -1  # a target or a tag that counts nowhere
Batch = dict[str, np.ndarray]


class TokenRows(RowSource):
    """Rows of tokens of one split.

    Attributes:
      records: the split's examples.
    """

    tokenizer: Tokenizer
    """What made the tokens."""
    num_classes: int | None = None
    """How many classes there are, if there are classes and that is known."""

    def __init__(self, records: Records, tokenizer: Tokenizer, length: int):
        self.records, self.tokenizer, self.length = records, tokenizer, length
        self.name, self.split = records.name, records.split
        self.pad_id = tokenizer.pad_id or 0  # without a padding token, any: nothing looks at it

    def where(self, index: int) -> str:
        """How messages name a row."""
        return f"dataset {self.name}, split {self.split!r}, row {index}"

    @property
    def sizes(self) -> dict[str, int]:
        """`vocab_size`, and `num_classes` if there are classes."""
        classes = {} if self.num_classes is None else {"num_classes": self.num_classes}
        return {"vocab_size": self.tokenizer.vocab_size, **classes}


class RaggedRows(TokenRows):
    """Rows that differ in length, one after the other in `ids`; row i is ids[offsets[i] : offsets[i + 1]]."""

    def __init__(self, records: Records, tokenizer: Tokenizer, length: int, entry: Entry):
        super().__init__(records, tokenizer, length)
        self.arrays = entry.arrays
        self.ids, self.offsets = entry.arrays["ids"], entry.arrays["offsets"]
        self.lengths = np.diff(self.offsets).astype(np.int32)
        self.spec = {
            "tokens": Array((length,), fill=self.pad_id),
            "token_mask": Array((length,), np.bool_),
        }

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def gather(self, indices: np.ndarray, length: int) -> Batch:
        """`tokens` int32 [B, length] and `token_mask`, and what `more` adds."""
        places = Places(self.offsets[indices], self.offsets[indices + 1], length)
        batch = {"tokens": places.take(self.ids, self.pad_id), "token_mask": places.inside}
        return batch | self.more(indices, places)

    def more(self, indices: np.ndarray, places: "Places") -> Batch:
        """The other arrays of a kind of rows."""
        raise NotImplementedError


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


def tokens_fact(source: RaggedRows, what: str) -> str:
    """A line about how many rows and tokens there are."""
    return f"{source.split}: {len(source):,} {what}, {len(source.ids) / len(source):.1f} tokens on average"


def share(part: float, whole: float) -> str:
    """A share as people read it: "12%", "0.34%"."""
    return f"{100 * part / whole if whole else 0.0:.2g}%"


def cut_facts(source: TokenRows, cut: int, what: str) -> list[str]:
    """A line about truncation, if there was any."""
    if not cut:
        return []
    return [
        f"{source.split}: {share(cut, len(source))} of {len(source):,} {what} were cut at {source.length} tokens"
    ]
