"""A text and its translation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxformer.data.base import Array
from jaxformer.data.kinds.text import RaggedRows, Row, RowLength, Stored, TextExamples
from jaxformer.data.records import Records
from jaxformer.data.text.rows import IGNORED, Batch, Encoder, Places, id_dtype, shares
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.errors import UserError


@dataclass(frozen=True)
class Pairs(TextExamples):
    """A text and its translation: `tokens`, `token_mask` [B, T], `decoder_tokens` and `targets` int32 [B, T]."""

    kind: ClassVar[str] = "pairs"
    by_token: ClassVar[tuple[str, ...]] = ("tokens", "token_mask", "decoder_tokens", "targets")
    text_fields: ClassVar[tuple[str, ...]] = ("source_feature", "target_feature")

    length: RowLength
    """Tokens in each of the two (T), special tokens included; what is longer is cut, and counted."""
    source_feature: str = "source"
    """The dataset's feature that holds the text."""
    target_feature: str = "target"
    """The feature that holds its translation."""

    def rows(self, records: Records, tokenizer: Tokenizer) -> "PairRows":
        return PairRows(self, records, tokenizer)

    def made_of(self, rows: RaggedRows) -> dict[str, Any]:
        features, ends = list(self.texts.values()), boundaries(rows.tokenizer)
        return {"features": features, "boundaries": ends, "length": self.length}

    def columns(self, rows: RaggedRows) -> list[Stored]:
        return [Stored("targets", id_dtype(rows.tokenizer), offsets="target_offsets")]

    def encode(self, rows: RaggedRows) -> Iterator[Row]:
        """The sources as the template has them, with the end; the translations between start and end."""
        records, tokenizer = rows.records, rows.tokenizer
        start, end = boundaries(tokenizer)
        ending = [] if tokenizer.encode("")[-1:] == [end] else [end]  # the template may write it
        sources = Encoder(tokenizer, self.length - len(ending))
        targets = Encoder(tokenizer, self.length - 1, special=False)
        for first, group in records.groups():
            texts, translations = (
                [records.text(record, feature, index) for index, record in enumerate(group, first)]
                for feature in self.texts.values()
            )
            both = zip(sources(texts, records, first), targets(translations, records, first))
            for text, translation in both:
                rows.counts["cut"] += bool(text.overflowing or translation.overflowing)
                yield {"ids": text.ids + ending, "targets": [start, *translation.ids, end]}

    def facts(self, rows: RaggedRows) -> Iterator[str]:
        sources = len(rows.ids) / len(rows)
        targets = len(rows.arrays["targets"]) / len(rows) - 1
        yield f"{len(rows):,} pairs, {sources:.1f} and {targets:.1f} tokens on average"
        yield from shares(rows.counts, len(rows), cut=f"pairs were cut at {self.length} tokens")


class PairRows(RaggedRows):
    """Row i is example i. What a row needs are the places of the longer of its two texts."""

    def __init__(self, settings: Pairs, records: Records, tokenizer: Tokenizer):
        super().__init__(settings, records, tokenizer)
        self.target_feature = settings.target_feature
        self.targets, self.target_offsets = self.arrays["targets"], self.arrays["target_offsets"]
        sources, targets = np.diff(self.offsets), np.diff(self.target_offsets) - 1
        self.lengths, self.filled = np.maximum(sources, targets).astype(np.int32), (sources + targets) / 2
        for name, fill in (("decoder_tokens", self.pad_id), ("targets", IGNORED)):
            self.spec[name] = Array((self.length,), fill=fill)

    def target_text(self, index: int) -> str:
        """A translation as the dataset has it."""
        return self.records.text(self.records.read([index])[0], self.target_feature, index)

    def gather(self, indices: np.ndarray, length: int) -> Batch:
        """The rows at `indices`, int64 [B]: a target is the token after the decoder's."""
        starts, stops = self.target_offsets[indices], self.target_offsets[indices + 1]
        return super().gather(indices, length) | {
            "decoder_tokens": Places(starts, stops - 1, length).take(self.targets, self.pad_id),
            "targets": Places(starts + 1, stops, length).take(self.targets, IGNORED),
        }


def boundaries(tokenizer: Tokenizer) -> tuple[int, int]:
    """The tokens that a translation starts from (padding where there is no other, as in T5) and ends with.

    Raises:
      UserError: the tokenizer has none.
    """
    start = tokenizer.pad_id if tokenizer.bos_id is None else tokenizer.bos_id
    if start is None or tokenizer.eos_id is None:
        missing = "end-of-text" if start is not None else "start or padding"
        what = f"data.tokenizer: examples='pairs' need a {missing} token, and this tokenizer has none"
        raise UserError(f"{what}; give it template='seq2seq' or 't5'")
    return start, tokenizer.eos_id
