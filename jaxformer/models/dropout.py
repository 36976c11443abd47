"""Dropout of values (Srivastava et al. 2014) and of whole residual branches."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxformer.config.fields import left_out
from jaxformer.models.base import Layer
from jaxformer.models.remat import CHOICE, named

LEVELS = 256  # a rate is kept to one part in so many; what remains is scaled by the rate that it really is


class Dropout(nn.Module):
    """Zeros a share of the values in training, and scales the others so that their expectation stays.

    Random bits cost more than all else here, so that four values share a word of them: eight bits each.
    """

    rate: float | Array
    """The share, less than 1; to 1/256."""

    @nn.compact
    def __call__(self, x: Array, deterministic: bool) -> Array:
        """Drops values of [...]."""
        if left_out(self.rate) or deterministic:
            return x
        return dropped(x, self.make_rng("dropout"), self.rate)


def dropped(x: Array, key: Array, rate: float | Array) -> Array:
    """`x` with a share of `rate` set to 0, the others divided by the share that is kept."""
    kept = jnp.clip(jnp.round((1 - jnp.asarray(rate, jnp.float32)) * LEVELS), 1, LEVELS)
    mask = random_bytes(key, x.shape) <= (kept - 1).astype(jnp.uint8)
    # Made once: fused into what reads it, the bits would be made again for every reader, backwards too.
    mask = named(jax.lax.optimization_barrier(mask), CHOICE)
    return jnp.where(mask, x * (LEVELS / kept).astype(x.dtype), 0)


def random_bytes(key: Array, shape: tuple[int, ...]) -> Array:
    """Uniform uint8 of `shape`; four to each random word where the last axis is a multiple of four."""
    if not shape or shape[-1] % 4:
        return jax.random.bits(key, shape, jnp.uint8)
    words = jax.random.bits(key, (*shape[:-1], shape[-1] // 4), jnp.uint32)
    return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(shape)


def drop_path(x: Array, rate: Array | float, key: Array) -> Array:
    """Leaves a residual branch out for some examples (Huang et al. 2016), keeping its expectation.

    Args:
      x: [B, ...].
      rate: the share of examples that lose the branch, less than 1; may be traced.
      key: a random key.

    Returns:
      For each example, x / (1 - rate) or zeros, in the dtype of `x`.
    """
    keep = 1 - jnp.asarray(rate, jnp.float32)
    kept = jax.random.bernoulli(key, keep, (x.shape[0],) + (1,) * (x.ndim - 1))
    return x * jnp.broadcast_to((kept / keep).astype(x.dtype), x.shape)


class ResidualLayer(Layer, kw_only=True):
    """A block of residual branches, which training drops values of, and whole."""

    dropout: float = 0.0
    """Rate of dropout of each branch's result."""
    attention_dropout: float = 0.0
    """Rate of dropout of the attention weights."""
    drop_path: float = 0.0
    """Rate at which an example loses a branch; a block of a `Stack` is given it with its inputs."""

    def branch(self, y: Array, deterministic: bool, rate: Array | None = None) -> Array:
        """A branch's result after dropout and stochastic depth; `rate` takes the place of `drop_path`."""
        y = Dropout(self.dropout)(y, deterministic=deterministic)
        chosen = self.drop_path if rate is None else rate
        if left_out(chosen) or deterministic:
            return y
        return drop_path(y, chosen, self.make_rng("dropout"))
