"""Efficient channel attention (Wang et al. 2020, ECA-Net)."""

import math
from collections.abc import Callable

import jax
from flax import linen as nn

from jaxformer.config.fields import PositiveFloat
from jaxformer.models.cnn_attention.base import CnnAttention
from jaxformer.models.cnn_attention.gates import gated, squeezed
from jaxformer.models.conv import Conv


def kernel_size(channels: int, gamma: float, b: float) -> int:
    """How many neighbouring channels a gate sees: the odd number for so many channels (equation 12)."""
    size = int(abs((math.log2(channels) + b) / gamma))
    return size if size % 2 else size + 1


class EfficientChannelAttention(CnnAttention):
    """A gate for each channel, by a convolution over channels of what all places have on average (section 3.2)."""

    gamma: PositiveFloat = 2.0
    """Of `kernel_size`."""
    b: float = 1.0
    """Of `kernel_size`."""

    @nn.compact
    def __call__(self, x: jax.Array, norm: Callable[..., nn.Module]) -> jax.Array:
        """Maps [B, H, W, C] to the same."""
        size = kernel_size(x.shape[-1], self.gamma, self.b)
        conv = Conv(1, (size, 1), **self.dtypes, name="conv")
        means = squeezed(x, (1, 2), self.dtype).reshape(x.shape[0], -1, 1, 1)  # channels as a column
        return gated(x, conv(means).reshape(x.shape[0], 1, 1, -1))
