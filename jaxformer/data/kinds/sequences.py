"""One or two texts a row, with a label."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from jaxformer.config.fields import length
from jaxformer.data.base import Array
from jaxformer.data.kinds.text import RowLength, TextKind
from jaxformer.data.records import Labels, Records
from jaxformer.data.text.cache import Entry, Writer, cached
from jaxformer.data.text.rows import Batch, Places, RaggedRows, TokenRows, cut_facts, tokens_fact
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.data.text.tokens import Encoder, id_dtype


@dataclass(frozen=True)
class Sequences(TextKind):
    """One or two texts a row, with a label: `tokens`, `token_mask`, `token_types` [B, T] and `labels` [B].

    Labels are int32 classes, or float32 if the dataset's feature is a float (regression).
    """

    kind: ClassVar[str] = "sequences"

    length: RowLength
    """Tokens in a row (T), special tokens included; the longer of two texts is cut first."""
    features: Annotated[
        tuple[str, ...], length(1, 2, expected="one text feature, or two for pairs of texts")
    ] = ("sentence",)
    """The dataset's one or two features that hold the texts."""
    label_feature: str | None = "label"
    """The feature that holds the label; None for texts alone."""

    @property
    def texts_in_a_row(self) -> int:
        return len(self.features)

    @property
    def text_features(self) -> tuple[str, ...]:
        return self.features

    def check(self, records: Records) -> None:
        for index, feature in enumerate(self.features):
            records.check_text(feature, f"data.examples.features[{index}]")
        if self.label_feature is not None:
            Labels(records, self.label_feature, "data.examples.label_feature")

    def rows(self, records: Records, tokenizer: Tokenizer) -> TokenRows:
        return SequenceRows(self, records, tokenizer)


class SequenceRows(RaggedRows):
    """Row i is example i."""

    def __init__(self, settings: Sequences, records: Records, tokenizer: Tokenizer):
        """Tokenises the split, or finds it in the cache.

        Raises:
          UserError: an example's text or label is broken.
        """
        labels = None
        if settings.label_feature is not None:
            labels = Labels(records, settings.label_feature, "data.examples.label_feature")
        entry = tokenize(settings, records, tokenizer, labels)
        super().__init__(records, tokenizer, settings.length, entry)
        self.spec = {**self.spec, "token_types": Array((settings.length,))}
        if labels is not None:
            self.spec = {**self.spec, "labels": Array((), labels.dtype)}
            self.class_names, self.num_classes = labels.names, labels.num_classes
        self.facts = [
            tokens_fact(self, "examples"),
            *cut_facts(self, entry.notes["cut"], "examples"),
        ]

    def more(self, indices: np.ndarray, places: Places) -> Batch:
        """`token_types` int32 [B, T], and `labels` int32 or float32 [B]."""
        batch = {"token_types": places.take(self.arrays["types"], 0)}
        return batch | ({"labels": self.arrays["labels"][indices]} if "labels" in self.spec else {})


def tokenize(settings: Sequences, records: Records, tokenizer: Tokenizer, labels: Labels | None) -> Entry:
    """An entry with `ids` [M], `types` uint8 [M], `offsets` int64 [N + 1] and `labels` [N]; "cut" is noted."""

    def build(writer: Writer) -> None:
        pair = len(settings.features) == 2
        encoder = Encoder(tokenizer, settings.length, pair)
        ids, types = writer.column("ids", id_dtype(tokenizer)), writer.column("types", np.uint8)
        offsets = writer.column("offsets", np.int64)
        offsets.append([0])
        values = None if labels is None else writer.column("labels", labels.dtype)
        cut = 0
        for first, group in records.groups():
            texts = [
                tuple(records.text(record, feature, index) for feature in settings.features)
                for index, record in enumerate(group, first)
            ]
            encodings = encoder(texts if pair else [text for (text,) in texts], records, first)
            lengths = [len(encoding) for encoding in encodings]
            offsets.append(ids.count + np.cumsum(lengths))
            ids.append([index for encoding in encodings for index in encoding.ids])
            types.append([kind for encoding in encodings for kind in encoding.type_ids])
            cut += sum(bool(encoding.overflowing) for encoding in encodings)
            if labels is not None and values is not None:
                values.append([labels.read(record, index) for index, record in enumerate(group, first)])
        writer.notes["cut"] = cut

    inputs = {
        "kind": "sequences",
        "data": records.digest(),
        "tokenizer": tokenizer.digest,
        "features": settings.features,
        "label": settings.label_feature,
        "length": settings.length,
    }
    return cached(inputs, build)
