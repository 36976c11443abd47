"""Drawing on images: boxes, classes in colours, predictions below them. Of the package it imports errors alone."""

import colorsys
import contextlib
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from jaxformer.errors import printable

SMALLEST, LARGEST = 320, 640  # pixels of an image's longer side as it is drawn
MARGIN, ROW, SIZE = 10, 24, 13  # pixels
BAR, TEXT, LINE, PAPER = "#4c78a8", "#222222", "#e6e6e6", "#ffffff"
ELLIPSIS = "…"
DARK = 128  # brightness below which text on a colour is white
GOLDEN = 0.618034  # of the circle: hues of neighbouring classes are far apart, however many there are
SHADES = ((0.75, 0.95), (0.9, 0.65), (0.5, 1.0))  # saturation and value of one class after the other
STRENGTH = 0.6  # the share of a class's colour over an image
MARK = ("Software", "jaxformer")  # a PNG's key and text, by which drawings are known again


def save(image: Image.Image, path: Path) -> None:
    """Writes a drawing as PNG, marked as one."""
    marked = PngImagePlugin.PngInfo()
    marked.add_text(*MARK)
    image.save(path, format="PNG", pnginfo=marked)


def remove_others(folder: Path, pattern: str, keep: Collection[Path] = ()) -> None:
    """Removes the drawings in a folder that `save` wrote earlier, and folders that are empty then; nothing else.

    Args:
      folder: the folder.
      pattern: of their paths in it.
      keep: paths of drawings that stay.
    """
    kept = {path.resolve() for path in keep}
    for path in list(folder.glob(pattern)):
        if path.is_file() and path.resolve() not in kept and is_drawing(path):
            path.unlink()
            with contextlib.suppress(OSError):
                path.parent.rmdir()


def is_drawing(path: Path) -> bool:
    """Whether `save` wrote a file."""
    with contextlib.suppress(Exception), Image.open(path, formats=["PNG"]) as image:
        return image.info.get(MARK[0]) == MARK[1]
    return False


def annotate(
    image: np.ndarray, predictions: Sequence[tuple[str, float]], colours: Sequence[str] = ()
) -> Image.Image:
    """Draws a row below the image for each prediction: its label, a bar, and the probability in percent.

    Args:
      image: uint8 [H, W, 3]; small ones are enlarged in whole pixels, large ones reduced.
      predictions: labels with probabilities, 0 to 1, as they are to be listed.
      colours: colours of the bars; without any, all are alike.
    """
    canvas, below = with_rows(image, len(predictions))
    width, draw = canvas.width, ImageDraw.Draw(canvas)
    percent_width = draw.textlength("100.0%", font(SIZE)) + MARGIN
    label_width = (width - 2 * MARGIN - percent_width) * 0.5
    left, right = MARGIN + label_width, width - MARGIN - percent_width
    for row, (label, probability) in enumerate(predictions):
        middle = below + ROW * row + ROW // 2
        draw.text((MARGIN, middle), shorten(label, label_width - MARGIN), TEXT, font(SIZE), anchor="lm")
        draw.rectangle((left, middle - 6, right, middle + 6), fill=LINE)
        if probability > 0:
            end = left + (right - left) * min(probability, 1)
            draw.rectangle((left, middle - 6, end, middle + 6), fill=colours[row] if colours else BAR)
        draw.text((width - MARGIN, middle), f"{probability:.1%}", TEXT, font(SIZE), anchor="rm")
    return canvas


def captioned(image: np.ndarray, text: str) -> Image.Image:
    """Writes a text below an image, in as many rows as it takes.

    Args:
      image: as of `annotate`.
      text: of words; one that is longer than a row is cut.
    """
    room = max(SMALLEST, fit(Image.fromarray(image)).width)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font(SIZE).getlength(printable(longer, keep="")) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    canvas, below = with_rows(image, len(lines))
    draw = ImageDraw.Draw(canvas)
    for row, line in enumerate(lines):
        middle = below + ROW * row + ROW // 2
        draw.text((MARGIN, middle), shorten(line, room), TEXT, font(SIZE), anchor="lm")
    return canvas


def with_rows(image: np.ndarray, count: int) -> tuple[Image.Image, int]:
    """An image with room below it for so many rows of text, and where that begins, in pixels from the top."""
    picture = fit(Image.fromarray(image))
    width = max(picture.width, SMALLEST) + 2 * MARGIN
    canvas = Image.new("RGB", (width, picture.height + 3 * MARGIN + ROW * count), PAPER)
    canvas.paste(picture, ((width - picture.width) // 2, MARGIN))
    return canvas, picture.height + 2 * MARGIN


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib and has more than Latin letters."""
    import matplotlib  # it takes long, and colours of classes do without

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def fit(picture: Image.Image, smallest: int = SMALLEST, largest: int = LARGEST) -> Image.Image:
    """The image with its longer side between `smallest` and `largest` pixels, if whole pixels allow."""
    longer = max(picture.size)
    if longer < smallest:
        factor = smallest // longer
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    if longer > largest:
        width, height = (max(1, round(side * largest / longer)) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    return picture


def shorten(text: str, width: float) -> str:
    """The text on one line, `printable`, cut so that it is at most `width` pixels wide."""
    text = printable(text, keep="")
    if font(SIZE).getlength(text) <= width:
        return text
    while text and font(SIZE).getlength(text + ELLIPSIS) > width:
        text = text[:-1]
    return text + ELLIPSIS


def draw_boxes(
    image: np.ndarray, objects: Sequence[Mapping[str, Any]], size: int, font: ImageFont.FreeTypeFont
) -> np.ndarray:
    """Draws each object's box in its class's colour, with the class's name and, if it has one, the score in percent.

    Args:
      image: uint8 [H, W, C], C 1 or 3.
      objects: "label", "index", "box" (x0, y0, x1, y1 in pixels of the image) and perhaps "score"; the first ones, the
        surest, are drawn last.
      size: pixels of the longer side as it is drawn.
      font: of the names.

    Returns:
      uint8 [H', W', 3].
    """
    height, width = image.shape[:2]
    scale = size / max(height, width)
    rgb = np.ascontiguousarray(np.broadcast_to(image, (height, width, 3)))
    new_size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.fromarray(rgb).resize(new_size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for one in reversed(objects):
        of_class = colour(one["index"])
        x0, y0, x1, y1 = (value * scale for value in one["box"])
        corners = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        draw.rectangle(corners, outline=of_class, width=max(1, round(size / 250)))
        label = printable(one["label"], keep="")
        text = label if "score" not in one else f"{label} {one['score']:.0%}"
        at = (max(0.0, min(x0, new_size[0] - font.getlength(text))), max(0.0, y0))
        draw.rectangle(draw.textbbox(at, text, font=font), fill=of_class)
        draw.text(at, text, fill="white" if np.mean(of_class) < DARK else "black", font=font)
    return np.asarray(picture)


@cache
def colour(index: int) -> tuple[int, int, int]:
    """A class's colour, RGB: the same in every image."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + index * GOLDEN) % 1, *SHADES[index % len(SHADES)])
    return round(255 * red), round(255 * green), round(255 * blue)


def css(index: int) -> str:
    """A class's colour as "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*colour(index))


def palette(count: int) -> np.ndarray:
    """uint8 [count, 3]: the first classes' colours."""
    return np.array([colour(index) for index in range(count)], np.uint8).reshape(count, 3)


def over_image(image: np.ndarray, classes: np.ndarray, strength: float = STRENGTH) -> np.ndarray:
    """An image in its classes' colours; pixels without a class stay as they are.

    Args:
      image: uint8 [H, W, C], C 1 or 3.
      classes: int [H, W]; negative where there is none.
      strength: the share of the colours; the rest is the image in grey.

    Returns:
      uint8 [H, W, 3].
    """
    rgb = np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.float32)
    known = classes >= 0
    if not known.any():
        return rgb.astype(np.uint8)
    colours = palette(int(classes.max()) + 1)[np.where(known, classes, 0).astype(np.intp)]
    mixed = (1 - strength) * rgb.mean(axis=-1, keepdims=True) + strength * colours
    return np.round(np.where(known[..., None], mixed, rgb)).astype(np.uint8)
