"""Coordinate attention (Hou et al. 2021)."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.cnn_attention.gates import gated, squeezed
from jaxformer.models.conv import Conv
from jaxformer.models.problems import sizes

Dtype = Any


class CoordinateAttention(nn.Module):
    """Gates for each row and each column of every channel, by the means over the other direction (section 3.2)."""

    reduction: int = 32
    """Channels over hidden ones."""
    least: int = 8
    """Hidden channels, at least."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    where = "branch"

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        """Yields a line for every value that cannot be."""
        yield from sizes(self, "reduction", "least")

    @nn.compact
    def __call__(self, x: jax.Array, norm: Callable[..., nn.Module]) -> jax.Array:
        """Maps [B, H, W, C] to the same."""
        _, height, _, channels = x.shape
        conv = {"use_bias": True, "dtype": self.dtype, "param_dtype": self.param_dtype}
        rows, columns = squeezed(x, 2, self.dtype), squeezed(x, 1, self.dtype).swapaxes(1, 2)
        y = jnp.concatenate([rows, columns], axis=1)  # [B, H + W, 1, C]
        y = Conv(max(self.least, channels // self.reduction), 1, **conv, name="conv")(y)
        y = nn.hard_swish(norm(name="norm")(y))
        of_rows = Conv(channels, 1, **conv, name="conv_rows")(y[:, :height])
        of_columns = Conv(channels, 1, **conv, name="conv_columns")(y[:, height:]).swapaxes(1, 2)
        return gated(gated(x, of_rows), of_columns)
