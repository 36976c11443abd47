"""Where things are in a picture: sines and cosines of places on feature maps and of boxes."""

import math

import jax
import jax.numpy as jnp

from jaxformer.models.positions import sinusoidal

FULL_TURN = 2 * math.pi
EPSILON = 1e-6


def inside(
    extent: jax.Array, image_size: tuple[int, int], map_size: tuple[int, int]
) -> tuple[jax.Array, ...]:
    """Which rows and columns of a feature map are of the picture, and not of the padding below and at its right.

    A place of the map is taken for the pixel at its top left, as in DETR, which resizes masks to the nearest.

    Args:
      extent: int32 [B, 2], height and width of the picture in its frame.
      image_size: height and width of the frame.
      map_size: of the map, (h, w).

    Returns:
      bool [B, h] and [B, w].
    """
    pixels = (jnp.arange(n) * side // n for side, n in zip(image_size, map_size))
    return tuple(pixel[None, :] < extent[:, axis, None] for axis, pixel in enumerate(pixels))


def shares(seen: jax.Array) -> jax.Array:
    """The middle of each row (or column) as a share of those that are seen; float32 [B, n] of bool [B, n]."""
    count = jnp.maximum(jnp.sum(seen, axis=1, keepdims=True), 1)
    return (jnp.arange(seen.shape[1])[None, :] + 0.5) / count


def map_positions(rows: jax.Array, columns: jax.Array, features: int) -> jax.Array:
    """Positions on a feature map (Carion et al. 2020, section 3.2 and appendix A.4; Parmar et al. 2018).

    Args:
      rows: bool [B, h], which are of the picture; they are counted from 1, and the last is a full turn.
      columns: bool [B, w].
      features: D, a multiple of 4.

    Returns:
      float32 [B, h w, D]: sines and cosines of the row, then of the column. They mean nothing on padding.
    """
    half = features // 2

    def encoded(seen: jax.Array) -> jax.Array:
        counted = jnp.cumsum(seen.astype(jnp.float32), axis=1)
        return sinusoidal(counted / (counted[:, -1:] + EPSILON) * FULL_TURN, half)

    y, x = encoded(rows), encoded(columns)
    batch, height, width = rows.shape[0], rows.shape[1], columns.shape[1]
    y = jnp.broadcast_to(y[:, :, None], (batch, height, width, half))
    x = jnp.broadcast_to(x[:, None], (batch, height, width, half))
    return jnp.concatenate([y, x], axis=-1).reshape(batch, height * width, features)


def box_positions(boxes: jax.Array, features: int) -> jax.Array:
    """Sines and cosines of boxes (Liu et al. 2022, DAB-DETR, equation 8).

    Args:
      boxes: float32 [B, T, 4] in 0..1; 1 is a full turn.
      features: D, a multiple of 8; a quarter for each of the four numbers, in their order.

    Returns:
      float32 [B, T, D].
    """
    batch, tokens, _ = boxes.shape
    encoded = sinusoidal(boxes.reshape(batch, tokens * 4) * FULL_TURN, features // 4)
    return encoded.reshape(batch, tokens, features)
