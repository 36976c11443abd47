"""Operations on images with Pillow, from which policies draw, and the transforms that are made of those on colours."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from jaxformer.config.fields import Fraction, NonNegativeFloat, between
from jaxformer.data.geometry import Move, follow
from jaxformer.data.transform import Example, RandomTransform, Rising

GREY = 128  # fills what an operation uncovers
THRESHOLD = 128  # 3-Augment inverts values from this one on
GEOMETRIC = frozenset({"rotate", "shear_x", "shear_y", "translate_x", "translate_y"})  # what moves pixels
Resample = Image.Resampling

Operation = tuple[str, float, Image.Resampling]  # name, argument, and how what moves is interpolated


@dataclass(frozen=True)
class Range:
    """An operation's argument: `start` at magnitude 0, `end` at magnitude 10, linear between and beyond."""

    start: float
    """The argument at magnitude 0."""
    end: float
    """The argument at magnitude 10."""
    signed: bool = False
    """Whether the difference from `start` is negated in half of the cases."""
    whole: Callable[[float], int] | None = None
    """What makes an integer of the difference from `start`: `int` truncates, `round` takes the nearest."""

    def __call__(self, magnitude: float, rng: np.random.Generator) -> float:
        """The argument at `magnitude`."""
        change = (self.end - self.start) * magnitude / 10
        change = self.whole(change) if self.whole else change
        return self.start - change if self.signed and rng.random() < 0.5 else self.start + change


def perform(example: Example, operations: Iterable[Operation], rng: np.random.Generator) -> Example:
    """Does some operations to an example, one after the other; boxes and masks move with the image.

    Args:
      example: with `image` uint8 [H, W, C], which is not written to.
      operations: drawn one at a time, each after the one before it is done.
      rng: draws what is left to draw in an operation.
    """
    picture = to_pillow(example["image"])
    for operation in operations:
        picture = apply(operation, picture, rng)
        name, amount, _ = operation
        if name in GEOMETRIC:
            example = example | follow(example, geometry(name, amount, picture.width, picture.height))
    return example | {"image": to_array(picture)}


def apply(operation: Operation, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One operation on an "L" or "RGB" image; the argument of a translation is a share of the side."""
    name, amount, resample = operation
    if name in PIXELWISE:
        return PIXELWISE[name](picture, amount)
    fill = GREY if picture.mode == "L" else (GREY,) * 3
    if name == "cutout":
        return cutout(picture, amount, rng, fill)
    if name == "rotate":
        return picture.rotate(amount, resample=resample, fillcolor=fill)
    matrix = geometry(name, amount, picture.width, picture.height).matrix
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, resample, fillcolor=fill)


def geometry(name: str, amount: float, width: int, height: int) -> Move:
    """The move that one of the GEOMETRIC operations makes; Pillow's coefficients."""
    if name == "rotate":  # counterclockwise about the middle
        turn, x, y = math.radians(amount), width / 2, height / 2
        cos, sin = math.cos(turn), math.sin(turn)
        matrix = (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)
        return Move(matrix, (height, width))
    matrices: Mapping[str, tuple[float, float, float, float, float, float]] = {
        "shear_x": (1, amount, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, amount, 1, 0),
        "translate_x": (1, 0, amount * width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, amount * height),
    }
    return Move(matrices[name], (height, width))


def cutout(
    picture: Image.Image, amount: float, rng: np.random.Generator, fill: int | tuple[int, ...]
) -> Image.Image:
    """Fills a square of half side `amount` times the shorter side, centered anywhere (Cutout, 2017)."""
    half = int(amount * min(picture.size))
    x, y = int(rng.integers(picture.width)), int(rng.integers(picture.height))
    if half > 0:
        picture = picture.copy()
        ImageDraw.Draw(picture).rectangle((x - half, y - half, x + half - 1, y + half - 1), fill=fill)
    return picture


def posterize(picture: Image.Image, bits: float) -> Image.Image:
    """Keeps the highest `bits` of every value; none makes the image black."""
    mask = 0xFF & ~(0xFF >> min(int(bits), 8))
    return look_up(picture, lambda level: level & mask)


def solarize(picture: Image.Image, threshold: float) -> Image.Image:
    """Inverts values from `threshold` on."""
    return look_up(picture, lambda level: level if level < threshold else 255 - level)


def solarize_add(picture: Image.Image, addition: float) -> Image.Image:
    """Adds to values below 128."""
    return look_up(picture, lambda level: min(255, level + int(addition)) if level < 128 else level)


def look_up(picture: Image.Image, change: Callable[[int], int]) -> Image.Image:
    """Changes every value of every channel."""
    return picture.point([change(level) for level in range(256)] * len(picture.getbands()))


PIXELWISE: Mapping[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda picture, _: picture,
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


def to_pillow(image: np.ndarray) -> Image.Image:
    """uint8 [H, W, C] as a Pillow image, "L" or "RGB"."""
    return Image.fromarray(np.ascontiguousarray(image[:, :, 0] if image.shape[2] == 1 else image))


def to_array(picture: Image.Image) -> np.ndarray:
    """A Pillow image as uint8 [H, W, C]."""
    image = np.array(picture)
    return image[:, :, None] if image.ndim == 2 else image


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
    """The probability that it is applied."""

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
class Grayscale(RandomTransform):
    """Takes the colours of some images away, as torchvision does: what they show is then their shapes.

    The values of the channels are the luminance, as Pillow computes it; grey images stay as they are.
    """

    probability: Fraction = 0.2
    """The probability that it is applied; 0.2 in SimCLR (Chen et al. 2020, appendix A)."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Perhaps makes the image grey."""
        return example | {"image": grey(example["image"])} if rng.random() < self.probability else example


def grey(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, C] with the luminance in all channels."""
    picture = to_pillow(image)
    return to_array(picture.convert("L").convert(picture.mode))


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
            picture = to_pillow(grey(example["image"]))
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
