"""AutoAugment: policies that were learnt on CIFAR-10, ImageNet and SVHN (Cubuk et al. 2019)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from jaxformer.data.operations import NONE, Operation, Range, Resample, perform
from jaxformer.data.randaugment import ORIGINAL
from jaxformer.data.transform import Transform
from jaxformer.data.transforms import Example

Choice = tuple[str, float, int]  # an operation, how often it is done, and its magnitude, 0 to 9
LARGEST = 9

# torchvision/transforms/autoaugment.py, AutoAugment._augmentation_space: the paper's ranges, but that enhancements
# are mirrored about 1, so that they grow with the magnitude. (Ends are at magnitude 10 here, 9 there.)
INCREASING: Mapping[str, Range] = {
    "autocontrast": NONE,
    "equalize": NONE,
    "invert": NONE,
    "rotate": Range(0, 30, signed=True),
    "posterize": Range(8, 4, whole=round),
    "solarize": Range(255, 0),
    "color": Range(1, 1.9, signed=True),
    "contrast": Range(1, 1.9, signed=True),
    "brightness": Range(1, 1.9, signed=True),
    "sharpness": Range(1, 1.9, signed=True),
    "shear_x": Range(0, 0.3, signed=True),
    "shear_y": Range(0, 0.3, signed=True),
    "translate_x": Range(0, 150 / 331, signed=True),
    "translate_y": Range(0, 150 / 331, signed=True),
}

# The tables of the paper's appendix, without magnitudes (0) where the operation has no use for them.
POLICIES: Mapping[str, tuple[tuple[Choice, Choice], ...]] = {
    "cifar10": (
        (("invert", 0.1, 0), ("contrast", 0.2, 6)),
        (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
        (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
        (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
        (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
        (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
        (("color", 0.4, 3), ("brightness", 0.6, 7)),
        (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
        (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
        (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
        (("color", 0.7, 7), ("translate_x", 0.5, 8)),
        (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
        (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
        (("brightness", 0.9, 6), ("color", 0.2, 8)),
        (("solarize", 0.5, 2), ("invert", 0.0, 0)),
        (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
        (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
        (("color", 0.9, 9), ("equalize", 0.6, 0)),
        (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
        (("brightness", 0.1, 3), ("color", 0.7, 0)),
        (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
        (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
        (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
        (("equalize", 0.8, 0), ("invert", 0.1, 0)),
        (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
    ),
    "imagenet": (
        (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
        (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
        (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
        (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
        (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
        (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
        (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
        (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
        (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
        (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
        (("rotate", 0.8, 8), ("color", 0.4, 0)),
        (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
        (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
        (("invert", 0.6, 0), ("equalize", 1.0, 0)),
        (("color", 0.6, 4), ("contrast", 1.0, 8)),
        (("rotate", 0.8, 8), ("color", 1.0, 2)),
        (("color", 0.8, 8), ("solarize", 0.8, 7)),
        (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
        (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
        (("color", 0.4, 0), ("equalize", 0.6, 0)),
        (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
        (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
        (("invert", 0.6, 0), ("equalize", 1.0, 0)),
        (("color", 0.6, 4), ("contrast", 1.0, 8)),
        (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    ),
    "svhn": (
        (("shear_x", 0.9, 4), ("invert", 0.2, 0)),
        (("shear_y", 0.9, 8), ("invert", 0.7, 0)),
        (("equalize", 0.6, 0), ("solarize", 0.6, 6)),
        (("invert", 0.9, 0), ("equalize", 0.6, 0)),
        (("equalize", 0.6, 0), ("rotate", 0.9, 3)),
        (("shear_x", 0.9, 4), ("autocontrast", 0.8, 0)),
        (("shear_y", 0.9, 8), ("invert", 0.4, 0)),
        (("shear_y", 0.9, 5), ("solarize", 0.2, 6)),
        (("invert", 0.9, 0), ("autocontrast", 0.8, 0)),
        (("equalize", 0.6, 0), ("rotate", 0.9, 3)),
        (("shear_x", 0.9, 4), ("solarize", 0.3, 3)),
        (("shear_y", 0.8, 8), ("invert", 0.7, 0)),
        (("equalize", 0.9, 0), ("translate_y", 0.6, 6)),
        (("invert", 0.9, 0), ("equalize", 0.6, 0)),
        (("contrast", 0.3, 3), ("rotate", 0.8, 4)),
        (("invert", 0.8, 0), ("translate_y", 0.0, 2)),
        (("shear_y", 0.7, 6), ("solarize", 0.4, 8)),
        (("invert", 0.6, 0), ("rotate", 0.8, 4)),
        (("shear_y", 0.3, 7), ("translate_x", 0.9, 3)),
        (("shear_x", 0.1, 6), ("invert", 0.6, 0)),
        (("solarize", 0.7, 2), ("translate_y", 0.6, 7)),
        (("shear_y", 0.8, 4), ("invert", 0.8, 0)),
        (("shear_x", 0.7, 9), ("translate_y", 0.8, 3)),
        (("shear_y", 0.8, 5), ("autocontrast", 0.7, 0)),
        (("shear_x", 0.7, 2), ("invert", 0.1, 0)),
    ),
}


@dataclass(frozen=True)
class AutoAugment(Transform):
    """Applies one of a policy's 25 pairs of operations, drawn uniformly, each of the two as often as it says.

    What operations uncover is grey 128, and of no class in masks; pixels are not interpolated.
    """

    policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet"
    """The dataset that it was learnt on; they serve others, too."""
    ranges: Literal["increasing", "original"] = "increasing"
    """ "increasing" (torchvision: every operation grows with its magnitude), or "original" (the authors' code
    for ImageNet, where enhancements go from 0.1 to 1.9, and posterize and solarize are stronger the smaller
    their magnitude is)."""
    random: ClassVar[bool] = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments the image."""
        return perform(example, self._drawn(rng), rng)

    def _drawn(self, rng: np.random.Generator) -> Iterator[Operation]:
        """Yields the operations of one image."""
        pairs = POLICIES[self.policy]
        for name, probability, magnitude in pairs[int(rng.integers(len(pairs)))]:
            if rng.random() < probability:
                yield name, self.amount(name, magnitude, rng), Resample.NEAREST

    def amount(self, name: str, magnitude: int, rng: np.random.Generator) -> float:
        """An operation's argument."""
        if self.ranges == "original":
            return ORIGINAL[name](magnitude, rng)
        return INCREASING[name](magnitude * 10 / LARGEST, rng)
