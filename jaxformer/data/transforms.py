"""Transforms of images on the host: `transform(example, rng) -> example`.

`example["image"]` is uint8 [H, W, C], C being 1 or 3. Boxes and masks move with it (`geometry.py`); other keys pass
through. Those that are mostly for detection and segmentation are in `cropping.py`.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import cv2
import numpy as np

from jaxformer.config.fields import Fraction, Pixels, PositiveFloat, Share, at_most
from jaxformer.data import geometry
from jaxformer.data.geometry import MIN_VISIBLE, Interpolation, cut, follow, resized
from jaxformer.data.transform import Example, RandomTransform, Rising, Size, Transform, pair

logger = logging.getLogger("jaxformer")


@dataclass(frozen=True)
class Resize(Transform):
    """Resizes to a fixed height and width, whatever the aspect ratio."""

    size: Size
    """The side of the square, or (height, width), in pixels."""
    interpolation: Interpolation = "bilinear"
    """How pixels are interpolated where the image grows; where it shrinks, areas are averaged (except with
    "nearest"), which does not alias."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Resizes the image."""
        return resized(example, *pair(self.size), self.interpolation)


@dataclass(frozen=True)
class CenterCrop(Transform):
    """Resizes the shorter side, keeping the aspect ratio, and cuts the middle out: the usual evaluation view."""

    size: Size
    """The side of the square that is cut out, or (height, width), in pixels."""
    shorter_side: Pixels | None = None
    """The shorter side after resizing; None does not resize (a smaller image is padded with zeros). The usual
    value is size / 0.875: 256 for 224."""
    interpolation: Interpolation = "bilinear"
    """As in `Resize`."""

    def check(self, example: Example) -> None:
        """Says that images are cut out of nothing where they are smaller than the window."""
        sides, window = example["image"].shape[:2], pair(self.size)
        if self.shorter_side is None and (sides[0] < window[0] or sides[1] < window[1]):
            images, cut_out = ("x".join(map(str, size)) for size in (sides, window))
            logger.warning(
                "center_crop: images of %s pixels are smaller than the window of %s, and stand in zeros; set "
                "shorter_side=%d to resize them first",
                *(images, cut_out, max(window)),
            )

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Resizes and crops the image."""
        if self.shorter_side is not None:
            size = geometry.shorter_side_size(example["image"].shape, self.shorter_side)
            example = resized(example, *size, self.interpolation)
        height, width = pair(self.size)
        rows, columns = example["image"].shape[:2]
        return cut(example, int((rows - height) / 2), int((columns - width) / 2), height, width)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work together."""
        if self.shorter_side is not None and self.shorter_side < max(pair(self.size)):
            yield f"shorter_side={self.shorter_side}: smaller than size={self.size}; enlarge it"


@dataclass(frozen=True)
class RandomResizedCrop(RandomTransform):
    """A random part of the image, resized: "Inception crop" (Szegedy et al. 2015, section 6).

    An area and an aspect ratio are drawn, up to ten times until the rectangle fits; else the largest centered
    rectangle of an allowed ratio is taken. This is torchvision's procedure.
    """

    size: Size
    """Side of the result, or (height, width), in pixels."""
    scale: Rising[Share] = (0.08, 1.0)
    """Smallest and largest area of the part, as a fraction of the image's."""
    ratio: Rising[PositiveFloat] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of the part; drawn uniformly in its logarithm."""
    interpolation: Interpolation = "bilinear"
    """As in `Resize`."""
    min_visible: Fraction = MIN_VISIBLE
    """Objects are dropped if a smaller share of their box is left in the image."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Crops and resizes the image."""
        image = example["image"]
        top, left, height, width = self.rectangle(image.shape[0], image.shape[1], rng)
        part = image[top : top + height, left : left + width]
        size = pair(self.size)
        move = geometry.window(top, left, height, width).then(geometry.scaling((height, width), size))
        moved = follow(example, move, self.min_visible)
        return example | moved | {"image": geometry.resize(part, *size, self.interpolation)}

    def rectangle(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, height, width) of a random part of an image of `height` x `width`."""
        for w, h in random_sides(height * width, self.scale, self.ratio, rng):
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        w = max(1, min(width, round(height * self.ratio[1])))
        h = max(1, min(height, round(width / self.ratio[0])))
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class Flip(RandomTransform):
    """Mirrors the image left to right, or upside down."""

    probability: Fraction = 0.5
    """The probability that it is applied."""
    direction: Literal["horizontal", "vertical"] = "horizontal"
    """ "horizontal" swaps left and right, "vertical" above and below."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Perhaps flips the image."""
        if rng.random() >= self.probability:
            return example
        image, vertical = example["image"], self.direction == "vertical"
        flipped = image[::-1] if vertical else image[:, ::-1]
        return example | follow(example, geometry.mirroring(image.shape, vertical)) | {"image": flipped}


@dataclass(frozen=True)
class PadAndCrop(RandomTransform):
    """Shifts the image by up to `padding` pixels each way: pads it on all sides, crops its size out at random.

    The standard augmentation for CIFAR (He et al. 2016, section 4.2: 4 pixels of zeros).
    """

    padding: Annotated[int, at_most(2**15, 0)] = 4
    """Pixels on each side."""
    probability: Fraction = 1.0
    """The probability that it is applied; 1 is the standard."""
    mode: Literal["zeros", "reflect"] = "zeros"
    """The pixels outside of the image: "zeros", or "reflect" (the image mirrored about its border pixels; not where
    there are boxes, since mirrored objects would have none)."""

    def check(self, example: Example) -> None:
        """Refuses to shift all of an image away."""
        if self.padding >= min(example["image"].shape[:2]):
            size = "x".join(map(str, example["image"].shape[:2]))
            raise ValueError(f"padding={self.padding}: expected less than the image's sides, {size} pixels")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Perhaps shifts the image."""
        if self.probability < 1 and rng.random() >= self.probability:
            return example
        image = example["image"]
        (height, width), by = image.shape[:2], self.padding
        top, left = divmod(int(rng.integers((2 * by + 1) ** 2)), 2 * by + 1)  # one draw is quicker than two
        moved = cut(example, by - top, by - left, height, width)
        if self.mode == "zeros":
            return moved
        if "boxes" in example:
            raise ValueError("mode='reflect' mirrors objects, which then have no boxes; take mode='zeros'")
        padded = cv2.copyMakeBorder(np.ascontiguousarray(image), by, by, by, by, cv2.BORDER_REFLECT_101)
        top, left = 2 * by - top, 2 * by - left
        reflected = padded[top : top + height, left : left + width]
        return moved | {"image": reflected.reshape(image.shape)}  # OpenCV drops a single channel


@dataclass(frozen=True)
class RandomErasing(RandomTransform):
    """Overwrites a random rectangle (Zhong et al. 2020, algorithm 1; "RE-R" with noise, its best variant)."""

    probability: Fraction = 0.25
    """The probability that it is applied."""
    area: Rising[Share] = (0.02, 1 / 3)
    """Smallest and largest area of the rectangle, as a fraction of the image's."""
    ratio: Rising[PositiveFloat] = (0.3, 10 / 3)
    """Smallest and largest height / width of it; drawn uniformly in its logarithm, as timm does."""
    fill: Literal["noise", "zeros"] = "noise"
    """ "noise" (every value uniform in 0..255) or "zeros"."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Perhaps erases a part of the image."""
        if rng.random() >= self.probability:
            return example
        image = example["image"]
        height, width, channels = image.shape
        for h, w in random_sides(height * width, self.area, self.ratio, rng):
            if 0 < h < height and 0 < w < width:
                top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
                noise = rng.integers(0, 256, (h, w, channels), np.uint8) if self.fill == "noise" else 0
                image = image.copy()
                image[top : top + h, left : left + w] = noise
                break
        return example | {"image": image}


def random_sides(
    area: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """Yields the two sides of ten random rectangles.

    Args:
      area: in pixels.
      scale: the smallest and the largest share of it that a rectangle has.
      ratio: the smallest and the largest first side / second side, drawn uniformly in its logarithm.
      rng: draws each rectangle when it is asked for.
    """
    low, high = map(math.log, ratio)
    for _ in range(10):
        own = area * rng.uniform(*scale)
        first_to_second = math.exp(rng.uniform(low, high))
        yield round(math.sqrt(own * first_to_second)), round(math.sqrt(own / first_to_second))
