"""Parameters for another resolution, patch or vocabulary than the source's: tables of positions, kernels of patches,
tables of tokens. Everything else has to have the shape that it has there.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

Shape = tuple[int, ...]
Fit = Callable[[np.ndarray], np.ndarray]
# Rows of a table of positions in front of the grid: of a class token and a distillation token.
PREFIXES = 1, 0, 2


def cubic(x: np.ndarray, a: float) -> np.ndarray:
    """The kernel of cubic convolution (Keys 1981) with its free number, at distances `x`."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resize_matrix(old: int, new: int, antialias: bool = True) -> np.ndarray:
    """float64 [new, old]: what each of `new` places takes of `old` ones that cover the same length, bicubically.

    As PyTorch's F.interpolate(mode="bicubic", align_corners=False), whose kernel has another number without antialias.
    """
    scale = old / new
    middles = (np.arange(new) + 0.5) * scale - 0.5
    if antialias:
        wide = max(scale, 1.0)
        weights = cubic((np.arange(old)[None, :] - middles[:, None]) / wide, -0.5)
        return weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((new, old))
    for step in range(-1, 3):
        places = np.floor(middles).astype(int) + step
        np.add.at(matrix, (np.arange(new), places.clip(0, old - 1)), cubic(middles - places, -0.75))
    return matrix


def resized_positions(table: np.ndarray, rows: int, prefix: int, antialias: bool) -> np.ndarray:
    """A table of positions [1, prefix + N, D] for a square grid, as one of [1, rows, D]."""
    old, new = (math.isqrt(count - prefix) for count in (table.shape[1], rows))
    matrix = resize_matrix(old, new, antialias)
    grid = table[0, prefix:].astype(np.float64).reshape(old, old, -1)
    grid = np.einsum("yY,xX,YXd->yxd", matrix, matrix, grid)
    return np.concatenate([table[:, :prefix], grid.reshape(1, new * new, -1)], axis=1)


def resized_patches(kernel: np.ndarray, size: int) -> np.ndarray:
    """A kernel of patches [p, p, C, D] as one of [size, size, C, D] (Beyer et al. 2023, FlexiViT, section 3.4).

    The pseudo-inverse of what resizes a patch: a resized patch gives the same tokens, where that can be.
    """
    matrix = resize_matrix(len(kernel), size)
    inverse = np.linalg.pinv(np.kron(matrix, matrix)).T  # [size^2, p^2]
    flat = kernel.reshape(len(kernel) ** 2, -1).astype(np.float64)
    return (inverse @ flat).reshape(size, size, *kernel.shape[2:])


def grown(table: np.ndarray, rows: int) -> np.ndarray:
    """A table of tokens [V, D] with further rows, drawn around the mean as widely as those that are there.

    As in Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models", with its own widths alone.
    """
    table = table.astype(np.float32)
    drawn = np.random.default_rng(0).normal(size=(rows - len(table), table.shape[1]))
    new = table.mean(0, keepdims=True) + drawn * table.std(0, keepdims=True)
    return np.concatenate([table, new.astype(np.float32)])


def square(count: int) -> bool:
    """Whether so many places can be a square grid."""
    return count > 0 and math.isqrt(count) ** 2 == count


def fit(path: str, old: Shape, new: Shape, antialias: bool) -> Fit | None:
    """What makes a parameter of shape `new` of the source's; None if nothing does.

    Args:
      path: of our parameter.
      old: the shape that it has in the source, as ours.
      new: the shape that the model needs.
      antialias: as `resize_matrix` takes it.
    """
    if len(old) != len(new):
        return None
    path = path.removeprefix("image/").removeprefix("text/")  # of a model of two towers
    if path == "position_embedding" and len(new) == 3 and old[2] == new[2]:
        prefix = next((n for n in PREFIXES if square(old[1] - n) and square(new[1] - n)), None)
        return (
            None
            if prefix is None
            else partial(resized_positions, rows=new[1], prefix=prefix, antialias=antialias)
        )
    if path == "patch_embedding/kernel" and old[2:] == new[2:] and len({*old[:2]}) == len({*new[:2]}) == 1:
        return partial(resized_patches, size=new[0])
    if path == "token_embedding/embedding" and old[1] == new[1] and old[0] < new[0]:
        return partial(grown, rows=new[0])
    return None
