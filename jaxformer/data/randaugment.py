"""RandAugment (Cubuk et al. 2020), in its original ranges and in timm's increasing ones."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from jaxformer.data.operations import NONE, Operation, Range, Resample, perform
from jaxformer.data.transform import Transform
from jaxformer.data.transforms import Example, probability_problems

# The authors' code (tensorflow/tpu, efficientnet/autoaugment.py), which big_vision/pp/autoaugment.py keeps:
# 16 operations; translation by up to 100 and cutout of up to 2 * 40 pixels, here fractions of a side of 224.
# Note that posterize, solarize and the four enhancements do not grow with the magnitude.
ORIGINAL: Mapping[str, Range] = {
    "autocontrast": NONE,
    "equalize": NONE,
    "invert": NONE,
    "rotate": Range(0, 30, signed=True),
    "posterize": Range(0, 4, whole=int),
    "solarize": Range(0, 256, whole=int),
    "color": Range(0.1, 1.9),
    "contrast": Range(0.1, 1.9),
    "brightness": Range(0.1, 1.9),
    "sharpness": Range(0.1, 1.9),
    "shear_x": Range(0, 0.3, signed=True),
    "shear_y": Range(0, 0.3, signed=True),
    "translate_x": Range(0, 100 / 224, signed=True),
    "translate_y": Range(0, 100 / 224, signed=True),
    "cutout": Range(0, 40 / 224),
    "solarize_add": Range(0, 110, whole=int),
}

# timm/data/auto_augment.py, _RAND_INCREASING_TRANSFORMS ("rand-m9-mstd0.5-inc1" is DeiT's): 15 operations.
INCREASING: Mapping[str, Range] = {
    **{name: bounds for name, bounds in ORIGINAL.items() if name != "cutout"},
    "posterize": Range(4, 0, whole=int),
    "solarize": Range(256, 0, whole=int),
    "color": Range(1, 1.9, signed=True),
    "contrast": Range(1, 1.9, signed=True),
    "brightness": Range(1, 1.9, signed=True),
    "sharpness": Range(1, 1.9, signed=True),
    "translate_x": Range(0, 0.45, signed=True),
    "translate_y": Range(0, 0.45, signed=True),
}


@dataclass(frozen=True)
class RandAugment(Transform):
    """Applies `num_layers` operations, each drawn uniformly, all at one strength (Cubuk et al. 2020, section
    3).

    The operations are Pillow's, as in timm; what they uncover is grey 128, and of no class in masks.
    """

    num_layers: int = 2
    """Operations in a row ("N"); the same may come twice."""
    magnitude: float = 10.0
    """Their strength ("M"), of 10; the original goes up to 30."""
    ranges: Literal["original", "increasing"] = "original"
    """ "original" (Cubuk et al., big_vision; nearest-pixel geometry) or "increasing" (timm's inc1, DeiT:
    every operation grows with the magnitude, which is held at 10; bilinear or bicubic at random)."""
    magnitude_std: float = 0.0
    """Standard deviation of a normal noise on the magnitude (DeiT: 0.5)."""
    probability: float = 1.0
    """How often each of the operations is applied (1 in the paper; timm: 0.5)."""
    random: ClassVar[bool] = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments the image."""
        return perform(example, self._drawn(rng), rng)

    def _drawn(self, rng: np.random.Generator) -> Iterator[Operation]:
        """Yields the operations of one image."""
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

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from probability_problems(self.probability)
        if self.num_layers < 1:
            yield f"num_layers={self.num_layers}: must be at least 1; leave the transform out instead"
        if not 0 <= self.magnitude <= 30:
            yield f"magnitude={self.magnitude}: must be between 0 and 30"
        if self.magnitude_std < 0:
            yield f"magnitude_std={self.magnitude_std}: must not be negative"
