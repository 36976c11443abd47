"""Changes of colours, with Pillow's operations; nothing moves, so boxes and masks stay."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from PIL import Image, ImageFilter

from jaxformer.config.fields import Fraction, NonNegativeFloat, between
from jaxformer.data.operations import PIXELWISE, solarize, to_array, to_pillow
from jaxformer.data.transform import Example, RandomTransform, Rising

THRESHOLD = 128  # 3-Augment inverts values from this one on


@dataclass(frozen=True)
class ColorJitter(RandomTransform):
    """Random brightness, contrast, saturation and hue, in random order, as torchvision's ColorJitter does.

    A strength s draws a factor uniformly from [max(0, 1 - s), 1 + s]; 0 leaves that property alone. On grey
    images saturation and hue have no effect.
    """

    brightness: NonNegativeFloat = 0.4
    """Strength; factor 0 is black, 1 the image."""
    contrast: NonNegativeFloat = 0.4
    """Strength; factor 0 is the image's mean grey, 1 the image."""
    saturation: NonNegativeFloat = 0.4
    """Strength; factor 0 is the grey image, 1 the image."""
    hue: Annotated[float, between(0, 0.5)] = 0.0
    """Largest shift of the hue either way, as a fraction of the colour circle."""
    probability: Fraction = 1.0
    """How often anything is done at all."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Perhaps changes the image's colours."""
        if self.probability < 1 and rng.random() >= self.probability:
            return example
        picture = to_pillow(example["image"])
        for step in rng.permutation(4):
            picture = self._step(int(step), picture, rng)
        return example | {"image": to_array(picture)}

    def _step(self, step: int, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """One of the four changes; draws even where nothing changes, so that no strength moves another."""
        if step == 3:
            return shift_hue(picture, rng.uniform(-self.hue, self.hue))
        strength = (self.brightness, self.contrast, self.saturation)[step]
        factor = rng.uniform(max(0.0, 1 - strength), 1 + strength)
        return PIXELWISE[("brightness", "contrast", "color")[step]](picture, factor) if strength else picture


@dataclass(frozen=True)
class ThreeAugment(RandomTransform):
    """Little augmentation for much training: 3-Augment (Touvron et al. 2022, "DeiT III", section 3).

    Makes an image grey, solarizes it or blurs it, one of the three drawn uniformly, and jitters its colours. DeiT III
    flips and crops before: transforms of their own.
    """

    jitter: NonNegativeFloat = 0.3
    """Strength of brightness, contrast and saturation, see `ColorJitter`; 0 leaves the colours alone."""
    radius: Rising[NonNegativeFloat] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels; the paper's, for images of 224."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments the image."""
        picture = to_pillow(example["image"])
        change, radius = int(rng.integers(3)), rng.uniform(*self.radius)
        if change == 0:
            picture = picture.convert("L").convert(picture.mode)
        elif change == 1:
            picture = solarize(picture, THRESHOLD)
        else:
            picture = picture.filter(ImageFilter.GaussianBlur(radius))
        example = example | {"image": to_array(picture)}
        return ColorJitter(self.jitter, self.jitter, self.jitter)(example, rng) if self.jitter else example


def shift_hue(picture: Image.Image, shift: float) -> Image.Image:
    """Turns the hue by `shift` of the colour circle (in 256 steps)."""
    steps = int(shift * 255) % 256
    if picture.mode != "RGB" or steps == 0:
        return picture
    hue, saturation, value = picture.convert("HSV").split()
    hue = hue.point([(level + steps) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
