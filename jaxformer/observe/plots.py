"""Plots as SVG text for a page; text and axes take the page's colour, which may be light or dark.

They are made with matplotlib's Figure alone, in the style of templates/plots.mplstyle: pyplot and its global state are
not touched.
"""

import contextlib
import html
import io
import itertools
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxformer.errors import printable
from jaxformer.observe import text

INK = "#0a0b0c"  # becomes the page's text colour
COLOURS = ("#2f7de1", "#e8743b", "#22a06b", "#b65fcf", "#d4a017", "#d64550", "#1aa6b7", "#8c6d4f")
TRAIN, EVAL = COLOURS[:2]
MOST_POINTS = 600  # of a drawn curve
MOST_ANNOTATED = 20  # classes of a confusion matrix whose counts are written
MOST_NAMED = 50  # classes of a confusion matrix whose names are written
MOST_BARS = 20
LETTER, AROUND_TICK = 0.09, 0.12  # inches: a digit of an axis's labels, and the space beside them

STYLE = Path(__file__).parent / "templates" / "plots.mplstyle"

Curve = tuple[np.ndarray, np.ndarray]


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    """A transparent Figure of width x height inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout, facecolor="none")


def to_svg(figure: Any, label: str) -> str:
    """A figure as an <svg> element that scales with the page.

    Args:
      figure: the figure.
      label: a description for people who cannot see the plot; it also keeps ids apart within a page.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": printable(label)}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
    font = r"font: \1px inherit; font-family: inherit; font-size: \1px"
    svg = re.sub(r"font: ([0-9.]+)px [^;\"]*", font, svg)
    safe = re.sub(r"[^\w\s.,%-]", "", label)
    return svg.replace(INK, "currentColor").replace("<svg", f'<svg role="img" aria-label="{safe}"', 1)


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Plots in the style of the pages; matplotlib's own settings are as before when the context ends."""
    import matplotlib

    with matplotlib.rc_context(fname=STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has other fonts
        yield


@styled()
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
    figure = new_figure(4.6, 2.7, layout=None)  # a layout found by trial takes twice the time
    axes = figure.subplots()
    hovered, shown = [], np.zeros(0)
    for (name, line), colour in zip(lines.items(), itertools.cycle(colours)):
        steps, values = thinned(*line)
        known = np.isfinite(values)
        points = [[x.item(), float(f"{y:.5g}")] for x, y in zip(steps[known], values[known])]
        hovered.append({"name": name, "colour": colour, "points": points})
        label, marker = printable(name, keep=""), "o" if len(steps) <= 30 else ""
        axes.plot(steps, values, color=colour, label=label, marker=marker, markersize=3)
        shown = np.append(shown, values[known])
    if not linear and shown.size and np.min(shown) > 0 and np.max(shown) > 100 * np.min(shown):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(lambda value, _: "")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_formatter(lambda value, _: tick(value, low, high))
    longest = max((len(tick(y, low, high)) for y in axes.get_yticks() if low <= y <= high), default=0)
    left = max(0.14, (AROUND_TICK + LETTER * longest) / figure.get_figwidth())
    figure.subplots_adjust(left=left, right=0.97, bottom=0.18, top=0.89)
    axes.xaxis.set_major_formatter(lambda value, _: text.engineering(value))
    axes.locator_params(axis="x", nbins=6)
    axes.grid(True)
    axes.set(title=printable(title, keep=""), xlabel=over)
    if 1 < len(lines) <= len(COLOURS):
        axes.legend(loc="best")
    svg = to_svg(figure, f"{title} over {over}s")
    box = axes.get_position()  # in shares of the figure, from the lower left
    hover = {"over": over, "left": box.x0, "right": box.x1, "steps": list(axes.get_xlim()), "lines": hovered}
    return svg.replace("<svg", f'<svg data-hover="{html.escape(json.dumps(hover))}"', 1)


def tick(value: float, low: float, high: float) -> str:
    """A tick's label: short, and with as many digits as tell it from its neighbours on an axis from low to high."""
    if abs(value) >= 10_000:
        return text.engineering(value)
    digits = 4 if high - low > 1e-2 * abs(high) else 6
    return f"{value:.{digits}g}"


def thinned(steps: np.ndarray, values: np.ndarray) -> Curve:
    """At most MOST_POINTS points: means of as many runs of neighbours; NaN where none of them is finite."""
    values = np.where(np.isfinite(values), values, np.nan)
    if len(steps) <= MOST_POINTS:
        return steps, values
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        means = [np.nanmean(part) for part in np.array_split(values, MOST_POINTS)]
    return np.array([part[-1] for part in np.array_split(steps, MOST_POINTS)]), np.array(means)


@styled()
def confusion_matrix(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> str:
    """A heat map of true against predicted classes, coloured by share of the true class, with counts.

    Args:
      confusion: int [K, K]; rows are true classes.
      class_names: K names.

    Returns:
      An <svg> element.
    """
    from matplotlib.colors import LinearSegmentedColormap

    counts = np.asarray(confusion)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(counts)
    size = float(np.clip(1.4 + 0.38 * classes, 3.2, 6.5))
    figure = new_figure(size + 0.4, size)
    axes = figure.subplots()
    clear_to_blue = LinearSegmentedColormap.from_list("share", [(0.18, 0.49, 0.88, 0), (0.18, 0.49, 0.88, 1)])
    # Most examples are on the diagonal: a square root shows the mistakes beside it.
    axes.imshow(np.sqrt(np.maximum(share, 0)), cmap=clear_to_blue, vmin=0, vmax=1, interpolation="nearest")
    if classes <= MOST_ANNOTATED:
        for row, column in np.argwhere(counts > 0):
            ink = "white" if share[row, column] > 0.3 else INK
            axes.text(column, row, counts[row, column], ha="center", va="center", color=ink, fontsize=8.5)
    if classes <= MOST_NAMED:
        names = [shortened(name) for name in class_names]
        axes.set_xticks(range(classes), names, rotation=90 * (max(map(len, names)) > 2), fontsize=8.5)
        axes.set_yticks(range(classes), names, fontsize=8.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(True)
    axes.set(xlabel="predicted", ylabel="true")
    return to_svg(figure, "confusion matrix")


@styled()
def reliability(calibration: Sequence[Mapping[str, float]]) -> str:
    """Accuracy against confidence, bin by bin, with the diagonal of perfect calibration and the bins' sizes.

    Args:
      calibration: {"confidence": mean, "accuracy": mean, "count": examples} by bin of confidence.

    Returns:
      An <svg> element.
    """
    columns = ("confidence", "accuracy", "count")
    bins = [[row[name] for name in columns] for row in calibration if row["count"]]
    confidence, accuracy, count = np.array(bins).reshape(-1, 3).T
    figure = new_figure(6, 4.9)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    above.axline(
        (0, 0), (1, 1), color=INK, alpha=0.5, linestyle="--", linewidth=1, label="perfectly calibrated"
    )
    above.vlines(confidence, confidence, accuracy, color=EVAL, alpha=0.45, linewidth=5, label="gap")
    above.plot(confidence, accuracy, color=TRAIN, marker="o", markersize=5, label="accuracy")
    above.set(xlim=(0, 1.02), ylim=(0, 1.03), ylabel="accuracy")
    above.legend(loc="upper left")
    below.bar(confidence, count, width=0.5 / max(len(calibration), 10), color=TRAIN, alpha=0.6)
    below.set(xlabel="confidence", ylabel="examples")
    above.grid(True, axis="y")
    below.grid(True, axis="y")
    return to_svg(figure, "reliability diagram")


@styled()
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
    places, shown = range(len(bars)), [value for _, value in bars]
    figure = new_figure(6, 0.9 + 0.27 * len(bars))
    axes = figure.subplots()
    drawn = axes.barh(places, shown, color=TRAIN, alpha=0.85, height=0.72)
    axes.bar_label(drawn, [f"{value:.3f}" for value in shown], padding=3, fontsize=8.5)
    axes.set_yticks(places, [name for name, _ in bars], fontsize=8.5)
    axes.set(xlim=(0, 1.08), ylim=(len(bars) - 0.4, -0.6), xlabel=printable(label, keep=""))
    axes.grid(True, axis="x")
    axes.tick_params(axis="y", length=0)
    return to_svg(figure, f"{label} by class")


def shortened(name: str, most: int = 18) -> str:
    """A name that fits beside an axis, `printable`."""
    name = printable(name, keep="")
    return name if len(name) <= most else name[: most - 1] + "…"
