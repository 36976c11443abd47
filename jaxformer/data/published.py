"""The view of an image that published models were evaluated with, to the pixel: resized by Pillow."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from jaxformer.config.fields import Pixels
from jaxformer.data import geometry
from jaxformer.data.decoding import MOST_PIXELS
from jaxformer.data.geometry import Interpolation, cut, follow
from jaxformer.data.transform import Example, Size, Transform, pair

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Published(Transform):
    """Resizes as Pillow does, with antialias, and cuts the middle out: the view of transformers and timm.

    `center_crop` does nearly the same and is several times as quick: it averages areas where an image shrinks.
    """

    size: Size | None = None
    """The side of the square that the model sees, or (height, width), in pixels; None cuts nothing out."""
    shorter_side: Pixels | None = None
    """The shorter side after resizing, of which the middle is cut out; None resizes all of the image to `size`."""
    longest: Pixels | None = None
    """The longer side is at most so long after resizing, and the shorter one as much shorter as it takes."""
    square: bool = False
    """Whether all of the image becomes a square of `shorter_side` first, whatever its aspect ratio."""
    corner: Literal["rounded", "down"] = "rounded"
    """The corner of the middle, where it lies between two pixels: the even one of the two, as torchvision and timm
    have it, or the upper left one, as transformers has it ("down")."""
    interpolation: Interpolation = "bilinear"
    """How pixels are interpolated."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Resizes and crops the image."""
        if self.shorter_side is None:
            return example if self.size is None else self.resized(example, *pair(self.size))
        rows, columns = example["image"].shape[:2]
        side, short = self.shorter_side, min(rows, columns)
        if self.longest is not None and side * max(rows, columns) / short > self.longest:
            side = max(1, round(self.longest * short / max(rows, columns)))
        rows, columns = int(side * rows / short), int(side * columns / short)  # as torchvision rounds
        if self.square:
            rows = columns = self.shorter_side
        example = self.resized(example, rows, columns)
        if self.size is None:
            return example
        height, width = pair(self.size)
        whole = round if self.corner == "rounded" else math.floor
        return cut(example, whole((rows - height) / 2), whole((columns - width) / 2), height, width)

    def resized(self, example: Example, height: int, width: int) -> Example:
        """The example with an image of this size."""
        image = example["image"]
        if height * width > MOST_PIXELS:
            size = f"{image.shape[0]}x{image.shape[1]} pixels would become {height}x{width}"
            raise ValueError(f"{size}, which are too many; leave the image out, or crop it first")
        pixels = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        new = np.asarray(pixels.resize((width, height), RESAMPLING[self.interpolation]))
        moved = follow(example, geometry.scaling(image.shape, (height, width)), 0)
        return example | moved | {"image": new.reshape(height, width, image.shape[2])}

    def problems(self) -> Iterator[str]:
        """Yields what cannot work together."""
        if self.size is None and self.shorter_side is None:
            yield "size: missing; give it, or shorter_side"
        elif (
            self.size is not None
            and self.shorter_side is not None
            and self.shorter_side < max(pair(self.size))
        ):
            yield f"shorter_side={self.shorter_side}: smaller than size={self.size}; enlarge it"
