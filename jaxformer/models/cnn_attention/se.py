"""Squeeze-and-excitation (Hu et al. 2018)."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.cnn_attention.gates import gated, squeezed
from jaxformer.models.mlp import Mlp
from jaxformer.models.problems import sizes

Dtype = Any


class SqueezeExcitation(nn.Module):
    """A gate for each channel, by an MLP of what all places have on average (section 3)."""

    reduction: int = 16
    """Channels over the MLP's hidden ones."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    where = "branch"

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        """Yields a line for every value that cannot be."""
        yield from sizes(self, "reduction")

    @nn.compact
    def __call__(self, x: jax.Array, norm: Callable[..., nn.Module]) -> jax.Array:
        """Maps [B, H, W, C] to the same."""
        hidden = max(1, x.shape[-1] // self.reduction)
        mlp = Mlp(hidden, "relu", dtype=self.dtype, param_dtype=self.param_dtype, name="mlp")
        return gated(x, mlp(squeezed(x, (1, 2), self.dtype)))
