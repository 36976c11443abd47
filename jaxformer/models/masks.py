"""Which keys a query sees, said once for every implementation of attention; and the keys that a decoder remembers.

A cache is a value that goes in and comes out.
"""

from collections.abc import Iterable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

Dtype = Any
EMPTY = -1  # the position of a slot without a token


@struct.dataclass
class Mask:
    """What may be seen; every condition that is set must hold. The default hides nothing."""

    causal: bool = struct.field(pytree_node=False, default=False)
    """Query i sees the keys 0 to i."""
    window: int | None = struct.field(pytree_node=False, default=None)
    """Query i sees the keys less than `window` places away: i - window + 1 to i with `causal`, as in Child et al.
    2019's banded attention, and without it those on both sides."""
    segments: jax.Array | None = None
    """Int32 [B, T]; in self-attention a query sees its own segment alone (packed documents)."""
    keys: jax.Array | None = None
    """Bool [B, S]; keys that are False are padding."""
    allowed: jax.Array | None = None
    """Bool, broadcast to [B, 1, T, S]; for what the others cannot say, such as a cache's slots."""
    part: Any = None
    """Int32 [], which of `parts` the queries are, None with 1; the mask's arrays are of the whole text all the same."""
    parts: int = struct.field(pytree_node=False, default=1)
    """Into how many equal parts the queries of a text are cut (`context_parallel`)."""

    @property
    def is_structural(self) -> bool:
        """Whether `causal` and `window` say everything, of whole texts."""
        return self.segments is None and self.keys is None and self.allowed is None and self.parts == 1

    def array(self, queries: int, keys: int) -> jax.Array | None:
        """The mask as bool, broadcast to [B, 1, T, S]: True where a query sees a key. None if it hides nothing."""
        conditions = []
        if self.causal or self.window is not None:
            first = 0 if self.part is None else self.part * queries
            distance = first + jnp.arange(queries)[:, None] - jnp.arange(keys)[None, :]
            distance = distance if self.causal else jnp.abs(distance)
            conditions.append(within(distance, self.window)[None, None])
        if self.segments is not None:
            own = self.own_segments(queries)
            conditions.append((own[:, :, None] == self.segments[:, None, :])[:, None])
        if self.keys is not None:
            conditions.append(self.keys[:, None, None, :])
        if self.allowed is not None:
            conditions.append(self.allowed)
        return reduce(jnp.logical_and, jnp.broadcast_arrays(*conditions)) if conditions else None

    def own_segments(self, queries: int) -> Any:
        """The segments of so many queries, int32 [B, queries]; None where there are none."""
        if self.segments is None or self.part is None:
            return self.segments
        return jax.lax.dynamic_slice_in_dim(self.segments, self.part * queries, queries, axis=1)


def within(distance: jax.Array, window: int | None) -> jax.Array:
    """Where a causal query sees a key: `distance`, query position minus key position, is 0 to window - 1."""
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


@struct.dataclass
class KeyValues:
    """Keys and values of one attention layer."""

    key: jax.Array
    """[B, Hkv, S, Dh]."""
    value: jax.Array
    """[B, Hkv, S, Dh]."""


@struct.dataclass
class LayerCache:
    """What one block remembers of the tokens before."""

    own: KeyValues | None = None
    """Keys and values of self-attention."""
    memory: KeyValues | None = None
    """Those of cross-attention, computed where `StackInputs.context` is given; None where there is none."""


@struct.dataclass
class Cache:
    """Keys and values of all layers, and where they are from.

    Rows have their tokens at the same slots: prompts of different lengths are padded on the left. Where every layer
    sees only a window, the slots may be fewer than the tokens; then they are written round and round.
    """

    layers: tuple[LayerCache, ...]
    """Keys and values of each layer."""
    positions: jax.Array
    """Int32 [B, S], the position of the token in each slot; EMPTY where there is none (yet), and padding."""
    index: jax.Array
    """Int32 [], how many tokens were written."""
    prompt: int = struct.field(pytree_node=False, default=0)
    """How many learned vectors of the model's own come in front of the first tokens; 0 once they are written."""

    @property
    def slot(self) -> jax.Array:
        """Where the next token goes, int32 []."""
        return self.index % self.positions.shape[1]

    def place(self, valid: jax.Array, together: int = 0) -> tuple[jax.Array, jax.Array]:
        """Where the next tokens stand.

        Args:
          valid: bool [B, T], False on padding.
          together: how many of the first tokens, none of them padding, have one position, and so see each other.

        Returns:
          The positions of the new tokens, int32 [B, T], EMPTY on padding, and those of all slots with them.
        """
        first = jnp.max(self.positions, axis=1, keepdims=True) + 1
        steps = valid & (jnp.arange(valid.shape[1]) >= together)[None] if together else valid
        new = jnp.where(valid, first + jnp.cumsum(steps, axis=1) - int(not together), EMPTY)
        return new, written(self.positions, new, self.slot, 1)

    def after(self, layers: Iterable[LayerCache | None], positions: jax.Array, tokens: int) -> "Cache":
        """The cache after `tokens` more, from what the blocks returned and the positions of all slots."""
        kept = tuple(layer for layer in layers if layer is not None)
        return Cache(kept, positions, self.index + tokens)


def empty_cache(
    batch: int,
    slots: int,
    depth: int,
    kv_heads: int,
    head_dim: int,
    dtype: Dtype = jnp.float32,
    prompt: int = 0,
) -> Cache:
    """A cache of `slots` tokens for each of `batch` rows, and of those of a `prompt`; zeros, with no token in it."""
    slots += prompt
    shape = (batch, kv_heads, slots, head_dim)  # arrays of their own: a cache may be donated
    layers = tuple(
        LayerCache(KeyValues(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))) for _ in range(depth)
    )
    return Cache(layers, jnp.full((batch, slots), EMPTY, jnp.int32), jnp.int32(0), prompt)


def cached_mask(queries: jax.Array, slots: jax.Array, window: int | None) -> Mask:
    """Which slots each new token sees: tokens that are not behind it, within the window.

    Args:
      queries: positions of the new tokens, int32 [B, T].
      slots: positions of the tokens in all slots, int32 [B, S].
      window: as in `Mask`.
    """
    distance = queries[:, :, None] - slots[:, None, :]
    return Mask(allowed=(within(distance, window) & (slots >= 0)[:, None, :])[:, None])


def in_front(x: jax.Array | None, count: int, value: Any) -> Any:
    """What is known of tokens, [1 or B, T], behind `count` others, of which it is `value`; None stays None."""
    return x if x is None or not count else jnp.pad(x, ((0, 0), (count, 0)), constant_values=value)


def positions_behind(positions: jax.Array, count: int) -> jax.Array:
    """Positions of tokens, int [1 or B, T], behind `count` others that take the first, int [1 or B, count + T]."""
    if not count:
        return positions
    first = jnp.broadcast_to(jnp.arange(count, dtype=positions.dtype), (len(positions), count))
    return jnp.concatenate([first, positions + count], axis=1)


def packed_mask(positions: jax.Array, texts: jax.Array, window: int | None, count: int) -> Mask:
    """Causal attention in rows of texts and padding: every text sees the `count` tokens in front of its row, as if it
    stood behind them by itself.

    Args:
      positions: int32 [1 or B, T], of tokens in their text, behind those in front.
      texts: int32 [B, T], which text of its row each is of, or bool, False on padding; those in front are of any.
      window: as in `Mask`.
      count: how many tokens are in front.
    """
    own = texts[:, :, None] == texts[:, None, :]
    own |= (jnp.arange(own.shape[2]) < count)[None, None]
    distance = positions[:, :, None] - positions[:, None, :]
    return Mask(allowed=(within(distance, window) & own)[:, None])


def written(old: jax.Array, new: jax.Array, slot: jax.Array, axis: int) -> jax.Array:
    """`old` with `new` from `slot` on along `axis`, from its first place again after its last."""
    slots, tokens = old.shape[axis], new.shape[axis]
    if tokens > slots:
        raise ValueError(f"{tokens} tokens do not fit into a cache of {slots}: give fewer at a time")
    if tokens == 1:
        return jax.lax.dynamic_update_slice_in_dim(old, new, slot, axis)
    # A dynamic update of more would be moved to the front where it runs over the end.
    source = (jnp.arange(slots) - slot) % slots
    shape = [slots if i == axis else 1 for i in range(old.ndim)]
    spread = jnp.take(new, jnp.minimum(source, tokens - 1), axis=axis)
    return jnp.where(jnp.broadcast_to((source < tokens).reshape(shape), old.shape), spread, old)
