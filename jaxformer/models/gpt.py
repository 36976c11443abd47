"""Decoder-only language models: GPT-2 (Radford et al. 2019), GPT-3 (Brown et al. 2020), and what came after."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxformer.config.fields import Input, Layers, PositiveFloat, PositiveInt, Rate
from jaxformer.models.base import Kind, Prompted, behind, head_problems
from jaxformer.models.block import StackInputs
from jaxformer.models.dense import Dense, Embedding
from jaxformer.models.dropout import Dropout
from jaxformer.models.masks import (
    Cache,
    Mask,
    cached_mask,
    empty_cache,
    in_front,
    packed_mask,
    positions_behind,
)
from jaxformer.models.mlp import ActivationName, Experts
from jaxformer.models.outputs import TextOutputs, router_losses
from jaxformer.models.positions import RelativeBias, alibi_bias, for_rows, sinusoidal, token_positions
from jaxformer.models.text import GenerativeModel, Windowed

normal = nn.initializers.normal


class GPT(GenerativeModel, Windowed, Prompted):
    """A decoder that predicts the next token."""

    kind: ClassVar[Kind] = "decoder"

    depth: Layers = 12
    """Number of blocks."""
    num_kv_heads: PositiveInt | None = None
    """Number of heads of keys and values; None: as many as of queries."""
    activation: ActivationName = "gelu_tanh"
    """Activation of the MLPs; GPT-2 and GPT-3 have "gelu_tanh", Llama and Qwen "swiglu"."""
    norm_epsilon: PositiveFloat = 1e-5
    qkv_bias: bool | None = None
    """Whether query, key and value have biases; None: as the others. (Qwen 2 has these alone.)"""
    qk_norm: bool = False
    """RMSNorm on queries and keys."""
    positions: Literal["learned", "sinusoidal", "rotary", "alibi", "relative", "none"] = "learned"
    """A learned table, "sinusoidal" ones added (Vaswani et al. 2017), "rotary", "alibi", T5's "relative"
    bias, or "none"."""
    experts: Experts | None = None
    """A mixture of experts in the place of every MLP."""
    dropout: Input[Rate] = 0.0

    def problems(self) -> Iterator[str]:
        yield from head_problems(self.width, self.num_heads, self.head_dim, self.num_kv_heads)
        if self.positions == "sinusoidal" and self.width % 2:
            yield f'width={self.width}: positions="sinusoidal" needs an even one'
        if self.positions == "rotary" and self.num_heads > 0:
            yield from self.turning_problems(self.size_of_heads)

    @nn.compact
    def __call__(
        self,
        tokens: Array,
        token_mask: Array | None = None,
        segment_ids: Array | None = None,
        positions: Array | None = None,
        cache: Cache | None = None,
        deterministic: bool = True,
        last_only: bool = False,
    ) -> TextOutputs:
        """Logits of the token after each.

        Learned vectors (`prompt`) are tokens that stand in front of each text and take the positions from 0 on, as in
        Hugging Face's peft; outputs are of the others alone.

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
        vocab_size = self.known("vocab_size")
        count, windows = self.prompt if cache is None else cache.prompt, self.windows()
        table = Embedding(vocab_size, self.width, **self.dtypes, name="token_embedding")
        learned = self.prompt_vectors(self.width) if count else None
        x = behind(learned, table(tokens))  # [B, N + T, D], as all that follows
        token_mask, segment_ids = in_front(token_mask, count, True), in_front(segment_ids, count, 1)
        positions = None if positions is None else positions_behind(positions, count)
        if cache is None:
            # Distances within a text are those in its row, so that all rows share one bias.
            queries = slots = token_positions(x, None)
            positions = token_positions(x, token_mask) if positions is None else positions
            masks = [Mask(True, window, segment_ids, token_mask) for window in windows]
            texts = token_mask if segment_ids is None else segment_ids
            if count and texts is not None:  # the row may have padding, or other texts, behind the prompt
                queries = slots = positions
                masks = [packed_mask(positions, texts, window, count) for window in windows]
        else:
            positions, slots = cache.place(jnp.ones(x.shape[:2], bool) if token_mask is None else token_mask)
            queries, masks = positions, [cached_mask(positions, slots, window) for window in windows]
        bias = self.bias(queries, slots)
        if self.positions == "learned":
            shape = (self.context_length, self.width)
            x = x + for_rows(Embedding(*shape, **self.dtypes, name="position_embedding")(positions), x)
        elif self.positions == "sinusoidal":
            x = x + for_rows(sinusoidal(positions, self.width).astype(self.dtype), x)
        x = Dropout(self.dropout)(x, deterministic=deterministic)

        turns = self.turns(positions, self.size_of_heads) if self.positions == "rotary" else ()
        valid = segment_ids > 0 if token_mask is None and segment_ids is not None else token_mask
        shared = StackInputs(bias=bias, valid=valid)
        # Weights start as in GPT-2: 0.02, smaller by the depth where a branch ends.
        inits = normal(0.02), normal(0.02 / (2 * self.depth) ** 0.5)
        x, beside = self.stack("decoder", self.depth, *inits)(
            x, deterministic, shared, masks, cache, rotaries=turns
        )
        x = self.last_norm("norm")(x[:, count:] if count else x)
        head = (
            None
            if self.tied
            else Dense(vocab_size, use_bias=False, kernel_init=normal(0.02), **self.dtypes, name="head")
        )
        logits, made_of = self.logits(x, table, head, last_only)
        cache = cache and cache.after([b.cache for b in beside], slots, count + tokens.shape[1])
        return TextOutputs(logits, x, router=router_losses(beside), cache=cache, head=made_of)

    def bias(self, queries: Array, keys: Array) -> Array | None:
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
        return empty_cache(batch, slots, self.depth, kv_heads, self.size_of_heads, self.dtype, self.prompt)
