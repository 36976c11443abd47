"""Colours of classes, and pictures with each pixel's class laid over them."""

import colorsys
from functools import cache

import numpy as np

GOLDEN = 0.618034  # of the circle: hues of neighbouring classes are far apart, however many there are
# Saturation and value of one class after the other.
SHADES = ((0.75, 0.95), (0.9, 0.65), (0.5, 1.0))
STRENGTH = 0.6  # the share of a class's colour over a picture


@cache
def colour(index: int) -> tuple[int, int, int]:
    """A class's colour, RGB: the same in every picture."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + index * GOLDEN) % 1, *SHADES[index % len(SHADES)])
    return round(255 * red), round(255 * green), round(255 * blue)


def css(index: int) -> str:
    """A class's colour as "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*colour(index))


def palette(count: int) -> np.ndarray:
    """uint8 [count, 3]: the first classes' colours."""
    return np.array([colour(index) for index in range(count)], np.uint8).reshape(count, 3)


def over_image(image: np.ndarray, classes: np.ndarray, strength: float = STRENGTH) -> np.ndarray:
    """A picture in its classes' colours; pixels without a class stay as they are.

    Args:
      image: uint8 [H, W, C], C 1 or 3.
      classes: int [H, W]; negative where there is none.
      strength: the share of the colours; the rest is the picture in grey.

    Returns:
      uint8 [H, W, 3].
    """
    rgb = np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.float32)
    known = classes >= 0
    if not known.any():
        return rgb.astype(np.uint8)
    colours = palette(int(classes.max()) + 1)[np.where(known, classes, 0).astype(np.intp)]
    grey = rgb.mean(axis=-1, keepdims=True)
    mixed = (1 - strength) * grey + strength * colours
    return np.round(np.where(known[..., None], mixed, rgb)).astype(np.uint8)
