"""What a decoder remembers of the tokens before: a value that goes in and comes out."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxformer.models.attention import KeyValues, written
from jaxformer.models.block import Aux, LayerCache
from jaxformer.models.masks import Mask, within

Dtype = Any
EMPTY = -1


@struct.dataclass
class Cache:
    """Keys and values of all layers, and where they are from.

    Rows have their tokens at the same slots: prompts of different lengths are padded on the left. Where every layer
    sees only a window, the slots may be fewer than the tokens; then they are written round and round.
    """

    layers: tuple[LayerCache, ...]
    """Of each layer."""
    positions: jax.Array
    """Int32 [B, S], the position of the token in each slot; EMPTY where there is none (yet), and padding."""
    index: jax.Array
    """Int32 [], how many tokens were written."""

    @property
    def slot(self) -> jax.Array:
        """Where the next token goes, int32 []."""
        return self.index % self.positions.shape[1]

    def place(self, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Where the next tokens stand.

        Args:
          valid: bool [B, T], False on padding.

        Returns:
          The positions of the new tokens, int32 [B, T], EMPTY on padding, and those of all slots with them.
        """
        first = jnp.max(self.positions, axis=1, keepdims=True) + 1
        new = jnp.where(valid, first + jnp.cumsum(valid, axis=1) - 1, EMPTY)
        return new, written(self.positions, new, self.slot, 1)

    def after(self, beside: Sequence[Aux], positions: jax.Array, tokens: int) -> "Cache":
        """The cache after `tokens` more, from what the blocks returned and the positions of all slots."""
        layers = tuple(b.cache for b in beside if b.cache is not None)
        return Cache(layers, positions, self.index + tokens)


def empty_cache(
    batch: int, slots: int, depth: int, kv_heads: int, head_dim: int, dtype: Dtype = jnp.float32
) -> Cache:
    """A cache of `slots` tokens for each of `batch` rows; zeros, with no token in it."""
    shape = (batch, kv_heads, slots, head_dim)  # arrays of their own: a cache may be donated
    layers = tuple(
        LayerCache(KeyValues(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))) for _ in range(depth)
    )
    return Cache(layers, jnp.full((batch, slots), EMPTY, jnp.int32), jnp.int32(0))


def cached_mask(queries: jax.Array, slots: jax.Array, window: int | None) -> Mask:
    """Which slots each new token sees: tokens that are not behind it, within the window.

    Args:
      queries: positions of the new tokens, int32 [B, T].
      slots: positions of the tokens in all slots, int32 [B, S].
      window: as in `Mask`.
    """
    distance = queries[:, :, None] - slots[:, None, :]
    return Mask(allowed=(within(distance, window) & (slots >= 0)[:, None, :])[:, None])
