"""What the Transformers over tokens of text have in common."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.config.fields import Input, PositiveFloat, PositiveInt, Rate, Tokens
from jaxformer.models.base import Adaptable
from jaxformer.models.block import Block
from jaxformer.models.dense import Dense, Embedding, Initializer
from jaxformer.models.norms import NormName, token_norm
from jaxformer.models.outputs import TokenHead
from jaxformer.models.rotary import Rotary
from jaxformer.models.stack import Stack


class TextModel(Adaptable, kw_only=True):
    """Transformers over tokens of text."""

    sizes: ClassVar[tuple[str, ...]] = ("vocab_size",)

    vocab_size: PositiveInt | None = None
    """Rows of the token table; None: as many as the tokenizer has tokens."""
    width: PositiveInt = 768
    """D, width of the tokens."""
    num_heads: PositiveInt = 12
    """Number of attention heads."""
    mlp_dim: PositiveInt | None = None
    """Hidden width of the MLPs; None: 4 x width."""
    dropout: Input[Rate] = 0.1
    """Rate of dropout after the embedding and of each branch."""
    attention_dropout: Input[Rate] = 0.0
    """Rate of dropout of the attention weights."""

    def stack(
        self,
        name: str | None,
        depth: int,
        up: Initializer,
        down: Initializer,
        first: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Stack:
        """A stack of blocks: they take these fields, and those of the model that have the same names.

        Args:
          name: the stack's; None where it has that of an attribute.
          depth: the number of blocks.
          up: initializer of the kernels into heads and hidden units.
          down: initializer of the kernels back to the width.
          first: other fields of the first block.
          more: other fields of the blocks.
        """
        block = self.passed_to(Block) | {"kernel_init": up, "out_init": down, **more}
        block["mlp_dim"] = self.mlp_dim or 4 * self.width
        return Stack(Block, block, depth, 0.0, self.remat, self.scan, first, name=name)


class Windowed(TextModel, kw_only=True):
    """Models of whose layers some see the tokens near by alone, and whose positions may be rotary."""

    rotary: Rotary = Rotary()
    """How "rotary" positions turn, and how they are stretched."""
    local_rotary: Rotary | None = None
    """How they turn in layers with a window; None: as in the others."""
    window: PositiveInt | None = None
    """How many tokens a local layer sees, itself included, before each (of an encoder behind it, too); None: all."""
    window_every: PositiveInt = 1
    """The first of every so many layers sees all tokens, the others are local. 1 makes all layers local, 2 alternates
    dense and banded layers as GPT-3 does."""

    @nn.nowrap
    def windows(self) -> list[int | None]:
        """The window of each layer, up to where they repeat."""
        if self.window is None:
            return [None]
        return [self.window] if self.window_every == 1 else [None] + [self.window] * (self.window_every - 1)

    @nn.nowrap
    def turns(self, positions: jax.Array, head_dim: int) -> list[tuple[jax.Array, jax.Array]]:
        """`Rotary.tables` of each layer, up to where they repeat."""
        if self.local_rotary is None:
            return [self.rotary.tables(positions, head_dim)]
        each = {
            True: self.rotary.tables(positions, head_dim),
            False: self.local_rotary.tables(positions, head_dim),
        }
        return [each[window is None] for window in self.windows()]

    @nn.nowrap
    def turning_problems(self, head_dim: int) -> Iterator[str]:
        """Yields a line for rotary positions with which too little of a head turns."""
        for name, rotary in (("rotary", self.rotary), ("local_rotary", self.local_rotary)):
            size = 0 if rotary is None else rotary.size(head_dim)
            if rotary is not None and (size < 2 or (size == 2 and rotary.scaling == "ntk")):
                yield f"{name}: of {head_dim} features of a head {size} turn, too few; use larger heads"


class GenerativeModel(TextModel, kw_only=True):
    """Models that write text token by token: decoders, and encoders with a decoder."""

    context_length: Tokens = 1024
    """The longest text, in tokens."""
    head_dim: PositiveInt | None = None
    """Size of a head; None: width / num_heads."""
    norm: NormName = "layer"
    """LayerNorm ("layer") or RMSNorm ("rms")."""
    norm_epsilon: PositiveFloat = 1e-6
    """Epsilon of every norm."""
    use_bias: bool = True
    """Whether dense layers and LayerNorms have biases."""
    tied: bool = True
    """Whether the head is the token table (Press and Wolf 2017)."""

    @property
    def heads(self) -> tuple[str, ...]:
        """As of `Model`; the token table is no head."""
        return () if self.tied else ("head",)

    @property
    def size_of_heads(self) -> int:
        """A head's size."""
        return self.head_dim or self.width // self.num_heads

    def logits(
        self, x: jax.Array, table: Embedding, head: Dense | None, last_only: bool
    ) -> tuple[jax.Array, TokenHead]:
        """Float32 [B, T, V] of tokens x [B, T, D], or of the last alone, and what they are made of: the head or the
        token table."""
        seen = (x[:, -1:] if last_only else x).astype(self.dtype)
        if head is None:
            return table.logits(seen), TokenHead(seen, table.embedding)
        logits = head(seen).astype(jnp.float32)
        return logits, TokenHead(seen, head.get_variable("params", "kernel").T)

    def last_norm(self, name: str) -> nn.Module:
        """The norm behind the last block."""
        return token_norm(self.norm, self.norm_epsilon, self.use_bias, **self.dtypes, name=name)
