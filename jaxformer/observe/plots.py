"""Plots as SVG text for a page; text and axes take the page's colour, which may be light or dark."""

import base64
import io
import itertools
import json
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from jaxformer.errors import printable
from jaxformer.observe import text
from jaxformer.observe.svg import Drawing, Scale, dots, frame, legend, path, scale

COLOURS = ("#2f7de1", "#e8743b", "#22a06b", "#b65fcf", "#d4a017", "#d64550", "#1aa6b7", "#8c6d4f")
TRAIN, EVAL = COLOURS[:2]
MOST_POINTS = 600  # of a drawn curve
MOST_DOTTED = 30  # points of a curve that are marked
MOST_ANNOTATED = 20  # classes of a confusion matrix whose counts are written
MOST_NAMED = 50  # classes of a confusion matrix whose names are written
MOST_BARS = 20
LETTER = 6.5  # pixels: a digit of an axis's labels
SMALL = 8.5  # pixels: letters of names and counts
ROW, BAR = 19.5, 14.0  # pixels: a bar and the space beside it, and the bar alone

Curve = tuple[np.ndarray, np.ndarray]


def curves(
    title: str,
    lines: Mapping[str, Curve],
    *,
    colours: Sequence[str] = COLOURS,
    linear: bool = False,
    over: str = "step",
) -> str:
    """Curves over steps, or over something else, in one plot.

    Long ones are thinned out to means of neighbouring points; values that are not finite leave gaps. The axis
    is logarithmic if all values are positive and span more than two decades, unless it is to be `linear`.

    Args:
      title: the metric's name.
      lines: name -> (steps [N], values [N]).
      colours: by line.
      linear: whether the axis is linear in any case.
      over: the name of the horizontal axis.

    Returns:
      An <svg> element. Its attribute data-hover has the values and the axis's place, for a script.
    """
    drawing, (width, height) = Drawing(331, 194), (331, 194)
    drawn = {name: thinned(*line) for name, line in lines.items()}
    steps, values = (np.concatenate([np.zeros(0), *(line[k] for line in drawn.values())]) for k in (0, 1))
    values = values[np.isfinite(values)]
    decades = not linear and values.size and values.min() > 0 and values.max() > 100 * values.min()
    y = scale(values, height - 35, 21, logarithmic=bool(decades))
    up = list(zip(y.ticks(6), labels(y.ticks(6))))
    left = max(0.14 * width, 11 + LETTER * max((len(label) for _, label in up), default=0))
    x = scale(steps, left, width - 10)
    across = [(value, text.engineering(value)) for value in x.ticks(6, whole=all(steps == np.round(steps)))]
    frame(drawing, x, y, across=across, up=up, rules=True, below=over)
    drawing.text(left, 11, title, size=11, font_weight="bold")
    hovered, places = [], []
    for (name, (steps, values)), colour in zip(drawn.items(), itertools.cycle(colours)):
        known = np.isfinite(values)
        points = [[step.item(), float(f"{value:.5g}")] for step, value in zip(steps[known], values[known])]
        hovered.append({"name": name, "colour": colour, "points": points})
        xs, ys = x.at(steps), np.where(known, y.at(np.where(known, values, y.high)), np.nan)
        drawing.add(
            "path", d=path(xs, ys), fill="none", stroke=colour, stroke_width=1.6, stroke_linejoin="round"
        )
        if len(steps) <= MOST_DOTTED:
            drawing.add("path", d=dots(xs, ys), stroke=colour, stroke_width=4, stroke_linecap="round")
        places.append((xs[known], ys[known]))
    if 1 < len(lines) <= len(COLOURS):
        keys = [
            (name, {"stroke": colour, "stroke_width": 1.6})
            for name, colour in zip(lines, itertools.cycle(colours))
        ]
        size = (30 + 5.5 * max(map(len, lines)), 13 * len(lines))
        legend(drawing, *emptiest(size, (x, y), places), keys)
    hover = {
        "over": over,
        "left": x.start / width,
        "right": x.end / width,
        "steps": [x.low, x.high],
        "lines": hovered,
    }
    return drawing.to_svg(f"{title} over {over}s", data_hover=json.dumps(hover))


def emptiest(
    size: tuple[float, float], axes: tuple[Scale, Scale], lines: Sequence[Curve]
) -> tuple[float, float]:
    """The corner of a plot, as left and top in pixels, where a box of a size hides the least of lines in pixels."""
    (width, height), (x, y) = size, axes
    corners = [
        (left, top) for top in (y.end + 2, y.start - height - 4) for left in (x.end - width, x.start + 6)
    ]

    def hidden(corner: tuple[float, float]) -> int:
        left, top = corner
        across, count = np.linspace(left, left + width, 24), 0
        for xs, ys in lines:
            if len(xs):
                heights = np.interp(across, xs, ys, left=np.nan, right=np.nan)
                count += int(((heights > top - 4) & (heights < top + height + 4)).sum())
        return count

    return min(corners, key=hidden)


def labels(ticks: Sequence[float]) -> list[str]:
    """The labels of ticks: short, and with as many digits as tell them apart."""
    found: list[str] = []
    for digits in range(4, 17):
        found = [
            text.engineering(tick) if digits == 4 and abs(tick) >= 10_000 else f"{tick:.{digits}g}"
            for tick in ticks
        ]
        if len(set(found)) == len(found):
            break
    return found


def thinned(steps: np.ndarray, values: np.ndarray) -> Curve:
    """At most MOST_POINTS points: means of as many runs of neighbours; NaN where none of them is finite."""
    values = np.where(np.isfinite(values), values, np.nan)
    if len(steps) <= MOST_POINTS:
        return steps, values
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        means = [np.nanmean(part) for part in np.array_split(values, MOST_POINTS)]
    return np.array([part[-1] for part in np.array_split(steps, MOST_POINTS)]), np.array(means)


def confusion_matrix(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> str:
    """A heat map of true against predicted classes, coloured by share of the true class, with counts.

    Args:
      confusion: int [K, K]; rows are true classes.
      class_names: K names.

    Returns:
      An <svg> element.
    """
    counts = np.asarray(confusion)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(counts)
    names = [shortened(name) for name in class_names] if classes <= MOST_NAMED else []
    longest = max(map(len, names), default=0)
    side, left = float(np.clip(27 * classes, 150, 400)), 24 + 5.0 * longest
    upright = longest > 2
    bottom = side + 6 + (5.0 * longest if upright else 12)
    drawing, cell = Drawing(left + side + 6, bottom + 22), side / max(classes, 1)
    drawing.add(
        "image", x=left, y=3, width=side, height=side, href=shades(share), style="image-rendering: pixelated"
    )
    drawing.add(
        "rect", x=left, y=3, width=side, height=side, fill="none", stroke="currentColor", stroke_width=0.6
    )
    if classes <= MOST_ANNOTATED:
        for row, column in np.argwhere(counts > 0):
            at, ink = (left + (column + 0.5) * cell, 3 + (row + 0.5) * cell), "currentColor"
            ink = "white" if share[row, column] > 0.3 else ink
            drawing.text(*at, str(counts[row, column]), "middle", size=SMALL, fill=ink)
    for index, name in enumerate(names):
        middle = (index + 0.5) * cell
        drawing.text(left - 4, 3 + middle, name, "end", size=SMALL)
        if upright:
            drawing.upright(left + middle, side + 7, name, "end", size=SMALL)
        else:
            drawing.text(left + middle, side + 11, name, "middle", size=SMALL)
    drawing.text(left + side / 2, bottom + 12, "predicted", "middle")
    drawing.upright(9, 3 + side / 2, "true")
    return drawing.to_svg("confusion matrix")


def shades(share: np.ndarray) -> str:
    """Shares [K, K] as an image: the larger, the bluer, and 0 is clear; a data URI.

    Most examples are on the diagonal: a square root shows the mistakes beside it.
    """
    from PIL import Image

    pixels = np.empty((*share.shape, 4), np.uint8)
    pixels[..., :3] = [int(TRAIN[place : place + 2], 16) for place in (1, 3, 5)]
    pixels[..., 3] = np.round(255 * np.sqrt(np.clip(share, 0, 1)))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def reliability(calibration: Sequence[Mapping[str, float]]) -> str:
    """Accuracy against confidence, bin by bin, with the diagonal of perfect calibration and the bins' sizes.

    Args:
      calibration: {"confidence": mean, "accuracy": mean, "count": examples} by bin of confidence.

    Returns:
      An <svg> element.
    """
    columns = ("confidence", "accuracy", "count")
    bins = [[row[name] for name in columns] for row in calibration if row["count"]]
    confidence, accuracy, count = np.array(bins, float).reshape(-1, 3).T
    drawing, fifths = Drawing(432, 353), [(n / 5, f"{n / 5:.1f}") for n in range(6)]
    x, y = Scale(0, 1.02, 58, 424), Scale(0, 1.03, 238, 8)
    sizes = Scale(0, 1.05 * max(count, default=1), 318, 254)
    frame(drawing, x, y, up=fifths, beside="accuracy")
    numbers = [(value, text.engineering(value)) for value in sizes.ticks(3, whole=True)]
    frame(drawing, x, sizes, across=fifths, up=numbers, below="confidence", beside="examples")
    ideal = {"stroke_opacity": 0.5, "stroke_width": 1, "stroke_dasharray": "4 2"}
    gap = {"stroke": EVAL, "stroke_opacity": 0.45, "stroke_width": 5}
    line = {"stroke": TRAIN, "stroke_width": 1.6}
    drawing.line((x.at(0), y.at(0)), (x.at(1.02), y.at(1.02)), **ideal)
    places, reached, half = (
        x.at(confidence),
        y.at(accuracy),
        (x.end - x.start) / 4 / max(len(calibration), 10),
    )
    for place, height, perfect, top in zip(places, reached, y.at(confidence), sizes.at(count)):
        drawing.line((place, perfect), (place, height), **gap)
        size = {"width": 2 * half, "height": sizes.start - top}
        drawing.add("rect", x=place - half, y=top, **size, fill=TRAIN, fill_opacity=0.6)
    drawing.add("path", d=path(places, reached), fill="none", **line)
    drawing.add("path", d=dots(places, reached), stroke=TRAIN, stroke_width=5, stroke_linecap="round")
    legend(drawing, 66, 12, [("perfectly calibrated", ideal), ("gap", gap), ("accuracy", line)])
    return drawing.to_svg("reliability diagram")


def class_bars(names: Sequence[str], values: Sequence[float], label: str) -> str:
    """A bar a class; of many classes, those with the lowest values.

    Args:
      names: of K classes.
      values: [K], 0 ... 1.
      label: the name of the values.

    Returns:
      An <svg> element.
    """
    bars = list(zip(map(shortened, names), values))
    if len(bars) > MOST_BARS:
        bars = sorted(bars, key=lambda bar: bar[1])[:MOST_BARS]
        label = f"{label} of the {MOST_BARS} lowest"
    left, bottom = 12 + 5.0 * max(len(name) for name, _ in bars), 6 + ROW * len(bars)
    drawing, x = Drawing(432, bottom + 36), Scale(0, 1.08, left, 424)
    fifths = [(n / 5, f"{n / 5:.1f}") for n in range(6)]
    frame(drawing, x, Scale(0, 1, bottom, 3), across=fifths, rules=True, below=label)
    for row, (name, value) in enumerate(bars):
        middle, end = 6 + ROW * (row + 0.5), float(x.at(value))
        place = {"x": left, "y": middle - BAR / 2, "width": end - left, "height": BAR}
        drawing.add("rect", **place, fill=TRAIN, fill_opacity=0.85)
        drawing.text(left - 6, middle, name, "end", size=SMALL)
        drawing.text(end + 4, middle, f"{value:.3f}", size=SMALL)
    return drawing.to_svg(f"{label} by class")


def shortened(name: str, most: int = 18) -> str:
    """A name that fits beside an axis, `printable`."""
    name = printable(name, keep="")
    return name if len(name) <= most else name[: most - 1] + "…"
