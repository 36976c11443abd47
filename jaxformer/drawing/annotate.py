"""Images with their predictions drawn below them."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SMALLEST, LARGEST = 320, 640  # pixels of an image's longer side as it is drawn
MARGIN, ROW, SIZE = 10, 24, 13  # pixels
BAR, TEXT, LINE, PAPER = "#4c78a8", "#222222", "#e6e6e6", "#ffffff"
ELLIPSIS = "…"


def annotate(
    image: np.ndarray, predictions: Sequence[tuple[str, float]], colours: Sequence[str] = ()
) -> Image.Image:
    """Draws a row below the image for each prediction: its label, a bar, and the probability in percent.

    Args:
      image: uint8 [H, W, 3]; small ones are enlarged in whole pixels, large ones reduced.
      predictions: labels with probabilities, 0 to 1, as they are to be listed.
      colours: colours of the bars; none: all alike.
    """
    picture = fit(Image.fromarray(image))
    width = max(picture.width, SMALLEST) + 2 * MARGIN
    canvas = Image.new("RGB", (width, picture.height + 3 * MARGIN + ROW * len(predictions)), PAPER)
    canvas.paste(picture, ((width - picture.width) // 2, MARGIN))
    draw = ImageDraw.Draw(canvas)
    percent_width = draw.textlength("100.0%", font(SIZE)) + MARGIN
    label_width = (width - 2 * MARGIN - percent_width) * 0.5
    left, right = MARGIN + label_width, width - MARGIN - percent_width
    for row, (label, probability) in enumerate(predictions):
        middle = picture.height + 2 * MARGIN + ROW * row + ROW // 2
        draw.text((MARGIN, middle), shorten(label, label_width - MARGIN), TEXT, font(SIZE), anchor="lm")
        draw.rectangle((left, middle - 6, right, middle + 6), fill=LINE)
        if probability > 0:
            draw.rectangle(
                (left, middle - 6, left + (right - left) * min(probability, 1), middle + 6),
                fill=colours[row] if colours else BAR,
            )
        draw.text((width - MARGIN, middle), f"{probability:.1%}", TEXT, font(SIZE), anchor="rm")
    return canvas


def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib and has more than Latin letters."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def fit(picture: Image.Image) -> Image.Image:
    """The image with its longer side between SMALLEST and LARGEST pixels, if whole pixels allow."""
    longer = max(picture.size)
    if longer < SMALLEST:
        factor = SMALLEST // longer
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    if longer > LARGEST:
        width, height = (max(1, round(side * LARGEST / longer)) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    return picture


def shorten(text: str, width: float) -> str:
    """The text, cut so that it is at most `width` pixels wide."""
    if font(SIZE).getlength(text) <= width:
        return text
    while text and font(SIZE).getlength(text + ELLIPSIS) > width:
        text = text[:-1]
    return text + ELLIPSIS
