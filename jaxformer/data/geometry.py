"""Changes of geometry, for an image and all that goes with it at once: boxes, their labels, masks.

Coordinates are continuous, x to the right and y down: the pixel in row i and column j covers [j, j + 1) x [i, i + 1).
On the host an example has `image` uint8 [H, W, C]; in detection `boxes` float32 [N, 4] (x0, y0, x1, y1 in pixels) and
`labels` int32 [N]; in segmentation `segmentation` int32 [H, W], the class of each pixel, VOID where there is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from jaxformer.data.decoding import MOST_PIXELS
from jaxformer.data.transform import Example

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST_EXACT,  # Pillow's; plain INTER_NEAREST is off by half a pixel
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}
VOID = -1  # the class of pixels that have none: unlabelled, or outside of the image
MIN_VISIBLE = 0.1  # an object of whose box less than this share is left in the image is dropped


@dataclass(frozen=True)
class Move:
    """Where the points of a new image come from: x_old = a x + b y + c, y_old = d x + e y + f."""

    matrix: tuple[float, float, float, float, float, float]
    """(a, b, c, d, e, f), as Pillow's `transform` takes it."""
    size: tuple[int, int]
    """Height and width of the new image."""

    def then(self, after: "Move") -> "Move":
        """This move and then another."""
        a, b, c, d, e, f = self.matrix
        p, q, r, s, t, u = after.matrix
        first, second = (a * p + b * s, a * q + b * t, a * r + b * u + c), (d * p + e * s, d * q + e * t)
        return Move((*first, *second, d * r + e * u + f), after.size)

    def inverse(self, size: tuple[int, int]) -> "Move":
        """The move back, to an image of `size`."""
        a, b, c, d, e, f = self.matrix
        scale = 1 / (a * e - b * d)
        back = (e, -b, b * f - c * e, -d, a, c * d - a * f)
        return Move(tuple(value * scale for value in back), size)  # type: ignore[arg-type]


def scaling(old: tuple[int, ...], new: tuple[int, int]) -> Move:
    """An image of height and width `old` resized to `new`."""
    return Move((old[1] / new[1], 0, 0, 0, old[0] / new[0], 0), new)


def window(top: int, left: int, height: int, width: int) -> Move:
    """A part of an image; pixels outside of the image are empty."""
    return Move((1, 0, left, 0, 1, top), (height, width))


def mirroring(size: tuple[int, ...], upside_down: bool = False) -> Move:
    """An image of height and width `size` mirrored left to right, or upside down."""
    height, width = size[0], size[1]
    matrix = (1, 0, 0, 0, -1, height) if upside_down else (-1, 0, width, 0, 1, 0)
    return Move(matrix, (height, width))


def follow(example: Mapping[str, Any], move: Move, min_visible: float = MIN_VISIBLE) -> dict[str, Any]:
    """What goes with an example's image when the image makes a move: nothing for a plain image.

    Args:
      example: with `boxes` and `labels`, or `segmentation`, or neither.
      move: what happens to the image.
      min_visible: objects are dropped of whose box a smaller share is left, or nothing.

    Returns:
      The new values of these keys.
    """
    moved: dict[str, Any] = {}
    if "segmentation" in example:
        moved["segmentation"] = moved_mask(example["segmentation"], move)
    if "place" in example:  # the corners of the stored image, which may be outside now
        a, b, c, d, e, f = move.inverse(move.size).matrix
        x, y = example["place"][[0, 2]], example["place"][[1, 3]]
        moved["place"] = np.stack([a * x + b * y + c, d * x + e * y + f], 1).reshape(4)
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
    """Boxes around the moved ones, clipped to the new image.

    Args:
      boxes: float32 [N, 4], x0, y0, x1, y1.
      move: what happens to the image.
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


def resized(example: Example, height: int, width: int, interpolation: Interpolation = "bilinear") -> Example:
    """An example whose image has a new size, with its boxes and its mask; a ValueError says that it is too large."""
    image = example["image"]
    if height * width > MOST_PIXELS:
        old, new = f"{image.shape[0]}x{image.shape[1]} pixels", f"{height}x{width}"
        remedy = "leave the image out, or crop it first"
        raise ValueError(f"{old} would become {new}, which are too many; {remedy}")
    moved = follow(example, scaling(image.shape, (height, width)), 0)
    return example | moved | {"image": resize(image, height, width, interpolation)}


def resize(image: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """Resizes uint8 [H, W, C] to [height, width, C]: averages areas where both sides shrink."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = cv2.INTER_AREA if shrinks and interpolation != "nearest" else INTERPOLATIONS[interpolation]
    pixels = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method)
    return pixels.reshape(height, width, image.shape[2])  # OpenCV drops a single channel


def shorter_side_size(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Height and width of an image whose shorter side is resized to `side`, with the aspect ratio kept."""
    scale = side / min(shape[:2])
    return round(shape[0] * scale), round(shape[1] * scale)


def cut(
    example: Example, top: int, left: int, height: int, width: int, min_visible: float = MIN_VISIBLE
) -> Example:
    """The window of an example from (top, left) on; zeros, and no class, where it reaches out of the image."""
    image = example["image"]
    moved = follow(example, window(top, left, height, width), min_visible)
    first_row, first_column = max(top, 0), max(left, 0)
    part = image[first_row : max(top + height, 0), first_column : max(left + width, 0)]
    if part.shape[:2] != (height, width):
        part = framed(part, (height, width), first_row - top, first_column - left)
    return example | moved | {"image": part}


def framed(
    array: np.ndarray, size: tuple[int, int], top: int = 0, left: int = 0, fill: int = 0
) -> np.ndarray:
    """[H, W, ...] at (top, left) of a frame of `size` that is filled with `fill`."""
    frame = np.full((*size, *array.shape[2:]), fill, array.dtype)
    frame[top : top + array.shape[0], left : left + array.shape[1]] = array
    return frame


def letterbox(example: Example, size: tuple[int, int], enlarge: bool = True) -> Example:
    """Resizes an example to fit into a frame, with its aspect ratio kept, and pads it below and at the right.

    Args:
      example: with `image` uint8 [h, w, C] and what goes with it.
      size: height and width of the frame.
      enlarge: whether an image that is smaller than the frame is enlarged to fill it.

    Returns:
      The example with `image` uint8 [H, W, C], `extent` int32 [2], height and width of the image in it, and, if
      there was a mask, `segmentation` int32 [H, W], VOID on the padding. Boxes are in pixels of the frame.
    """
    height, width = example["image"].shape[:2]
    scale = min(size[0] / height, size[1] / width)
    if scale < 1 or enlarge:
        rows, columns = (max(1, min(s, round(side * scale))) for s, side in zip(size, (height, width)))
        example = resized(example, rows, columns)
    image = example["image"]
    made = {"image": framed(image, size), "extent": np.array(image.shape[:2], np.int32)}
    if "segmentation" in example:
        made["segmentation"] = framed(example["segmentation"].astype(np.int32, copy=False), size, fill=VOID)
    return example | made


def object_rows(example: Example, max_objects: int) -> Example:
    """The objects of a letterboxed example as rows of fixed number.

    Args:
      example: with `boxes` in pixels [n, 4], `labels` [n] and `extent`.
      max_objects: N; of more objects the largest stay, in their order.

    Returns:
      `boxes` float32 [N, 4], center x and y, width and height as shares of the extent, and `labels` int32 [N], -1
      where there is no object.
    """
    corners, labels = example["boxes"], example["labels"]
    if len(corners) > max_objects:
        sides = corners[:, 2:] - corners[:, :2]
        largest = np.sort(np.argsort(-sides.prod(1), kind="stable")[:max_objects])
        corners, labels = corners[largest], labels[largest]
    boxes, classes = np.zeros((max_objects, 4), np.float32), np.full(max_objects, -1, np.int32)
    shares = corners / np.tile(example["extent"][::-1], 2)[None]
    boxes[: len(corners), :2] = (shares[:, :2] + shares[:, 2:]) / 2
    boxes[: len(corners), 2:] = shares[:, 2:] - shares[:, :2]
    classes[: len(labels)] = labels
    return {"boxes": boxes, "labels": classes}
