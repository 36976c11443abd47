"""Convolutions."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.dense import product

Dtype = Any
# Variance 2 / fan_out, as in PyTorch's ResNets (He et al. 2015).
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
    """A convolution without a bias, padded on both sides alike; NHWC.

    Attributes:
      features: output channels.
      kernel_size: height and width of the kernel, odd.
      stride: of both directions.
      dtype: of the computation.
      param_dtype: of the kernel [h, w, C, features].
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
        size = self.kernel_size
        kernel = self.param("kernel", he_fan_out, (size, size, x.shape[-1], self.features), self.param_dtype)
        if size == 1:  # a product: quicker than a convolution on CPUs
            return product(x[:, :: self.stride, :: self.stride], kernel[0, 0], None, self.dtype)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        pad = [(size // 2, size // 2)] * 2
        dimensions = ("NHWC", "HWIO", "NHWC")
        strides = (self.stride, self.stride)
        return jax.lax.conv_general_dilated(x, kernel, strides, pad, dimension_numbers=dimensions)
