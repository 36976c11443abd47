"""Stochastic depth."""

import jax
import jax.numpy as jnp


def drop_path(x: jax.Array, rate: jax.Array | float, key: jax.Array) -> jax.Array:
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
