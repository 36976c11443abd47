"""Coordinate attention (Hou et al. 2021)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.config.fields import PositiveInt
from jaxformer.models.cnn_attention.base import CnnAttention
from jaxformer.models.cnn_attention.gates import gated, squeezed
from jaxformer.models.conv import Conv


class CoordinateAttention(CnnAttention):
    """Gates for each row and each column of every channel, by the means over the other direction (section 3.2)."""

    reduction: PositiveInt = 32
    """Channels over hidden ones."""
    least: PositiveInt = 8
    """Hidden channels, at least."""

    @nn.compact
    def __call__(self, x: jax.Array, norm: Callable[..., nn.Module]) -> jax.Array:
        """Maps [B, H, W, C] to the same."""
        _, height, _, channels = x.shape
        conv = {
            "use_bias": True,
            **self.dtypes,
        }
        rows, columns = squeezed(x, 2, self.dtype), squeezed(x, 1, self.dtype).swapaxes(1, 2)
        y = jnp.concatenate([rows, columns], axis=1)  # [B, H + W, 1, C]
        y = Conv(max(self.least, channels // self.reduction), 1, **conv, name="conv")(y)
        y = nn.hard_swish(norm(name="norm")(y))
        of_rows = Conv(channels, 1, **conv, name="conv_rows")(y[:, :height])
        of_columns = Conv(channels, 1, **conv, name="conv_columns")(y[:, height:]).swapaxes(1, 2)
        return gated(gated(x, of_rows), of_columns)
