"""Changes of geometry, said once for a picture and all that goes with it: boxes, their labels, masks.

Coordinates are continuous, x to the right and y down: the pixel in row i and column j covers [j, j + 1) x [i, i + 1).
On the host an example has `image` uint8 [H, W, C]; in detection `boxes` float32 [N, 4] (x0, y0, x1, y1 in pixels) and
`labels` int32 [N]; in segmentation `segmentation` int32 [H, W], the class of each pixel, VOID where there is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

VOID = -1  # the class of pixels that have none: unlabelled, or from outside of the picture
MIN_VISIBLE = 0.1  # an object of whose box less than this share is left in the picture is dropped


@dataclass(frozen=True)
class Move:
    """Where the points of a new picture come from: x_old = a x + b y + c, y_old = d x + e y + f."""

    matrix: tuple[float, float, float, float, float, float]
    """(a, b, c, d, e, f), as Pillow's `transform` takes it."""
    size: tuple[int, int]
    """Height and width of the new picture."""

    def then(self, after: "Move") -> "Move":
        """This move and then another."""
        a, b, c, d, e, f = self.matrix
        p, q, r, s, t, u = after.matrix
        first, second = (a * p + b * s, a * q + b * t, a * r + b * u + c), (d * p + e * s, d * q + e * t)
        return Move((*first, *second, d * r + e * u + f), after.size)

    def inverse(self, size: tuple[int, int]) -> "Move":
        """The move back, to a picture of `size`."""
        a, b, c, d, e, f = self.matrix
        scale = 1 / (a * e - b * d)
        back = (e, -b, b * f - c * e, -d, a, c * d - a * f)
        return Move(tuple(value * scale for value in back), size)  # type: ignore[arg-type]


def scaling(old: tuple[int, ...], new: tuple[int, int]) -> Move:
    """A picture of height and width `old` resized to `new`."""
    return Move((old[1] / new[1], 0, 0, 0, old[0] / new[0], 0), new)


def window(top: int, left: int, height: int, width: int) -> Move:
    """A part of a picture; what of it lies outside comes in empty."""
    return Move((1, 0, left, 0, 1, top), (height, width))


def mirroring(size: tuple[int, ...], upside_down: bool = False) -> Move:
    """A picture of height and width `size` mirrored left to right, or upside down."""
    height, width = size[0], size[1]
    matrix = (1, 0, 0, 0, -1, height) if upside_down else (-1, 0, width, 0, 1, 0)
    return Move(matrix, (height, width))


def follow(example: Mapping[str, Any], move: Move, min_visible: float = MIN_VISIBLE) -> dict[str, Any]:
    """What goes with an example's picture when the picture makes a move: nothing for a plain picture.

    Args:
      example: with `boxes` and `labels`, or `segmentation`, or neither.
      move: what happens to the picture.
      min_visible: objects are dropped of whose box a smaller share is left, or nothing.

    Returns:
      The new values of these keys.
    """
    moved: dict[str, Any] = {}
    if "segmentation" in example:
        moved["segmentation"] = moved_mask(example["segmentation"], move)
    if "boxes" in example:
        boxes, kept = moved_boxes(example["boxes"], move, min_visible)
        moved |= {"boxes": boxes, "labels": example["labels"][kept]}
    return moved


def moved_mask(mask: np.ndarray, move: Move) -> np.ndarray:
    """int32 [H', W'] of [H, W]: each pixel has the class of the place that its middle comes from, VOID outside."""
    a, b, c, d, e, f = move.matrix
    x, y = np.arange(move.size[1])[None, :] + 0.5, np.arange(move.size[0])[:, None] + 0.5  # [1, W'], [H', 1]
    columns = np.floor(a * x + c if b == 0 else a * x + b * y + c).astype(np.intp)
    rows = np.floor(e * y + f if d == 0 else d * x + e * y + f).astype(np.intp)
    height, width = mask.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    taken = mask[rows.clip(0, height - 1), columns.clip(0, width - 1)].astype(np.int32, copy=False)
    return np.where(inside, taken, np.int32(VOID))


def moved_boxes(boxes: np.ndarray, move: Move, min_visible: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes around the moved ones, clipped to the new picture.

    Args:
      boxes: float32 [N, 4], x0, y0, x1, y1.
      move: what happens to the picture.
      min_visible: a box of which a smaller share is inside is dropped.

    Returns:
      float32 [M, 4], and bool [N]: which are left.
    """
    height, width = move.size
    a, b, c, d, e, f = move.inverse(move.size).matrix
    old = boxes.astype(np.float64).reshape(-1, 4)
    x, y = old[:, [0, 2, 0, 2]], old[:, [1, 1, 3, 3]]  # the corners, [N, 4]
    x, y = a * x + b * y + c, d * x + e * y + f
    around = np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], 1)
    clipped = np.clip(around, 0, [width, height, width, height])
    area, whole = areas(clipped), areas(around)
    kept = (area > 0) & (area >= min_visible * whole * (1 - 1e-9))
    return clipped[kept].astype(np.float32), kept


def areas(boxes: np.ndarray) -> np.ndarray:
    """[N] of [N, 4]."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
