"""Operations on images that the learnt and the random policies draw from, with Pillow: what they do, how strongly."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from jaxformer.data.geometry import Move, follow
from jaxformer.data.transform import Example

GREY = 128  # fills what an operation uncovers
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
        if self.whole is not None:
            change = self.whole(change)
        return self.start - change if self.signed and rng.random() < 0.5 else self.start + change


def perform(example: Example, operations: Iterable[Operation], rng: np.random.Generator) -> Example:
    """Does some operations to an example, one after the other; boxes and masks move with the image.

    Args:
      example: with `image` uint8 [H, W, C], which is not written to.
      operations: drawn one at a time, each after the one before it is done.
      rng: draws what is left to draw in an operation.
    """
    picture = to_pillow(example["image"])
    for name, amount, resample in operations:
        picture = apply(name, picture, amount, rng, resample)
        if name in GEOMETRIC:
            example = example | follow(example, geometry(name, amount, picture.width, picture.height))
    return example | {"image": to_array(picture)}


def apply(
    name: str,
    picture: Image.Image,
    amount: float,
    rng: np.random.Generator,
    resample: Image.Resampling = Resample.NEAREST,
) -> Image.Image:
    """One operation on an "L" or "RGB" image; `amount` is its argument; of translations a share of the side."""
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
