"""Patch embedding."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.dense import flat, product

Dtype = Any


def to_patches(image: jax.Array, size: int) -> jax.Array:
    """Cuts [B, H, W, C] into patches, row by row: [B, H/size * W/size, size * size * C]."""
    batch, height, width, channels = image.shape
    grid = image.reshape(batch, height // size, size, width // size, size, channels)
    return grid.swapaxes(2, 3).reshape(batch, (height // size) * (width // size), size * size * channels)


def patch_problems(image_size: int, patch_size: int) -> Iterator[str]:
    """Yields a line if patches do not tile the image."""
    if image_size < 1:
        yield f"image_size={image_size}: expected at least 1"
    elif patch_size < 1 or image_size % patch_size:
        divisors = [d for d in range(1, image_size) if image_size % d == 0]
        near = min(divisors, key=lambda d: abs(d - patch_size), default=1)
        yield f"patch_size={patch_size} does not divide image_size={image_size}: use one that does, as {near}"


class PatchEmbedding(nn.Module):
    """A linear map of each patch (Dosovitskiy et al. 2021, equation 1).

    The kernel [size, size, C, D] is that of a convolution with stride `size`; it is applied as a reshape and
    one product, which is twice as fast on CPUs.

    Attributes:
      patch_size: height and width of a patch.
      features: D.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    patch_size: int
    features: int
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, T, D]."""
        shape = (self.patch_size, self.patch_size, image.shape[-1], self.features)
        kernel = self.param("kernel", flat(nn.initializers.lecun_normal(), 3), shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        patches = to_patches(image.astype(self.dtype), self.patch_size)
        return product(patches, kernel.reshape(-1, self.features), bias, self.dtype)
