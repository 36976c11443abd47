"""Bilinear interpolation of feature maps, as products with matrices."""

import jax
import jax.numpy as jnp
import numpy as np


def interpolation_matrix(old: int, new: int) -> np.ndarray:
    """float32 [new, old]: what each of `new` places takes of `old` ones that cover the same length.

    A place's middle is what counts, and beyond the first and the last middle their values hold: PyTorch's
    F.interpolate(mode="bilinear", align_corners=False). Nothing is averaged where there are fewer new places.
    """
    middles = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    distances = np.abs(middles[:, None] - np.arange(old)[None, :])
    return np.maximum(1 - distances, 0).astype(np.float32)


def size_of(x: jax.Array) -> tuple[int, int]:
    """Height and width of [B, H, W, C]."""
    return x.shape[1], x.shape[2]


def resized_maps(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Feature maps [B, h, w, C] as [B, H, W, C] of height and width `size`, in their dtype.

    Along the width first, where the other axis is still short, then along the height, where rows are long.
    """
    batch, height, width, channels = x.shape
    if width != size[1]:
        across = jnp.asarray(interpolation_matrix(width, size[1]), x.dtype)
        across = jnp.broadcast_to(across, (batch * height, *across.shape))
        x = jnp.matmul(across, x.reshape(batch * height, width, channels), precision="highest")
    if height != size[0]:
        down = jnp.asarray(interpolation_matrix(height, size[0]), x.dtype)
        down = jnp.broadcast_to(down, (batch, *down.shape))
        x = jnp.matmul(down, x.reshape(batch, height, size[1] * channels), precision="highest")
    return x.reshape(batch, *size, channels)
