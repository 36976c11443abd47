"""A text and its translation."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxformer.data.base import Array
from jaxformer.data.kinds.text import RowLength, TextKind
from jaxformer.data.records import Records
from jaxformer.data.text.cache import Entry, Writer, cached
from jaxformer.data.text.rows import IGNORED, Batch, Places, RaggedRows, TokenRows, cut_facts
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.data.text.tokens import Encoder, encode, id_dtype
from jaxformer.errors import UserError


@dataclass(frozen=True)
class Pairs(TextKind):
    """A text and its translation: `tokens`, `token_mask` [B, T], `decoder_tokens` and `targets` int32 [B, T]."""

    kind: ClassVar[str] = "pairs"

    length: RowLength
    """Tokens in each of the two (T), special tokens included; what is longer is cut, and counted."""
    source_feature: str = "source"
    """The dataset's feature that holds the text."""
    target_feature: str = "target"
    """The feature that holds its translation."""

    @property
    def text_features(self) -> tuple[str, ...]:
        return (self.source_feature, self.target_feature)

    def check(self, records: Records) -> None:
        records.check_text(self.source_feature, "data.examples.source_feature")
        records.check_text(self.target_feature, "data.examples.target_feature")

    def rows(self, records: Records, tokenizer: Tokenizer) -> TokenRows:
        return PairRows(self, records, tokenizer)


class PairRows(RaggedRows):
    """Row i is example i. What a row needs are the places of the longer of its two texts."""

    def __init__(self, settings: Pairs, records: Records, tokenizer: Tokenizer):
        """Tokenises the split, or finds it in the cache.

        Raises:
          UserError: the tokenizer has no token to start and to end a text with; an example's text is broken.
        """
        self.settings = settings
        start, end = boundaries(tokenizer)
        entry = tokenize(settings, records, tokenizer, start, end)
        super().__init__(records, tokenizer, settings.length, entry)
        self.target_offsets = entry.arrays["target_offsets"]
        target_lengths = np.diff(self.target_offsets) - 1
        source_lengths = np.diff(self.offsets)
        self.lengths = np.maximum(source_lengths, target_lengths).astype(np.int32)
        self.filled = (source_lengths + target_lengths) / 2
        self.spec = {
            **self.spec,
            "decoder_tokens": Array((settings.length,), fill=self.pad_id),
            "targets": Array((settings.length,), fill=IGNORED),
        }
        source_mean, target_mean = source_lengths.mean(), target_lengths.mean()
        self.facts = [
            f"{records.split}: {len(self):,} pairs, {source_mean:.1f} and {target_mean:.1f} tokens on average",
            *cut_facts(self, entry.notes["cut"], "pairs"),
        ]

    def target_text(self, index: int) -> str:
        """A translation as the dataset has it."""
        record = self.records.read([index])[0]
        return self.records.text(record, self.settings.target_feature, index)

    def more(self, indices: np.ndarray, places: Places) -> Batch:
        """`decoder_tokens` and `targets`, int32 [B, T]."""
        length = places.inside.shape[1]
        starts, stops = self.target_offsets[indices], self.target_offsets[indices + 1]
        decoder, targets = Places(starts, stops - 1, length), Places(starts + 1, stops, length)
        return {
            "decoder_tokens": decoder.take(self.arrays["targets"], self.pad_id),
            "targets": targets.take(self.arrays["targets"], IGNORED),
        }


def boundaries(tokenizer: Tokenizer) -> tuple[int, int]:
    """The tokens that a translation starts from (padding where there is no other, as in T5) and ends with.

    Raises:
      UserError: the tokenizer has none.
    """
    start = tokenizer.pad_id if tokenizer.bos_id is None else tokenizer.bos_id
    if start is None or tokenizer.eos_id is None:
        missing = "end-of-text" if start is not None else "start or padding"
        raise UserError(
            f"data.tokenizer: examples='pairs' need a {missing} token, and this tokenizer has none; give it "
            "template='seq2seq' or 't5'"
        )
    return start, tokenizer.eos_id


def tokenize(settings: Pairs, records: Records, tokenizer: Tokenizer, start: int, end: int) -> Entry:
    """An entry with `ids` [M] and `offsets` int64 [N + 1] of the sources, as the template has them, with `end`.

    And `targets` [K] and `target_offsets` int64 [N + 1] of the translations, each between `start` and `end`;
    "cut", how many pairs had a side that was too long, is noted.
    """
    length = settings.length

    def build(writer: Writer) -> None:
        ends = tokenizer.encode("")[-1:] == [end]  # the template writes the end
        encoder = Encoder(tokenizer, length if ends else length - 1)
        columns = {
            name: writer.column(name, id_dtype(tokenizer) if kind == "ids" else np.int64)
            for name, kind in (("ids", "ids"), ("offsets", ""), ("targets", "ids"), ("target_offsets", ""))
        }
        columns["offsets"].append([0])
        columns["target_offsets"].append([0])
        cut = 0
        for first, group in records.groups():
            source, target = (
                [records.text(record, feature, index) for index, record in enumerate(group, first)]
                for feature in (settings.source_feature, settings.target_feature)
            )
            sources = encoder(source, records, first)
            targets = encode(tokenizer, target, records, first)
            for encoding, ids in zip(sources, targets):
                cut += bool(encoding.overflowing) or len(ids) > length - 1
                columns["ids"].append(encoding.ids if ends else [*encoding.ids, end])
                columns["offsets"].append([columns["ids"].count])
                columns["targets"].append([start, *ids[: length - 1], end])
                columns["target_offsets"].append([columns["targets"].count])
        writer.notes["cut"] = cut

    inputs = {
        "kind": "pairs",
        "data": records.digest(),
        "tokenizer": tokenizer.digest,
        "features": [settings.source_feature, settings.target_feature],
        "boundaries": [start, end],
        "length": length,
    }
    return cached(inputs, build)
