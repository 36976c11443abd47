"""Policies, which draw operations on images: RandAugment, AutoAugment and TrivialAugment.

Their ranges of magnitudes are tables of `operations.Range` by the operations' names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from jaxformer.config.fields import Fraction, NonNegativeFloat, at_most, between
from jaxformer.data.operations import Operation, Range, Resample, perform
from jaxformer.data.transform import Example, RandomTransform

NONE = Range(0, 0)
ENHANCEMENTS = ("color", "contrast", "brightness", "sharpness")
SHEARS = ("shear_x", "shear_y")
TRANSLATIONS = ("translate_x", "translate_y")

# RandAugment's: the authors' code (tensorflow/tpu, efficientnet/autoaugment.py), which big_vision/pp/autoaugment.py
# keeps: 16 operations; translation by up to 100 and cutout of up to 2 * 40 pixels, here fractions of a side of 224.
# Note that posterize, solarize and the four enhancements do not grow with the magnitude.
ORIGINAL: Mapping[str, Range] = {
    **dict.fromkeys(("autocontrast", "equalize", "invert"), NONE),
    "rotate": Range(0, 30, signed=True),
    "posterize": Range(0, 4, whole=int),
    "solarize": Range(0, 256, whole=int),
    **dict.fromkeys(ENHANCEMENTS, Range(0.1, 1.9)),
    **dict.fromkeys(SHEARS, Range(0, 0.3, signed=True)),
    **dict.fromkeys(TRANSLATIONS, Range(0, 100 / 224, signed=True)),
    "cutout": Range(0, 40 / 224),
    "solarize_add": Range(0, 110, whole=int),
}

# timm/data/auto_augment.py, _RAND_INCREASING_TRANSFORMS ("rand-m9-mstd0.5-inc1" is DeiT's): 15 operations.
INCREASING: Mapping[str, Range] = {
    **{name: bounds for name, bounds in ORIGINAL.items() if name != "cutout"},
    "posterize": Range(4, 0, whole=int),
    "solarize": Range(256, 0, whole=int),
    **dict.fromkeys(ENHANCEMENTS, Range(1, 1.9, signed=True)),
    **dict.fromkeys(TRANSLATIONS, Range(0, 0.45, signed=True)),
}

# AutoAugment's: torchvision/transforms/autoaugment.py, AutoAugment._augmentation_space: the paper's ranges, but that
# enhancements are mirrored about 1, so that they grow with the magnitude. (Ends are at magnitude 10 here, 9 there.)
LEARNT: Mapping[str, Range] = {
    **INCREASING,
    "posterize": Range(8, 4, whole=round),
    "solarize": Range(255, 0),
    **dict.fromkeys(TRANSLATIONS, Range(0, 150 / 331, signed=True)),
}

# TrivialAugment's: torchvision/transforms/autoaugment.py, TrivialAugmentWide._augmentation_space: the paper's "wide"
# space, but that enhancements are mirrored about 1. Translations are in pixels, whatever the image's size.
WIDE: Mapping[str, Range] = {
    **dict.fromkeys(("identity", "autocontrast", "equalize"), NONE),
    "rotate": Range(0, 135, signed=True),
    "posterize": Range(8, 2, whole=round),
    "solarize": Range(255, 0),
    **dict.fromkeys(ENHANCEMENTS, Range(1, 1.99, signed=True)),
    **dict.fromkeys(SHEARS, Range(0, 0.99, signed=True)),
    **dict.fromkeys(TRANSLATIONS, Range(0, 32, signed=True, whole=int)),
}
STRENGTHS = 31  # of TrivialAugment

Choice = tuple[str, float, int]  # an operation, how often it is done, and its magnitude, 0 to 9

# AutoAugment's policies, the tables of the paper's appendix: pairs of operations, each with how often it is done and,
# if it has a use for one, its magnitude from 0 to 9.
TABLES = {
    "cifar10": """
        invert 0.1, contrast 0.2 6; rotate 0.7 2, translate_x 0.3 9; sharpness 0.8 1, sharpness 0.9 3;
        shear_y 0.5 8, translate_y 0.7 9; autocontrast 0.5, equalize 0.9; shear_y 0.2 7, posterize 0.3 7;
        color 0.4 3, brightness 0.6 7; sharpness 0.3 9, brightness 0.7 9; equalize 0.6, equalize 0.5;
        contrast 0.6 7, sharpness 0.6 5; color 0.7 7, translate_x 0.5 8; equalize 0.3, autocontrast 0.4;
        translate_y 0.4 3, sharpness 0.2 6; brightness 0.9 6, color 0.2 8; solarize 0.5 2, invert 0;
        equalize 0.2, autocontrast 0.6; equalize 0.2, equalize 0.6; color 0.9 9, equalize 0.6;
        autocontrast 0.8, solarize 0.2 8; brightness 0.1 3, color 0.7 0; solarize 0.4 5, autocontrast 0.9;
        translate_y 0.9 9, translate_y 0.7 9; autocontrast 0.9, solarize 0.8 3; equalize 0.8, invert 0.1;
        translate_y 0.7 9, autocontrast 0.9
    """,
    "imagenet": """
        posterize 0.4 8, rotate 0.6 9; solarize 0.6 5, autocontrast 0.6; equalize 0.8, equalize 0.6;
        posterize 0.6 7, posterize 0.6 6; equalize 0.4, solarize 0.2 4; equalize 0.4, rotate 0.8 8;
        solarize 0.6 3, equalize 0.6; posterize 0.8 5, equalize 1; rotate 0.2 3, solarize 0.6 8;
        equalize 0.6, posterize 0.4 6; rotate 0.8 8, color 0.4 0; rotate 0.4 9, equalize 0.6;
        equalize 0, equalize 0.8; invert 0.6, equalize 1; color 0.6 4, contrast 1 8; rotate 0.8 8, color 1 2;
        color 0.8 8, solarize 0.8 7; sharpness 0.4 7, invert 0.6; shear_x 0.6 5, equalize 1;
        color 0.4 0, equalize 0.6; equalize 0.4, solarize 0.2 4; solarize 0.6 5, autocontrast 0.6;
        invert 0.6, equalize 1; color 0.6 4, contrast 1 8; equalize 0.8, equalize 0.6
    """,
    "svhn": """
        shear_x 0.9 4, invert 0.2; shear_y 0.9 8, invert 0.7; equalize 0.6, solarize 0.6 6;
        invert 0.9, equalize 0.6; equalize 0.6, rotate 0.9 3; shear_x 0.9 4, autocontrast 0.8;
        shear_y 0.9 8, invert 0.4; shear_y 0.9 5, solarize 0.2 6; invert 0.9, autocontrast 0.8;
        equalize 0.6, rotate 0.9 3; shear_x 0.9 4, solarize 0.3 3; shear_y 0.8 8, invert 0.7;
        equalize 0.9, translate_y 0.6 6; invert 0.9, equalize 0.6; contrast 0.3 3, rotate 0.8 4;
        invert 0.8, translate_y 0 2; shear_y 0.7 6, solarize 0.4 8; invert 0.6, rotate 0.8 4;
        shear_y 0.3 7, translate_x 0.9 3; shear_x 0.1 6, invert 0.6; solarize 0.7 2, translate_y 0.6 7;
        shear_y 0.8 4, invert 0.8; shear_x 0.7 9, translate_y 0.8 3; shear_y 0.8 5, autocontrast 0.7;
        shear_x 0.7 2, invert 0.1
    """,
}


def choice(text: str) -> Choice:
    """What "contrast 0.2 6" or "invert 0.1" says."""
    name, often, magnitude = (*text.split(), "0")[:3]
    return name, float(often), int(magnitude)


POLICIES = {
    name: [[*map(choice, pair.split(","))] for pair in text.split(";")] for name, text in TABLES.items()
}


@dataclass(frozen=True)
class Policy(RandomTransform):
    """Draws operations for an image and does them; what they uncover is grey 128, and of no class in masks."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments the image."""
        height, width = example["image"].shape[:2]
        return perform(example, self.drawn(height, width, rng), rng)

    def drawn(self, height: int, width: int, rng: np.random.Generator) -> Iterator[Operation]:
        """Yields the operations of one image of this size."""
        raise NotImplementedError


@dataclass(frozen=True)
class RandAugment(Policy):
    """Applies `num_layers` operations, each drawn uniformly, all at one strength (Cubuk et al. 2020, section 3)."""

    num_layers: Annotated[int, at_most(1000)] = 2
    """Operations in a row ("N"); the same may come twice."""
    magnitude: Annotated[float, between(0, 30)] = 10.0
    """Their strength ("M"), of 10; the original goes up to 30."""
    ranges: Literal["original", "increasing"] = "original"
    """ "original" (Cubuk et al., big_vision; nearest-pixel geometry) or "increasing" (timm's inc1, DeiT:
    every operation grows with the magnitude, which is held at 10; bilinear or bicubic at random)."""
    magnitude_std: NonNegativeFloat = 0.0
    """Standard deviation of a normal noise on the magnitude (DeiT: 0.5)."""
    probability: Fraction = 1.0
    """How often each of the operations is applied (1 in the paper; timm: 0.5)."""

    def drawn(self, height: int, width: int, rng: np.random.Generator) -> Iterator[Operation]:
        increasing = self.ranges == "increasing"
        table = INCREASING if increasing else ORIGINAL
        names = tuple(table)
        for _ in range(self.num_layers):
            name = names[int(rng.integers(len(names)))]
            if self.probability < 1 and rng.random() >= self.probability:
                continue
            magnitude = max(0.0, rng.normal(self.magnitude, self.magnitude_std))
            resample = Resample.NEAREST
            if increasing:
                magnitude = min(magnitude, 10.0)
                resample = Resample.BILINEAR if rng.random() < 0.5 else Resample.BICUBIC
            yield name, table[name](magnitude, rng), resample


@dataclass(frozen=True)
class AutoAugment(Policy):
    """Applies one of a learnt policy's 25 pairs of operations, each of the two as often as it says (Cubuk et al. 2019).

    The pair is drawn uniformly. Pixels are not interpolated.
    """

    policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet"
    """The dataset that it was learnt on; they serve others, too."""
    ranges: Literal["increasing", "original"] = "increasing"
    """ "increasing" (torchvision: every operation grows with its magnitude), or "original" (the authors' code
    for ImageNet, where enhancements go from 0.1 to 1.9, and posterize and solarize are stronger the smaller
    their magnitude is)."""

    def drawn(self, height: int, width: int, rng: np.random.Generator) -> Iterator[Operation]:
        pairs = POLICIES[self.policy]
        table, largest = (ORIGINAL, 10) if self.ranges == "original" else (LEARNT, 9)
        for name, probability, magnitude in pairs[int(rng.integers(len(pairs)))]:
            if rng.random() < probability:
                yield name, table[name](magnitude * 10 / largest, rng), Resample.NEAREST


@dataclass(frozen=True)
class TrivialAugment(Policy):
    """Applies one operation at one strength, both drawn uniformly: "TrivialAugment Wide" (Mueller and Hutter 2021).

    There is nothing to tune. Pixels are not interpolated.
    """

    def drawn(self, height: int, width: int, rng: np.random.Generator) -> Iterator[Operation]:
        name = tuple(WIDE)[int(rng.integers(len(WIDE)))]
        strength = int(rng.integers(STRENGTHS))
        side = {"translate_x": width, "translate_y": height}.get(name, 1)
        yield name, WIDE[name](strength * 10 / (STRENGTHS - 1), rng) / side, Resample.NEAREST
