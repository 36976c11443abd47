"""Positions: of tokens, on grids, in images and of boxes; and biases of attention by distance."""

import math
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.models.base import Layer
from jaxformer.models.token_layout import Grid

FULL_TURN = 2 * math.pi
Method: TypeAlias = Literal["bilinear", "bicubic"]


def token_positions(tokens: jax.Array, token_mask: jax.Array | None) -> jax.Array:
    """Positions of tokens [B, T] from 0 on: int32 [1, T], or [B, T] where padding is left out."""
    if token_mask is None:
        return jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    return jnp.maximum(jnp.cumsum(token_mask, axis=1, dtype=jnp.int32) - 1, 0)


def for_rows(x: jax.Array, like: jax.Array) -> jax.Array:
    """[1 or B, T, D] as [B, T, D]."""
    return jnp.broadcast_to(x, like.shape)


def sinusoidal(positions: jax.Array, features: int, temperature: float = 10_000.0) -> jax.Array:
    """Sines and cosines of positions (Vaswani et al. 2017, section 3.5), feature by feature in turn.

    Args:
      positions: int [B, T].
      features: D, even.
      temperature: the longest wavelength over 2 pi.

    Returns:
      float32 [B, T, D]: sin(p / temperature^(2 i / D)) at 2 i, its cosine at 2 i + 1.
    """
    frequencies = jnp.asarray(temperature ** (-np.arange(0, features, 2) / features), jnp.float32)
    angles = positions.astype(jnp.float32)[..., None] * frequencies[None, None, :]
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(*positions.shape, features)


def alibi_slopes(num_heads: int) -> np.ndarray:
    """The slope of each head, float32 [H] (Press et al. 2022, section 3): 2^(-8 i / H) for a power of two H.

    For other numbers, those of the next smaller power of two, then every other one of the next larger, as in
    the paper's code.
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = 2.0 ** (-8 * np.arange(1, power + 1) / power)
    between = 2.0 ** (-8 * np.arange(1, 2 * power + 1, 2) / (2 * power))
    return np.concatenate([slopes, between[: num_heads - power]]).astype(np.float32)


def alibi_bias(queries: jax.Array, keys: jax.Array, num_heads: int) -> jax.Array:
    """Attention with linear biases (Press et al. 2022): -slope times the distance.

    Args:
      queries: positions, int [B, T].
      keys: positions, int [B, S].
      num_heads: H.

    Returns:
      float32 [B, H, T, S].
    """
    distance = jnp.abs(queries[:, :, None] - keys[:, None, :]).astype(jnp.float32)[:, None]
    slopes = jnp.asarray(alibi_slopes(num_heads))[None, :, None, None]
    return -slopes * distance


class RelativeBias(Layer):
    """T5's bias of attention for each head and bucket of distances (Raffel et al. 2020, section 2.1)."""

    num_heads: int
    """Number of heads H."""
    bidirectional: bool
    """Whether half of the buckets are for keys behind the query; otherwise those share the first bucket."""
    num_buckets: int = 32
    """Number of buckets; half of those of a direction are for single distances, the rest grow as logarithms."""
    max_distance: int = 128
    """The distance from which on all share the last bucket."""

    @nn.compact
    def __call__(self, queries: jax.Array, keys: jax.Array) -> jax.Array:
        """The bias float32 [B, H, T, S] for positions int [B, T] and [B, S]."""
        shape = (self.num_buckets, self.num_heads)
        table = self.param("embedding", nn.initializers.normal(1.0), shape, self.param_dtype)
        buckets = self.buckets(keys[:, None, :] - queries[:, :, None])  # [B, T, S]
        # As a product with ones: the gradient of a lookup adds up row by row, which is slow.
        one_hot = jax.nn.one_hot(buckets, self.num_buckets, dtype=jnp.float32)
        return jnp.einsum("btsn,nh->bhts", one_hot, table.astype(jnp.float32))

    def buckets(self, distance: jax.Array) -> jax.Array:
        """The bucket of each distance, key position minus query position."""
        count, first = self.num_buckets, jnp.zeros_like(distance)
        if self.bidirectional:
            count //= 2
            first = jnp.where(distance > 0, count, 0)
            distance = jnp.abs(distance)
        else:
            distance = jnp.maximum(-distance, 0)
        exact = count // 2
        logarithm = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact)
        grown = exact + (logarithm / math.log(self.max_distance / exact) * (count - exact)).astype(jnp.int32)
        return first + jnp.where(distance < exact, distance, jnp.minimum(grown, count - 1))


def sincos2d(height: int, width: int, features: int, temperature: float = 10_000.0) -> np.ndarray:
    """Sine-cosine positions on a grid, as in big_vision.

    In MoCo v3 (Chen et al. 2021), where they come from, the D / 4 wavelengths end one step before the longest.

    Args:
      height: rows of the grid.
      width: columns of the grid.
      features: D, a multiple of 4 from 8 on: sines and cosines of the column, then of the row.
      temperature: the longest wavelength over 2 pi.

    Returns:
      float32 [1, height * width, D].
    """
    rows, columns = np.mgrid[:height, :width]
    frequencies = 1.0 / temperature ** (np.arange(features // 4) / (features // 4 - 1))
    x = columns.reshape(-1, 1) * frequencies[None, :]
    y = rows.reshape(-1, 1) * frequencies[None, :]
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)[None].astype(np.float32)


def resize_position_table(
    table: jax.Array, grid: Grid, new_grid: Grid, prefix_tokens: int = 0, method: Method = "bilinear"
) -> jax.Array:
    """A learned position table for images of another resolution (Dosovitskiy et al. 2021, section 3.2).

    Args:
      table: [1, prefix_tokens + grid[0] * grid[1], D].
      grid: rows and columns of patches that the table is for.
      new_grid: those that it is to be for.
      prefix_tokens: leading positions (the class token's) that are kept as they are.
      method: of interpolation, antialiased where the grid shrinks; "bicubic" is timm's.

    Returns:
      [1, prefix_tokens + new_grid[0] * new_grid[1], D].

    Raises:
      ValueError: the table has another length.
    """
    length = prefix_tokens + grid[0] * grid[1]
    if table.ndim != 3 or table.shape[0] != 1 or table.shape[1] != length:
        expected = f"a position table [1, {length}, D] was expected for a {grid} grid"
        raise ValueError(f"{expected}, was given {table.shape}")
    if grid == new_grid:
        return table
    prefix, patches = table[:, :prefix_tokens], table[:, prefix_tokens:]
    features = table.shape[-1]
    shape = (1, *new_grid, features)
    resized = jax.image.resize(patches.reshape(1, *grid, features), shape, method=method, antialias=True)
    return jnp.concatenate([prefix, resized.reshape(1, -1, features)], axis=1)


def inside(extent: jax.Array, image_size: Grid, map_size: Grid) -> tuple[jax.Array, jax.Array]:
    """Which rows and columns of a feature map are of the image, and not of the padding below and at its right.

    A place of the map is taken for the pixel at its top left, as in DETR, which resizes masks to the nearest.

    Args:
      extent: int32 [B, 2], height and width of the image in its frame.
      image_size: height and width of the frame.
      map_size: height and width of the map, (h, w).

    Returns:
      bool [B, h] and [B, w].
    """
    y, x = (jnp.arange(n) * side // n for side, n in zip(image_size, map_size))
    return y[None, :] < extent[:, 0, None], x[None, :] < extent[:, 1, None]


def over_map(rows: jax.Array, columns: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What rows [B, h, ...] and columns [B, w, ...] have, for each place of their map, row by row: [B, h w, ...]."""
    tiles = (1, rows.shape[1]) + (1,) * (columns.ndim - 2)
    return jnp.repeat(rows, columns.shape[1], axis=1), jnp.tile(columns, tiles)


def cells(rows: jax.Array, columns: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The places of a feature map as shares of the image.

    Args:
      rows: bool [B, h], which are of the image.
      columns: bool [B, w].

    Returns:
      Of each place, row by row: whether it is of the image, bool [B, h w]; its middle's x and y, and its width and
      height, float32 [B, h w, 2].
    """

    def shares(seen: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The middles and the sizes of rows or columns, float32 [B, n] each."""
        count = jnp.maximum(jnp.sum(seen, axis=1, keepdims=True), 1)
        return (jnp.arange(seen.shape[1]) + 0.5)[None] / count, jnp.broadcast_to(1 / count, seen.shape)

    (down, tall), (across, wide) = shares(rows), shares(columns)
    places, sizes = (jnp.stack(over_map(*pair)[::-1], axis=-1) for pair in ((down, across), (tall, wide)))
    return jnp.logical_and(*over_map(rows, columns)), places, sizes


def map_positions(rows: jax.Array, columns: jax.Array, features: int) -> jax.Array:
    """Positions on a feature map (Carion et al. 2020, section 3.2 and appendix A.4; Parmar et al. 2018).

    Args:
      rows: bool [B, h], which are of the image; they are counted from 1, and the last is a full turn.
      columns: bool [B, w].
      features: D, a multiple of 4.

    Returns:
      float32 [B, h w, D]: sines and cosines of the row, then of the column. They mean nothing on padding.
    """

    def encoded(seen: jax.Array) -> jax.Array:
        counted = jnp.cumsum(seen.astype(jnp.float32), axis=1)
        return sinusoidal(counted / (counted[:, -1:] + 1e-6) * FULL_TURN, features // 2)

    return jnp.concatenate(over_map(encoded(rows), encoded(columns)), axis=-1)


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
