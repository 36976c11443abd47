"""Drawings in a page: elements of SVG, and axes with their ticks. Text takes the page's font and colour.

A library for plots takes some 80 ms a figure, and a run's report has a dozen of them.
"""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxformer.errors import printable

FONT = 10.0  # pixels of a letter's height
FAINT, THIN = 0.15, 0.6  # opacity of rules, pixels of lines
STEPS = (1, 2, 5, 10)  # times a power of ten lie between two ticks
LARGEST, LEAST = 1e120, 1e-120  # numbers and ranges of numbers that can be drawn; float32 ends far before
MARGIN = 0.05  # of an axis beside its data

Anchor = Literal["start", "middle", "end"]


class Drawing:
    """Elements of an <svg>, whose unit is a pixel at its own size; the page may scale it.

    Args:
      width: of all.
      height: of all.
    """

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.elements: list[str] = []

    def add(self, name: str, text: str | None = None, **attributes: Any) -> None:
        """An element; "_" in the names of attributes stands for "-"."""
        given = " ".join(f'{key.replace("_", "-")}="{shown(value)}"' for key, value in attributes.items())
        inside = "/>" if text is None else f">{html.escape(printable(text, keep=''))}</{name}>"
        self.elements.append(f"<{name} {given}{inside}")

    def line(self, start: Sequence[float], end: Sequence[float], **attributes: Any) -> None:
        """A line from (x, y) to (x, y), thin and in the colour of text unless attributes say otherwise."""
        (x1, y1), (x2, y2) = start, end
        self.add(
            "path",
            d=path([x1, x2], [y1, y2]),
            **{"stroke": "currentColor", "stroke_width": THIN, **attributes},
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        anchor: Anchor = "start",
        *,
        size: float = FONT,
        **attributes: Any,
    ) -> None:
        """Words whose middle is at height y, on one line."""
        place = {"x": x, "y": y + 0.35 * size, "font_size": size, "text_anchor": anchor}
        self.add("text", words, **place, **{"fill": "currentColor", **attributes})

    def upright(
        self, x: float, y: float, words: str, anchor: Anchor = "middle", *, size: float = FONT
    ) -> None:
        """Words from below to above, whose middle is at x."""
        self.text(x, y, words, anchor, size=size, transform=f"rotate(-90 {x:.1f} {y:.1f})")

    def to_svg(self, label: str, **attributes: str) -> str:
        """The <svg> element.

        Args:
          label: a description for people who cannot see it.
          attributes: further ones.
        """
        more = "".join(
            f' {key.replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items()
        )
        said = html.escape(printable(label, keep=""))
        box = f'viewBox="0 0 {shown(self.width)} {shown(self.height)}"'
        return f'<svg{more} role="img" aria-label="{said}" {box}>{"".join(self.elements)}</svg>'


def shown(value: Any) -> str:
    """An attribute's value: places to a tenth of a pixel."""
    return f"{value:.5g}" if isinstance(value, float) else html.escape(str(value))


def path(xs: Iterable[float], ys: Iterable[float]) -> str:
    """A line through points, as <path> has it; it has gaps where a height is NaN."""
    parts, pen = [], "M"
    for x, y in zip(xs, ys):
        if math.isnan(y):
            pen = "M"
            continue
        parts.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
    return "".join(parts)


def dots(xs: Iterable[float], ys: Iterable[float]) -> str:
    """Points as a <path> of lines without length, which a round end makes dots."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in zip(xs, ys) if not math.isnan(y))


@dataclass(frozen=True)
class Scale:
    """An axis: numbers from low to high lie between two places."""

    low: float
    high: float
    start: float
    """Pixels of the lowest number."""
    end: float
    """Pixels of the highest."""
    logarithmic: bool = False

    def at(self, values: Any) -> Any:
        """Where numbers lie, in pixels; those that are outside of it at its ends."""
        bend = np.log10 if self.logarithmic else np.asarray
        low, high = bend(self.low), bend(self.high)
        return self.start + (self.end - self.start) * (bend(np.clip(values, self.low, self.high)) - low) / (
            high - low
        )

    def ticks(self, most: int, *, whole: bool = False) -> list[float]:
        """Round numbers within it, about `most`: `whole` ones, or powers of ten on a logarithmic axis."""
        if self.logarithmic:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1, max(1, math.ceil((last - first) / most)))]
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(each for each in STEPS if each * power >= rough * (1 - 1e-9)) * power
        step = max(step, 1.0) if whole else step
        first, last = math.ceil(self.low / step - 1e-6), math.floor(self.high / step + 1e-6)
        return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def scale(values: np.ndarray, start: float, end: float, *, logarithmic: bool = False) -> Scale:
    """An axis with a place for all values, which are finite, and some room beside them."""
    known = np.clip(values, -LARGEST, LARGEST) if values.size else np.array([0.0, 1.0])
    low, high = float(known.min()), float(known.max())
    if logarithmic:
        low = max(low, LEAST)
        room = (high / low) ** MARGIN
        return Scale(low / room, high * room, start, end, True)
    around = MARGIN * (high - low)
    if around <= max(LEAST, 1e-13 * max(abs(low), abs(high))):  # one number
        around = MARGIN * abs(high) if abs(high) > LEAST else MARGIN
    return Scale(low - around, high + around, start, end)


def frame(
    drawing: Drawing,
    x: Scale,
    y: Scale,
    *,
    across: Iterable[tuple[float, str]] = (),
    up: Iterable[tuple[float, str]] = (),
    rules: bool = False,
    below: str = "",
    beside: str = "",
) -> None:
    """Axes on the left and below, with ticks.

    Args:
      drawing: where to.
      x: the axis from left to right.
      y: the axis from below to above.
      across: values and labels of its ticks.
      up: those of y.
      rules: whether there are lines from the ticks of x, too.
      below: what x is.
      beside: what y is.
    """
    (left, right), (bottom, top) = (x.start, x.end), (y.start, y.end)
    for value, label in across:
        place = float(x.at(value))
        if rules:
            drawing.line((place, top), (place, bottom), stroke_opacity=FAINT)
        drawing.line((place, bottom), (place, bottom + 3.5))
        drawing.text(place, bottom + 11, label, "middle")
    for value, label in up:
        place = float(y.at(value))
        drawing.line((left, place), (right, place), stroke_opacity=FAINT)
        drawing.line((left - 3.5, place), (left, place))
        drawing.text(left - 7, place, label, "end")
    drawing.line((left, bottom), (right, bottom))
    drawing.line((left, bottom), (left, top))
    if below:
        drawing.text((left + right) / 2, bottom + 25, below, "middle")
    if beside:
        drawing.upright(9, (top + bottom) / 2, beside)


def legend(drawing: Drawing, left: float, top: float, keys: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Names with their lines, one below the other.

    Args:
      drawing: where to.
      left: of all, in pixels.
      top: of all.
      keys: names, and the attributes of their lines.
    """
    for row, (name, attributes) in enumerate(keys):
        middle = top + 7 + 13 * row
        drawing.line((left, middle), (left + 18, middle), **attributes)
        drawing.text(left + 24, middle, name, size=9.0)
