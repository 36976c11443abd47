"""Pictures with boxes around what is in them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxformer.drawing import class_colours

DARK = 128  # brightness below which text on a colour is white


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
    line = max(1, round(size / 250))
    for one in reversed(objects):
        colour = class_colours.colour(one["index"])
        x0, y0, x1, y1 = (value * scale for value in one["box"])
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=line)
        text = one["label"] if "score" not in one else f"{one['label']} {one['score']:.0%}"
        at = (max(0.0, min(x0, new_size[0] - font.getlength(text))), max(0.0, y0))
        behind = draw.textbbox(at, text, font=font)
        draw.rectangle(behind, fill=colour)
        draw.text(at, text, fill="white" if np.mean(colour) < DARK else "black", font=font)
    return np.asarray(picture)
