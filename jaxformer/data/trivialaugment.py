"""TrivialAugment (Mueller and Hutter 2021): one operation at a random strength, and nothing to tune."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxformer.data.operations import NONE, Operation, Range, Resample, perform
from jaxformer.data.transform import Transform
from jaxformer.data.transforms import Example

STRENGTHS = 31

# torchvision/transforms/autoaugment.py, TrivialAugmentWide._augmentation_space: the paper's "wide" space, but that
# enhancements are mirrored about 1. Translations are in pixels, whatever the picture's size.
WIDE: Mapping[str, Range] = {
    "identity": NONE,
    "autocontrast": NONE,
    "equalize": NONE,
    "rotate": Range(0, 135, signed=True),
    "posterize": Range(8, 2, whole=round),
    "solarize": Range(255, 0),
    "color": Range(1, 1.99, signed=True),
    "contrast": Range(1, 1.99, signed=True),
    "brightness": Range(1, 1.99, signed=True),
    "sharpness": Range(1, 1.99, signed=True),
    "shear_x": Range(0, 0.99, signed=True),
    "shear_y": Range(0, 0.99, signed=True),
    "translate_x": Range(0, 32, signed=True, whole=int),
    "translate_y": Range(0, 32, signed=True, whole=int),
}


@dataclass(frozen=True)
class TrivialAugment(Transform):
    """Applies one operation at one strength, both drawn uniformly: "TrivialAugment Wide".

    What operations uncover is grey 128, and of no class in masks; pixels are not interpolated.
    """

    random: ClassVar[bool] = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments the image."""
        height, width = example["image"].shape[:2]
        return perform(example, [self.draw(height, width, rng)], rng)

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Operation:
        """The operation for an image of this size."""
        name = tuple(WIDE)[int(rng.integers(len(WIDE)))]
        strength = int(rng.integers(STRENGTHS))
        amount = WIDE[name](strength * 10 / (STRENGTHS - 1), rng)
        side = {"translate_x": width, "translate_y": height}.get(name, 1)
        return name, amount / side, Resample.NEAREST
