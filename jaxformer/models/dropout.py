"""Dropout (Srivastava et al. 2014)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

LEVELS = 256  # a rate is kept to one part in so many; what remains is scaled by the rate that it really is


class Dropout(nn.Module):
    """Zeros a share of the values in training, and scales the others so that their expectation stays.

    Random bits cost more than all else here, so that four values share a word of them: eight bits each.
    """

    rate: float
    """The share, less than 1; to 1/256."""

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Drops values of [...]."""
        if self.rate == 0 or deterministic:
            return x
        return dropped(x, self.make_rng("dropout"), self.rate)


def dropped(x: jax.Array, key: jax.Array, rate: float) -> jax.Array:
    """`x` with a share of `rate` set to 0, the others divided by the share that is kept."""
    kept = min(max(round((1 - rate) * LEVELS), 1), LEVELS)
    if kept == LEVELS:
        return x
    mask = random_bytes(key, x.shape) < np.uint8(kept)
    # Made once: fused into what reads it, the bits would be made again for every reader, backwards too.
    mask = jax.lax.optimization_barrier(mask)
    return scaled(x, mask, LEVELS / kept)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def scaled(x: jax.Array, mask: jax.Array, factor: float) -> jax.Array:
    """x times `factor` where the mask is True, else 0; the backward pass keeps nothing but the mask."""
    return jnp.where(mask, x * jnp.asarray(factor, x.dtype), 0)


def scaled_forward(x: jax.Array, mask: jax.Array, factor: float) -> tuple[jax.Array, jax.Array]:
    """The result and the mask."""
    return jnp.where(mask, x * jnp.asarray(factor, x.dtype), 0), mask


def scaled_backward(factor: float, mask: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None]:
    """The gradient of x."""
    return jnp.where(mask, gradient * jnp.asarray(factor, gradient.dtype), 0), None


scaled.defvjp(scaled_forward, scaled_backward)


def random_bytes(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform uint8 of `shape`; four to each random word where the last axis is a multiple of four."""
    if not shape or shape[-1] % 4:
        return jax.random.bits(key, shape, jnp.uint8)
    words = jax.random.bits(key, (*shape[:-1], shape[-1] // 4), jnp.uint32)
    return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(shape)
