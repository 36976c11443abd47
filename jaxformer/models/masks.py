"""Which keys a query sees, said once for every implementation of attention."""

from functools import reduce

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Mask:
    """What may be seen; every condition that is set must hold. The default hides nothing."""

    causal: bool = struct.field(pytree_node=False, default=False)
    """Query i sees the keys 0 to i."""
    window: int | None = struct.field(pytree_node=False, default=None)
    """Query i sees the keys i - window + 1 to i (with `causal`), as in Child et al. 2019's banded
    attention."""
    segments: jax.Array | None = None
    """Int32 [B, T]; in self-attention a query sees its own segment alone (packed documents)."""
    keys: jax.Array | None = None
    """Bool [B, S]; keys that are False are padding."""
    allowed: jax.Array | None = None
    """Bool, broadcast to [B, 1, T, S]; for what the others cannot say, such as a cache's slots."""

    @property
    def is_structural(self) -> bool:
        """Whether `causal` and `window` say everything."""
        return self.segments is None and self.keys is None and self.allowed is None

    def array(self, queries: int, keys: int) -> jax.Array | None:
        """The mask as bool, broadcast to [B, 1, T, S]: True where a query sees a key. None if it hides nothing."""
        conditions = []
        if self.causal:
            distance = jnp.arange(queries)[:, None] - jnp.arange(keys)[None, :]
            conditions.append(within(distance, self.window)[None, None])
        if self.segments is not None:
            conditions.append((self.segments[:, :, None] == self.segments[:, None, :])[:, None])
        if self.keys is not None:
            conditions.append(self.keys[:, None, None, :])
        if self.allowed is not None:
            conditions.append(self.allowed)
        return reduce(jnp.logical_and, jnp.broadcast_arrays(*conditions)) if conditions else None


def within(distance: jax.Array, window: int | None) -> jax.Array:
    """Where a causal query sees a key: `distance`, query position minus key position, is 0 to window - 1."""
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)
