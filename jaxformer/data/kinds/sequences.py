"""One or two texts a row, with a label."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from jaxformer.config.fields import length
from jaxformer.data.base import Spec
from jaxformer.data.kinds.text import RaggedRows, Row, RowLength, Stored, TextExamples
from jaxformer.data.records import Labels, Records
from jaxformer.data.text.rows import Encoder, shares
from jaxformer.data.transform import Transform


@dataclass(frozen=True)
class Sequences(TextExamples):
    """One or two texts a row, with a label: `tokens`, `token_mask`, `token_types` [B, T] and `labels` [B].

    Labels are int32 classes, or float32 if the dataset's feature is a float (regression).
    """

    kind: ClassVar[str] = "sequences"
    by_token: ClassVar[tuple[str, ...]] = ("tokens", "token_mask", "token_types")
    by_row: ClassVar[tuple[str, ...]] = ("labels",)

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

    def nominal_spec(self, image: tuple[int, int, int], transforms: Sequence[Transform]) -> Spec:
        spec = super().nominal_spec(image, transforms)
        return {name: array for name, array in spec.items() if name != "labels" or self.label_feature}

    @property
    def texts(self) -> dict[str, str]:
        return {f"features[{index}]": feature for index, feature in enumerate(self.features)}

    @property
    def table_columns(self) -> dict[str, str]:
        return self.texts | ({"label_feature": self.label_feature} if self.label_feature else {})

    @property
    def strata(self) -> str | None:
        return self.label_feature

    def check(self, records: Records) -> None:
        super().check(records)
        self.labels(records)

    def labels(self, records: Records) -> Labels | None:
        """The feature of labels; raises UserError if it is none."""
        name = self.label_feature
        return None if name is None else Labels(records, name, "data.examples.label_feature")

    def classes(self, records: Records) -> tuple[list[str] | None, int | None]:
        labels = self.labels(records)
        return (labels.names, labels.num_classes) if labels else (None, None)

    def made_of(self, rows: RaggedRows) -> dict[str, Any]:
        return {"features": self.features, "label": self.label_feature, "length": self.length}

    def columns(self, rows: RaggedRows) -> list[Stored]:
        labels = self.labels(rows.records)
        types = Stored("types", np.uint8, "token_types")
        return [types, Stored("labels", labels.dtype, "labels", by_row=True)] if labels else [types]

    def encode(self, rows: RaggedRows) -> Iterator[Row]:
        records, pair = rows.records, len(self.features) == 2
        labels = self.labels(records)
        encoder = Encoder(rows.tokenizer, self.length, pair)
        for first, group in records.groups():
            examples = list(enumerate(group, first))
            texts = [tuple(records.text(r, name, index) for name in self.features) for index, r in examples]
            encodings = encoder(texts if pair else [text for (text,) in texts], records, first)
            for (index, record), encoding in zip(examples, encodings):
                rows.counts["cut"] += bool(encoding.overflowing)
                row = {"ids": encoding.ids, "types": encoding.type_ids}
                yield row | {"labels": [labels.read(record, index)]} if labels else row

    def facts(self, rows: RaggedRows) -> Iterator[str]:
        yield rows.average("examples")
        yield from shares(rows.counts, len(rows), cut=f"examples were cut at {self.length} tokens")
