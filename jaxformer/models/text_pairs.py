"""Two texts that one model reads, each by itself, to compare their vectors (Reimers and Gurevych 2019)."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxformer.config.fields import PositiveFloat
from jaxformer.config.schema import choice
from jaxformer.models import CONTRACT, TEXT_ENCODERS
from jaxformer.models.base import Kind, Model
from jaxformer.models.outputs import PairOutputs
from jaxformer.models.two_towers import pooled, tower_problems, unit


class TextPairs(Model):
    """An encoder of sentences: texts that belong together have vectors that are near each other.

    The two texts of a pair stand in one row, and neither sees the other.
    """

    kind: ClassVar[Kind] = "text-pairs"
    parts: ClassVar[tuple[str, ...]] = ("text",)
    heads = ()

    text: Any = choice(TEXT_ENCODERS, contract=CONTRACT)
    """The model that reads them: "bert" with head="none" and pooler="none", or "gpt". Its parameters are "text/..."."""
    pooling: Literal["mean", "first", "end"] = "mean"
    """Which of its tokens stand for a text: the mean of all, the first or the last."""
    scale: PositiveFloat = 20.0
    """What cosines are multiplied by, the inverse of a temperature; 20 as in Gao et al. 2021 (SimCSE, section 3)."""

    def problems(self) -> Iterator[str]:
        yield from tower_problems(self.text, self.pooling, "pooling")

    @property
    def context_length(self) -> int:
        """The longest row, in tokens: of two texts."""
        return 2 * int(self.text.longest_text)

    @property
    def prompt(self) -> int:
        """Number of learned vectors in front of a row."""
        return self.text.prompt

    @property
    def vocab_size(self) -> int | None:
        """Rows of the token table."""
        return self.text.vocab_size

    @nn.compact
    def __call__(
        self,
        tokens: Array,
        token_mask: Array | None = None,
        segment_ids: Array | None = None,
        positions: Array | None = None,
        deterministic: bool = True,
    ) -> PairOutputs:
        """The vectors of both texts, as "image" and "text" of the outputs.

        Args:
          tokens: int [B, T].
          token_mask: bool [B, T], False on padding; None: there is none.
          segment_ids: int [B, T], 1 on the first text, 2 on the second, 0 on padding; None: the row is one text.
          positions: int [B, T], of the tokens in their text.
          deterministic: whether there is no dropout.
        """
        numbers = jnp.ones_like(tokens) if segment_ids is None else segment_ids
        of_pair = {"token_mask": token_mask, "segment_ids": segment_ids, "positions": positions}
        seen = self.text(tokens, **of_pair, deterministic=deterministic).tokens
        first, second = (unit(pooled(seen, numbers == k, self.pooling)) for k in (1, 2))
        rows = jnp.zeros(len(tokens), jnp.float32)
        return PairOutputs(first, second, rows + self.scale, rows)
