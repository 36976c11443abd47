"""Stochastic depth."""

import jax
import jax.numpy as jnp

from jaxformer.models.base import Layer
from jaxformer.models.dropout import Dropout


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


class ResidualLayer(Layer, kw_only=True):
    """A block of residual branches, which training drops values of, and whole."""

    dropout: float = 0.0
    """Rate of dropout of each branch's result."""
    attention_dropout: float = 0.0
    """Rate of dropout of the attention weights."""
    drop_path: float = 0.0
    """Rate at which an example loses a branch; a block of a `Stack` is given it with its inputs."""

    def branch(self, y: jax.Array, deterministic: bool, rate: jax.Array | None = None) -> jax.Array:
        """A branch's result after dropout and stochastic depth; `rate` takes the place of `drop_path`."""
        y = Dropout(self.dropout)(y, deterministic=deterministic)
        chosen = self.drop_path if rate is None else rate
        if (rate is None and not self.drop_path) or deterministic:
            return y
        return drop_path(y, chosen, self.make_rng("dropout"))
