"""Colour jitter, with Pillow's operations."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image, ImageEnhance

from jaxformer.data.transform import Transform
from jaxformer.data.transforms import Example


@dataclass(frozen=True)
class ColorJitter(Transform):
    """Random brightness, contrast, saturation and hue, in random order, as torchvision's ColorJitter does.

    A strength s draws a factor uniformly from [max(0, 1 - s), 1 + s]; 0 leaves that property alone. On grey
    images saturation and hue have no effect.
    """

    brightness: float = 0.4
    """Strength; factor 0 is black, 1 the image."""
    contrast: float = 0.4
    """Strength; factor 0 is the image's mean grey, 1 the image."""
    saturation: float = 0.4
    """Strength; factor 0 is the grey image, 1 the image."""
    hue: float = 0.0
    """Largest shift of the hue either way, as a fraction of the colour circle, at most 0.5."""
    probability: float = 1.0
    """How often anything is done at all."""
    random: ClassVar[bool] = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Perhaps changes the image's colours."""
        if self.probability < 1 and rng.random() >= self.probability:
            return example
        picture = to_picture(example["image"])
        for step in rng.permutation(4):
            picture = self._step(int(step), picture, rng)
        return example | {"image": to_array(picture)}

    def _step(self, step: int, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """One of the four changes; draws even where nothing changes, so that no strength moves another."""
        if step == 3:
            return shift_hue(picture, rng.uniform(-self.hue, self.hue))
        strength = (self.brightness, self.contrast, self.saturation)[step]
        factor = rng.uniform(max(0.0, 1 - strength), 1 + strength)
        if strength == 0:
            return picture
        enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[step]
        return enhance(picture).enhance(factor)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        for field in ("brightness", "contrast", "saturation"):
            if getattr(self, field) < 0:
                yield f"{field}={getattr(self, field)}: must not be negative"
        if not 0 <= self.hue <= 0.5:
            yield f"hue={self.hue}: must be between 0 and 0.5"
        if not 0 <= self.probability <= 1:
            yield f"probability={self.probability}: must be between 0 and 1"


def shift_hue(picture: Image.Image, shift: float) -> Image.Image:
    """Turns the hue by `shift` of the colour circle (in 256 steps)."""
    steps = int(shift * 255) % 256
    if picture.mode != "RGB" or steps == 0:
        return picture
    hue, saturation, value = picture.convert("HSV").split()
    hue = hue.point([(level + steps) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def to_picture(image: np.ndarray) -> Image.Image:
    """uint8 [H, W, C] as a Pillow image, "L" or "RGB"."""
    return Image.fromarray(np.ascontiguousarray(image[:, :, 0] if image.shape[2] == 1 else image))


def to_array(picture: Image.Image) -> np.ndarray:
    """A Pillow image as uint8 [H, W, C]."""
    image = np.array(picture)
    return image[:, :, None] if image.ndim == 2 else image
