"""One or two texts a row, with a label."""

import numpy as np

from jaxformer.data.examples import Sequences
from jaxformer.data.sources import Array
from jaxformer.data.text.cache import Entry, Writer, cached
from jaxformer.data.text.records import Labels, Records
from jaxformer.data.text.rows import Batch, Places, RaggedRows, cut_facts, tokens_fact
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.data.text.tokens import Encoder, id_dtype


class SequenceRows(RaggedRows):
    """Row i is example i."""

    @staticmethod
    def check(records: Records, settings: Sequences) -> None:
        """Raises UserError for features that are not there, or are not what they have to be."""
        for index, feature in enumerate(settings.features):
            records.check_text(feature, f"data.examples.features[{index}]")
        if settings.label_feature is not None:
            Labels(records, settings.label_feature, "data.examples.label_feature")

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
