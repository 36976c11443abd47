"""Two texts a row, each as it stands alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from jaxformer.config.fields import length
from jaxformer.data.kinds.sequences import Encoded, Sequences
from jaxformer.data.kinds.text import Row, Stored
from jaxformer.data.text.rows import Encoder
from jaxformer.data.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class Compared(Sequences):
    """Two texts one after the other, each with special tokens of its own: `tokens`, `token_mask`, `segment_ids` (1 and
    2, 0 on padding) and `positions` (from 0 on in each) [B, T]; `labels` [B] where there are scores.
    """

    kind: ClassVar[str] = "compared"
    by_token: ClassVar[tuple[str, ...]] = ("tokens", "token_mask", "segment_ids", "positions")

    features: Annotated[tuple[str, ...], length(2, 2, expected="two features of texts")] = ("first", "second")
    """The dataset's two features that hold the texts; each text has half of `length` at most."""
    label_feature: str | None = None
    """The feature that holds how alike the two are, a number; None: there is none."""

    def of_tokens(self) -> list[Stored]:
        return [Stored("parts", np.uint8, "segment_ids"), Stored("places", np.uint32, "positions")]

    def encoder(self, tokenizer: Tokenizer) -> Encoded:
        encoder = Encoder(tokenizer, self.length // 2)

        def encoded(texts: Sequence[tuple[str, ...]], records: Any, first: int) -> Iterator[tuple[Row, bool]]:
            both = zip(*(encoder(column, records, first) for column in zip(*texts)))
            for pair in both:
                counts = [len(one.ids) for one in pair]
                row = {
                    "ids": [token for one in pair for token in one.ids],
                    "parts": np.repeat((1, 2), counts),
                }
                places = np.concatenate([np.arange(count) for count in counts])
                yield row | {"places": places}, any(one.overflowing for one in pair)

        return encoded
