"""One or two texts a row, with a label."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np

from jaxformer.config.fields import length
from jaxformer.data.base import Spec
from jaxformer.data.kinds.text import RaggedRows, Row, RowLength, Stored, TextExamples
from jaxformer.data.records import Labels, Records
from jaxformer.data.text.rows import Encoder, shares
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.data.transform import Transform

Encoded: TypeAlias = Callable[[Sequence[tuple[str, ...]], Any, int], Iterator[tuple[Row, bool]]]


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
        return self.of_tokens() + ([Stored("labels", labels.dtype, "labels", by_row=True)] if labels else [])

    def of_tokens(self) -> list[Stored]:
        """The arrays with an item for each token."""
        return [Stored("types", np.uint8, "token_types")]

    def encode(self, rows: RaggedRows) -> Iterator[Row]:
        records = rows.records
        labels, encoded = self.labels(records), self.encoder(rows.tokenizer)
        for first, group in records.groups():
            examples = list(enumerate(group, first))
            texts = [tuple(records.text(r, name, index) for name in self.features) for index, r in examples]
            for (index, record), (row, cut) in zip(examples, encoded(texts, records, first)):
                rows.counts["cut"] += cut
                yield {**row, "labels": [labels.read(record, index)]} if labels else row

    def encoder(self, tokenizer: Tokenizer) -> "Encoded":
        """What makes a row of each example's texts, without its label, and says whether it was cut."""
        pair = len(self.features) == 2
        encoder = Encoder(tokenizer, self.length, pair)

        def encoded(texts: Sequence[tuple[str, ...]], records: Any, first: int) -> Iterator[tuple[Row, bool]]:
            for one in encoder(texts if pair else [text for (text,) in texts], records, first):
                yield {"ids": one.ids, "types": one.type_ids}, bool(one.overflowing)

        return encoded

    def facts(self, rows: RaggedRows) -> Iterator[str]:
        yield rows.average("examples")
        yield from shares(rows.counts, len(rows), cut=f"examples were cut at {self.length} tokens")
