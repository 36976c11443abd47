"""Decoder-only language models: GPT-2 (Radford et al. 2019), GPT-3 (Brown et al. 2020), and what came after."""

from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.block import Block, Shared
from jaxformer.models.cache import Cache, advance, cached_mask, empty_cache
from jaxformer.models.dense import Dense
from jaxformer.models.dropout import Dropout
from jaxformer.models.embedding import Embedding
from jaxformer.models.experts import Experts
from jaxformer.models.masks import Mask
from jaxformer.models.mlp import ActivationName
from jaxformer.models.norms import NormName, token_norm
from jaxformer.models.outputs import TextOutputs, router_losses
from jaxformer.models.positions import RelativeBias, alibi_bias, sinusoidal
from jaxformer.models.problems import heads, rates, sizes
from jaxformer.models.rotary import Rotary
from jaxformer.models.stack import RematName, Stack

Dtype = Any


class GPT(nn.Module):
    """A decoder that predicts the next token."""

    vocab_size: int | None = None
    """Rows of the token table; None: as many as the tokenizer has tokens."""
    context_length: int = 1024
    """The longest text, in tokens."""
    width: int = 768
    """D, of the tokens."""
    depth: int = 12
    """blocks."""
    num_heads: int = 12
    """Attention heads."""
    num_kv_heads: int | None = None
    """Heads of keys and values; None: as many as of queries."""
    head_dim: int | None = None
    """A head's size; None: width / num_heads."""
    mlp_dim: int | None = None
    """The MLPs' hidden width; None: 4 x width."""
    activation: ActivationName = "gelu_tanh"
    """The MLPs'; GPT-2 and GPT-3 have "gelu_tanh", Llama and Qwen "swiglu"."""
    norm: NormName = "layer"
    """LayerNorm ("layer") or RMSNorm ("rms")."""
    norm_epsilon: float = 1e-5
    """Of every norm."""
    use_bias: bool = True
    """Whether dense layers and LayerNorms have biases."""
    qkv_bias: bool | None = None
    """Whether query, key and value have; None: as the others. (Qwen 2 has these alone.)"""
    qk_norm: bool = False
    """RMSNorm on queries and keys."""
    positions: Literal["learned", "sinusoidal", "rotary", "alibi", "relative", "none"] = "learned"
    """A learned table, "sinusoidal" ones added (Vaswani et al. 2017), "rotary", "alibi", T5's "relative"
    bias, or "none"."""
    rotary: Rotary = Rotary()
    """How "rotary" positions turn, and how they are stretched."""
    tied: bool = True
    """Whether the head is the token table (Press and Wolf 2017)."""
    window: int | None = None
    """How many tokens a local layer sees, itself included; None: all."""
    window_every: int = 1
    """Of so many layers, all but the first are local: 1 makes all of them so, 2 alternates dense and banded
    layers as GPT-3 does."""
    experts: Experts | None = None
    """A mixture of experts in the place of every MLP."""
    dropout: float = 0.0
    """After the embedding and of each branch."""
    attention_dropout: float = 0.0
    """Of attention weights."""
    remat: RematName = "none"
    """What the backward pass keeps; see `ViT`."""
    scan: bool = False
    """Scans over stacked layers instead of unrolling them: compiles faster."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        """Yields a line for every impossible combination of fields."""
        yield from heads(self)
        yield from sizes(self, "vocab_size", "context_length", "depth", "num_kv_heads", "head_dim")
        yield from sizes(self, "mlp_dim", "window", "window_every")
        yield from rates(self, "dropout", "attention_dropout")
        if self.positions == "sinusoidal" and self.width % 2:
            yield f'width={self.width}: positions="sinusoidal" needs an even one'
        if self.positions == "rotary" and self.num_heads > 0:
            size = self.rotary.size(self.size_of_heads)
            if size < 2 or (size == 2 and self.rotary.scaling == "ntk"):
                yield f"rotary: of {self.size_of_heads} features of a head {size} turn, too few; use larger heads"

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        token_mask: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
        cache: Cache | None = None,
        deterministic: bool = True,
        last_only: bool = False,
    ) -> TextOutputs:
        """Logits of the token after each.

        Args:
          tokens: int [B, T].
          token_mask: bool [B, T], False on padding, on either side; None: there is none. Of padding the results
            mean nothing.
          segment_ids: int [B, T], which document of a packed row, 0 on padding; tokens see their own alone.
          positions: int [B, T]; None: from 0 on, padding left out. Biases go by the distance in the row.
          cache: of the tokens before (`start`); then `segment_ids` and `positions` are not taken.
          deterministic: whether there is no dropout.
          last_only: whether the logits are of the last place alone, [B, 1, V].
        """
        if self.vocab_size is None:
            raise ValueError("vocab_size is None: take it from the tokenizer")
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        valid = jnp.ones(tokens.shape, bool) if token_mask is None else token_mask
        if cache is not None:
            positions, slots = cache.place(valid)
            bias = self.bias(positions, slots)
            masks = [cached_mask(positions, slots, window) for window in self.windows()]
        else:
            if positions is None:
                positions = place(tokens, token_mask)
            in_row = place(tokens, None)  # within a text the same distances, and one bias for all rows
            bias = self.bias(in_row, in_row)
            masks = [Mask(True, window, segment_ids, token_mask) for window in self.windows()]

        table = Embedding(self.vocab_size, self.width, **dtypes, name="token_embedding")
        x = table(tokens)  # [B, T, D]
        if self.positions == "learned":
            shape = (self.context_length, self.width)
            x = x + for_rows(Embedding(*shape, **dtypes, name="position_embedding")(positions), x)
        elif self.positions == "sinusoidal":
            x = x + for_rows(sinusoidal(positions, self.width).astype(self.dtype), x)
        x = Dropout(self.dropout)(x, deterministic=deterministic)

        shared = Shared(
            bias=bias,
            rotary=self.rotary.tables(positions, self.size_of_heads) if self.positions == "rotary" else None,
            valid=segment_ids > 0 if token_mask is None and segment_ids is not None else token_mask,
            slot=None if cache is None else cache.slot,
            remembers=cache is not None,
        )
        stack = Stack(Block, self.block(), self.depth, 0.0, self.remat, self.scan, name="decoder")
        caches = None if cache is None else cache.layers
        x, beside = stack(x, deterministic, shared, masks, caches)
        norm = (self.norm, self.norm_epsilon, self.use_bias, self.dtype, self.param_dtype)
        x = token_norm(*norm, "norm")(x)
        seen = x[:, -1:] if last_only else x
        if self.tied:
            logits = table.logits(seen)
        else:
            head = Dense(self.vocab_size, False, nn.initializers.normal(0.02), **dtypes, name="head")
            logits = head(seen).astype(jnp.float32)
        if cache is not None:
            cache = advance(cache, [b.cache for b in beside], slots, tokens.shape[1])
        return TextOutputs(logits, x, router=router_losses(beside), cache=cache)

    @property
    def size_of_heads(self) -> int:
        """A head's size."""
        return self.head_dim or self.width // self.num_heads

    @nn.nowrap
    def windows(self) -> list[int | None]:
        """The window of each layer, up to where they repeat."""
        if self.window is None:
            return [None]
        return [self.window] if self.window_every == 1 else [None] + [self.window] * (self.window_every - 1)

    @nn.nowrap
    def block(self) -> dict[str, Any]:
        """The blocks' fields; weights start as in GPT-2: 0.02, smaller where a branch ends by the depth."""
        return {
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim or 4 * self.width,
            "num_kv_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "activation": self.activation,
            "norm": self.norm,
            "norm_epsilon": self.norm_epsilon,
            "use_bias": self.use_bias,
            "qkv_bias": self.qkv_bias,
            "qk_norm": self.qk_norm,
            "experts": self.experts,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "kernel_init": nn.initializers.normal(0.02),
            "out_init": nn.initializers.normal(0.02 / (2 * self.depth) ** 0.5),
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
        }

    def bias(self, queries: jax.Array, keys: jax.Array) -> jax.Array | None:
        """What positions add to the attention's logits, broadcast to [B, H, T, S]."""
        if self.positions == "alibi":
            return alibi_bias(queries, keys, self.num_heads)
        if self.positions == "relative":
            bias = RelativeBias(self.num_heads, False, param_dtype=self.param_dtype, name="relative_bias")
            return bias(queries, keys)
        return None

    @nn.nowrap
    def start(self, batch: int, length: int) -> Cache:
        """An empty cache for texts of `length` tokens, padding included.

        Where every layer sees a window of W tokens, it has at most 2 W slots: give tokens W at a time at most, so
        that none is overwritten that is still seen.
        """
        windows = self.windows()
        slots = length if None in windows else min(length, 2 * max(w for w in windows if w))
        kv_heads = self.num_kv_heads or self.num_heads
        return empty_cache(batch, slots, self.depth, kv_heads, self.size_of_heads, self.dtype)


def place(tokens: jax.Array, token_mask: jax.Array | None) -> jax.Array:
    """Positions from 0 on: int32 [1, T], or [B, T] where padding is left out."""
    if token_mask is None:
        return jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    return jnp.maximum(jnp.cumsum(token_mask, axis=1, dtype=jnp.int32) - 1, 0)


def for_rows(x: jax.Array, like: jax.Array) -> jax.Array:
    """[1 or B, T, D] as [B, T, D]."""
    return jnp.broadcast_to(x, like.shape)
