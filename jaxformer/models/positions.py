"""Positions of patches."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np


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
    table: jax.Array,
    grid: tuple[int, int],
    new_grid: tuple[int, int],
    prefix_tokens: int = 0,
    method: Literal["bilinear", "bicubic"] = "bilinear",
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
        raise ValueError(
            f"a position table [1, {length}, D] was expected for a {grid} grid, was given {table.shape}"
        )
    if grid == new_grid:
        return table
    prefix, patches = table[:, :prefix_tokens], table[:, prefix_tokens:]
    features = table.shape[-1]
    image = patches.reshape(1, *grid, features)
    resized = jax.image.resize(image, (1, *new_grid, features), method=method, antialias=True)
    return jnp.concatenate([prefix, resized.reshape(1, -1, features)], axis=1)
