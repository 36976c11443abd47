"""RandAugment (Cubuk et al. 2020), in its original ranges and in timm's increasing ones."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from jaxformer.data.color import to_array, to_picture
from jaxformer.data.transforms import Example, probability_problems

GREY = 128  # fills what an operation uncovers
Resample = Image.Resampling


@dataclass(frozen=True)
class Range:
    """An operation's argument: `start` at magnitude 0, `end` at magnitude 10, linear between and beyond.

    Attributes:
      start: the argument at magnitude 0.
      end: the argument at magnitude 10.
      signed: whether the difference from `start` is negated in half of the cases.
      whole: whether the difference from `start` is truncated to an integer.
    """

    start: float
    end: float
    signed: bool = False
    whole: bool = False

    def __call__(self, magnitude: float, rng: np.random.Generator) -> float:
        """The argument at `magnitude`."""
        change = (self.end - self.start) * magnitude / 10
        if self.whole:
            change = int(change)
        return self.start - change if self.signed and rng.random() < 0.5 else self.start + change


NONE = Range(0, 0)

# The authors' code (tensorflow/tpu, efficientnet/autoaugment.py), which big_vision/pp/autoaugment.py keeps:
# 16 operations; translation by up to 100 and cutout of up to 2 * 40 pixels, here fractions of a side of 224.
# Note that posterize, solarize and the four enhancements do not grow with the magnitude.
ORIGINAL: Mapping[str, Range] = {
    "autocontrast": NONE,
    "equalize": NONE,
    "invert": NONE,
    "rotate": Range(0, 30, signed=True),
    "posterize": Range(0, 4, whole=True),
    "solarize": Range(0, 256, whole=True),
    "color": Range(0.1, 1.9),
    "contrast": Range(0.1, 1.9),
    "brightness": Range(0.1, 1.9),
    "sharpness": Range(0.1, 1.9),
    "shear_x": Range(0, 0.3, signed=True),
    "shear_y": Range(0, 0.3, signed=True),
    "translate_x": Range(0, 100 / 224, signed=True),
    "translate_y": Range(0, 100 / 224, signed=True),
    "cutout": Range(0, 40 / 224),
    "solarize_add": Range(0, 110, whole=True),
}

# timm/data/auto_augment.py, _RAND_INCREASING_TRANSFORMS ("rand-m9-mstd0.5-inc1" is DeiT's): 15 operations.
INCREASING: Mapping[str, Range] = {
    **{name: bounds for name, bounds in ORIGINAL.items() if name != "cutout"},
    "posterize": Range(4, 0, whole=True),
    "solarize": Range(256, 0, whole=True),
    "color": Range(1, 1.9, signed=True),
    "contrast": Range(1, 1.9, signed=True),
    "brightness": Range(1, 1.9, signed=True),
    "sharpness": Range(1, 1.9, signed=True),
    "translate_x": Range(0, 0.45, signed=True),
    "translate_y": Range(0, 0.45, signed=True),
}


@dataclass(frozen=True)
class RandAugment:
    """Applies `num_layers` operations, each drawn uniformly, all at one strength (Cubuk et al. 2020, section
    3).

    The operations are Pillow's, as in timm; what they uncover is grey 128.

    Attributes:
      num_layers: operations in a row ("N"); the same may come twice.
      magnitude: their strength ("M"), of 10; the original goes up to 30.
      ranges: "original" (Cubuk et al., big_vision; nearest-pixel geometry) or "increasing" (timm's inc1,
        DeiT: every operation grows with the magnitude, which is held at 10; bilinear or bicubic at random).
      magnitude_std: standard deviation of a normal noise on the magnitude (DeiT: 0.5).
      probability: how often each of the operations is applied (1 in the paper; timm: 0.5).
    """

    num_layers: int = 2
    magnitude: float = 10.0
    ranges: Literal["original", "increasing"] = "original"
    magnitude_std: float = 0.0
    probability: float = 1.0
    random: ClassVar[bool] = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments the image."""
        increasing = self.ranges == "increasing"
        table = INCREASING if increasing else ORIGINAL
        names = tuple(table)
        picture = to_picture(example["image"])
        for _ in range(self.num_layers):
            name = names[int(rng.integers(len(names)))]
            if self.probability < 1 and rng.random() >= self.probability:
                continue
            magnitude = max(0.0, rng.normal(self.magnitude, self.magnitude_std))
            resample = Resample.NEAREST
            if increasing:
                magnitude = min(magnitude, 10.0)
                resample = Resample.BILINEAR if rng.random() < 0.5 else Resample.BICUBIC
            picture = apply(name, picture, table[name](magnitude, rng), rng, resample)
        return example | {"image": to_array(picture)}

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from probability_problems(self.probability)
        if self.num_layers < 1:
            yield f"num_layers={self.num_layers}: must be at least 1; leave the transform out instead"
        if not 0 <= self.magnitude <= 30:
            yield f"magnitude={self.magnitude}: must be between 0 and 30"
        if self.magnitude_std < 0:
            yield f"magnitude_std={self.magnitude_std}: must not be negative"


def apply(
    name: str,
    picture: Image.Image,
    amount: float,
    rng: np.random.Generator,
    resample: Image.Resampling = Resample.NEAREST,
) -> Image.Image:
    """One operation on an "L" or "RGB" picture; `amount` is its argument, in the unit of the tables above."""
    if name in PIXELWISE:
        return PIXELWISE[name](picture, amount)
    if name == "cutout":
        return cutout(picture, amount, rng)
    fill = GREY if picture.mode == "L" else (GREY,) * 3
    if name == "rotate":
        return picture.rotate(amount, resample=resample, fillcolor=fill)
    # A pixel (x, y) of the result comes from (a x + b y + c, d x + e y + f).
    coefficients = {
        "shear_x": (1, amount, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, amount, 1, 0),
        "translate_x": (1, 0, amount * picture.width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, amount * picture.height),
    }[name]
    return picture.transform(picture.size, Image.Transform.AFFINE, coefficients, resample, fillcolor=fill)


def cutout(picture: Image.Image, amount: float, rng: np.random.Generator) -> Image.Image:
    """Greys a square of half side `amount` times the shorter side, centered anywhere (Cutout, 2017)."""
    half = int(amount * min(picture.size))
    x, y = int(rng.integers(picture.width)), int(rng.integers(picture.height))
    if half == 0:
        return picture
    picture = picture.copy()
    box = (x - half, y - half, x + half - 1, y + half - 1)
    ImageDraw.Draw(picture).rectangle(box, fill=GREY if picture.mode == "L" else (GREY,) * 3)
    return picture


def posterize(picture: Image.Image, bits: float) -> Image.Image:
    """Keeps the highest `bits` of every value; none makes the picture black."""
    mask = 0xFF & ~(0xFF >> min(int(bits), 8))
    return look_up(picture, [level & mask for level in range(256)])


def solarize(picture: Image.Image, threshold: float) -> Image.Image:
    """Inverts values from `threshold` on."""
    return look_up(picture, [level if level < threshold else 255 - level for level in range(256)])


def solarize_add(picture: Image.Image, addition: float) -> Image.Image:
    """Adds to values below 128."""
    return look_up(
        picture, [min(255, level + int(addition)) if level < 128 else level for level in range(256)]
    )


def look_up(picture: Image.Image, table: list[int]) -> Image.Image:
    """Maps every value of every channel."""
    return picture.point(table * len(picture.getbands()))


PIXELWISE: Mapping[str, Callable[[Image.Image, float], Image.Image]] = {
    "autocontrast": lambda picture, _: ImageOps.autocontrast(picture),
    "equalize": lambda picture, _: ImageOps.equalize(picture),
    "invert": lambda picture, _: ImageOps.invert(picture),
    "posterize": posterize,
    "solarize": solarize,
    "solarize_add": solarize_add,
    "color": lambda picture, factor: ImageEnhance.Color(picture).enhance(factor),
    "contrast": lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor),
    "brightness": lambda picture, factor: ImageEnhance.Brightness(picture).enhance(factor),
    "sharpness": lambda picture, factor: ImageEnhance.Sharpness(picture).enhance(factor),
}
