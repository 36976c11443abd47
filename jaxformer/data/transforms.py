"""Transforms of images on the host: `transform(example, rng) -> example`.

`example["image"]` is uint8 [H, W, C], C being 1 or 3. Boxes and masks move with it (`geometry.py`); other keys pass
through. A transform never writes into the array that it was given. All that is random comes from `rng`. `random` says
whether there is any.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import cv2
import numpy as np

from jaxformer.data.geometry import MIN_VISIBLE, follow, mirroring, scaling, window
from jaxformer.data.transform import Transform

Example = dict[str, Any]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST_EXACT,  # Pillow's; plain INTER_NEAREST is off by half a pixel
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}


@dataclass(frozen=True)
class Resize(Transform):
    """Resizes to a fixed height and width, whatever the aspect ratio."""

    size: int | tuple[int, int]
    """The side of the square, or (height, width), in pixels."""
    interpolation: Interpolation = "bilinear"
    """How pixels are interpolated where the image grows; where it shrinks, areas are averaged (except with
    "nearest"), which does not alias."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Resizes the image."""
        return resized(example, *pair(self.size), self.interpolation)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from size_problems(self.size)


@dataclass(frozen=True)
class CenterCrop(Transform):
    """Resizes the shorter side, keeping the aspect ratio, and cuts the middle out: the usual evaluation view."""

    size: int | tuple[int, int]
    """The side of the square that is cut out, or (height, width), in pixels."""
    shorter_side: int | None = None
    """The shorter side after resizing; None does not resize (a smaller image is padded with zeros). The usual
    value is size / 0.875: 256 for 224."""
    interpolation: Interpolation = "bilinear"
    """As in `Resize`."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Resizes and crops the image."""
        if self.shorter_side is not None:
            rows, columns = shorter_side_size(example["image"].shape, self.shorter_side)
            example = resized(example, rows, columns, self.interpolation)
        image = example["image"]
        height, width = pair(self.size)
        missing = [max(0, want - have) for want, have in zip((height, width), image.shape)]
        if any(missing):
            image = pad(image, [(m // 2, m - m // 2) for m in missing])
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        move = window(top - missing[0] // 2, left - missing[1] // 2, height, width)
        return example | follow(example, move) | {"image": image[top : top + height, left : left + width]}

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from size_problems(self.size)
        if self.shorter_side is not None and self.shorter_side < max(pair(self.size)):
            yield f"shorter_side={self.shorter_side}: smaller than size={self.size}; enlarge it"


@dataclass(frozen=True)
class RandomResizedCrop(Transform):
    """A random part of the image, resized: "Inception crop" (Szegedy et al. 2015, section 6).

    An area and an aspect ratio are drawn, up to ten times until the rectangle fits; else the largest centered
    rectangle of an allowed ratio is taken. This is torchvision's procedure.
    """

    size: int | tuple[int, int]
    """Side of the result, or (height, width), in pixels."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of the part, as a fraction of the image's."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of the part; drawn uniformly in its logarithm."""
    interpolation: Interpolation = "bilinear"
    """As in `Resize`."""
    min_visible: float = MIN_VISIBLE
    """Objects of whose box a smaller share is left are dropped."""
    random: ClassVar[bool] = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Crops and resizes the image."""
        image = example["image"]
        top, left, height, width = self.rectangle(image.shape[0], image.shape[1], rng)
        part = image[top : top + height, left : left + width]
        size = pair(self.size)
        move = window(top, left, height, width).then(scaling((height, width), size))
        moved = follow(example, move, self.min_visible)
        return example | moved | {"image": resize(part, *size, self.interpolation)}

    def rectangle(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, height, width) of a random part of an image of `height` x `width`."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        w = max(1, min(width, round(height * self.ratio[1])))
        h = max(1, min(height, round(width / self.ratio[0])))
        return (height - h) // 2, (width - w) // 2, h, w

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from size_problems(self.size)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            yield f"scale={self.scale}: must be two fractions of the area, 0 < smallest <= largest <= 1"
        if not 0 < self.ratio[0] <= self.ratio[1]:
            yield f"ratio={self.ratio}: must be two ratios, 0 < smallest <= largest"
        yield from share_problems("min_visible", self.min_visible)


@dataclass(frozen=True)
class Flip(Transform):
    """Mirrors the image left to right, or upside down."""

    probability: float = 0.5
    """How often."""
    direction: Literal["horizontal", "vertical"] = "horizontal"
    """ "horizontal" swaps left and right, "vertical" above and below."""
    random: ClassVar[bool] = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Perhaps flips the image."""
        if rng.random() >= self.probability:
            return example
        image, vertical = example["image"], self.direction == "vertical"
        flipped = image[::-1] if vertical else image[:, ::-1]
        return example | follow(example, mirroring(image.shape, vertical)) | {"image": flipped}

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from probability_problems(self.probability)


@dataclass(frozen=True)
class PadAndCrop(Transform):
    """Shifts the image by up to `padding` pixels each way: pads it on all sides, crops its size out at
    random.

    The standard augmentation for CIFAR (He et al. 2016, section 4.2: 4 pixels of zeros).
    """

    padding: int = 4
    """Pixels on each side."""
    probability: float = 1.0
    """How often; 1 is the standard."""
    mode: Literal["zeros", "reflect"] = "zeros"
    """What is outside: "zeros", or "reflect" (the image mirrored about its border pixels; not where there are
    boxes, since mirrored objects would have none)."""
    random: ClassVar[bool] = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Perhaps shifts the image."""
        if self.probability < 1 and rng.random() >= self.probability:
            return example
        image = example["image"]
        height, width = image.shape[:2]
        places = 2 * self.padding + 1
        down, right = divmod(int(rng.integers(places**2)), places)  # one draw is quicker than two
        down, right = down - self.padding, right - self.padding
        moved = follow(example, window(-down, -right, height, width))
        if self.mode == "zeros":
            return example | moved | {"image": shift(image, down, right)}
        if "boxes" in example:
            raise ValueError("mode='reflect' mirrors objects, which then have no boxes; take mode='zeros'")
        padded = pad(image, [(self.padding, self.padding)] * 2, self.mode)
        top, left = self.padding - down, self.padding - right
        return example | moved | {"image": padded[top : top + height, left : left + width]}

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from probability_problems(self.probability)
        if self.padding < 0:
            yield f"padding={self.padding}: must not be negative"


@dataclass(frozen=True)
class RandomErasing(Transform):
    """Overwrites a random rectangle (Zhong et al. 2020, algorithm 1; "RE-R" with noise, its best variant)."""

    probability: float = 0.25
    """How often."""
    area: tuple[float, float] = (0.02, 1 / 3)
    """Smallest and largest area of the rectangle, as a fraction of the image's."""
    ratio: tuple[float, float] = (0.3, 10 / 3)
    """Smallest and largest height / width of it; drawn uniformly in its logarithm, as timm does."""
    fill: Literal["noise", "zeros"] = "noise"
    """ "noise" (every value uniform in 0..255) or "zeros"."""
    random: ClassVar[bool] = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Perhaps erases a part of the image."""
        if rng.random() >= self.probability:
            return example
        image = example["image"]
        height, width, channels = image.shape
        for _ in range(10):
            area = height * width * rng.uniform(*self.area)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < h < height and 0 < w < width:
                top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
                image = image.copy()
                noise = self.fill == "noise"
                values = rng.integers(0, 256, (h, w, channels), np.uint8) if noise else 0
                image[top : top + h, left : left + w] = values
                break
        return example | {"image": image}

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from probability_problems(self.probability)
        if not 0 < self.area[0] <= self.area[1] <= 1:
            yield f"area={self.area}: must be two fractions of the area, 0 < smallest <= largest <= 1"
        if not 0 < self.ratio[0] <= self.ratio[1]:
            yield f"ratio={self.ratio}: must be two ratios, 0 < smallest <= largest"


def resized(example: Example, height: int, width: int, interpolation: Interpolation = "bilinear") -> Example:
    """An example whose picture has a new size, with boxes and mask."""
    image = example["image"]
    moved = follow(example, scaling(image.shape, (height, width)), 0)
    return example | moved | {"image": resize(image, height, width, interpolation)}


def shorter_side_size(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """(height, width) of a picture whose shorter side is resized to `side`, with the aspect ratio kept."""
    scale = side / min(shape[:2])
    return round(shape[0] * scale), round(shape[1] * scale)


def resize(image: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """Resizes uint8 [H, W, C] to [height, width, C]: averages areas where both sides shrink."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = cv2.INTER_AREA if shrinks and interpolation != "nearest" else INTERPOLATIONS[interpolation]
    resized = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method)
    return resized.reshape(height, width, image.shape[2])  # OpenCV drops a single channel


def shift(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Moves [H, W, C] down and to the right (or up and left, if negative); zeros come in."""
    height, width = image.shape[:2]
    down, right = int(np.clip(down, -height, height)), int(np.clip(right, -width, width))
    shifted = np.zeros(image.shape, image.dtype)
    part = image[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
    shifted[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = part
    return shifted


def pad(image: np.ndarray, sides: list[tuple[int, int]], mode: str = "zeros") -> np.ndarray:
    """Pads [H, W, C] by (above, below), (left, right)."""
    border = cv2.BORDER_CONSTANT if mode == "zeros" else cv2.BORDER_REFLECT_101
    (above, below), (left, right) = sides
    padded = cv2.copyMakeBorder(np.ascontiguousarray(image), above, below, left, right, border, value=0)
    return padded.reshape(*padded.shape[:2], image.shape[2])


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a size that may be one number."""
    return (size, size) if isinstance(size, int) else size


def size_problems(size: int | tuple[int, int]) -> Iterator[str]:
    """What is wrong with a size."""
    if min(pair(size)) < 1:
        yield f"size={size}: must be at least 1 pixel"


def probability_problems(probability: float) -> Iterator[str]:
    """What is wrong with a probability."""
    yield from share_problems("probability", probability)


def share_problems(field: str, share: float) -> Iterator[str]:
    """What is wrong with a field that is a share."""
    if not 0 <= share <= 1:
        yield f"{field}={share}: must be between 0 and 1"
