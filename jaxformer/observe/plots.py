"""Plots as SVG text for a page; text and axes take the page's colour, which may be light or dark.

Made with matplotlib's Figure alone: pyplot and its global state are not touched.
"""

import functools
import html
import io
import itertools
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxformer.observe import text

INK = "#0a0b0c"  # becomes the page's text colour
COLOURS = ("#2f7de1", "#e8743b", "#22a06b", "#b65fcf", "#d4a017", "#d64550", "#1aa6b7", "#8c6d4f")
TRAIN, EVAL = COLOURS[:2]
MOST_POINTS = 600  # of a drawn curve
MOST_ANNOTATED = 20  # classes of a confusion matrix whose counts are written
MOST_NAMED = 50  # classes of a confusion matrix whose names are
MOST_BARS = 20
LETTER, AROUND_TICK = 0.09, 0.12  # inches: a digit of an axis's labels, and what is beside them

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a dollar sign in a name is no formula
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}

Curve = tuple[np.ndarray, np.ndarray]


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    """A transparent Figure of width x height inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout, facecolor="none")


def to_svg(figure: Any, label: str) -> str:
    """A figure as an <svg> element that scales with the page.

    Args:
      label: what it shows, for those who cannot see it; it also keeps ids apart within a page.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(
        r"font: ([0-9.]+)px [^;\"]*", r"font: \1px inherit; font-family: inherit; font-size: \1px", svg
    )
    safe = re.sub(r"[^\w\s.,%-]", "", label)
    return svg.replace(INK, "currentColor").replace("<svg", f'<svg role="img" aria-label="{safe}"', 1)


def styled(function: Any) -> Any:
    """Runs a plotting function in this module's style."""

    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        import matplotlib

        with matplotlib.rc_context(STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has other fonts
            return function(*args, **kwargs)

    return inner


@styled
def curves(
    title: str, lines: Mapping[str, Curve], *, colours: Sequence[str] = COLOURS, linear: bool = False
) -> str:
    """Curves over steps on one axis.

    Long ones are thinned out to means of neighbouring points; values that are not finite leave gaps. The axis
    is logarithmic if all values are positive and span more than two decades, unless it is to be `linear`.

    Args:
      title: the metric's name.
      lines: name -> (steps [N], values [N]).
      colours: by line.
      linear: whether the axis is linear in any case.

    Returns:
      An <svg> element. Its attribute data-hover has the values and the axis's place, for a script.
    """
    figure = new_figure(4.6, 2.7, layout=None)  # a layout found by trial takes twice the time
    axes = figure.add_subplot()
    drawn, readable = [], []
    for (name, (steps, values)), colour in zip(lines.items(), itertools.cycle(colours)):
        steps, values = thinned(np.asarray(steps), np.asarray(values, np.float64))
        known = np.isfinite(values)
        points = [[int(x), float(f"{y:.5g}")] for x, y in zip(steps[known], values[known])]
        readable.append({"name": name, "colour": colour, "points": points})
        marker = "o" if len(steps) <= 30 else None
        axes.plot(steps, values, color=colour, label=name, marker=marker, markersize=3)
        drawn.append(values[known])
    shown = np.concatenate(drawn) if drawn else np.zeros(0)
    if not linear and shown.size and shown.min() > 0 and shown.max() > 100 * shown.min():
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(lambda value, _: "")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_formatter(lambda value, _: tick(value, low, high))
    labels = (tick(value, low, high) for value in axes.get_yticks() if low <= value <= high)
    longest = max(map(len, labels), default=0)
    left = max(0.14, (AROUND_TICK + LETTER * longest) / figure.get_figwidth())
    figure.subplots_adjust(left=left, right=0.97, bottom=0.18, top=0.89)
    axes.xaxis.set_major_formatter(lambda value, _: text.engineering(value))
    axes.locator_params(axis="x", nbins=6)
    axes.grid(True)
    axes.set_title(title)
    axes.set_xlabel("step")
    if 1 < len(lines) <= len(COLOURS):
        axes.legend(loc="best")
    svg = to_svg(figure, f"{title} over steps")
    box = axes.get_position()  # in shares of the figure, from the lower left
    hover = {"left": box.x0, "right": box.x1, "steps": list(axes.get_xlim()), "lines": readable}
    return svg.replace("<svg", f'<svg data-hover="{html.escape(json.dumps(hover))}"', 1)


def tick(value: float, low: float, high: float) -> str:
    """A tick's label: short, and with as many digits as tell it from its neighbours on an axis from low to high."""
    if abs(value) >= 10_000:
        return text.engineering(value)
    digits = 4 if high - low > 1e-2 * abs(high) else 6
    return f"{value:.{digits}g}"


def thinned(steps: np.ndarray, values: np.ndarray) -> Curve:
    """At most MOST_POINTS points: means of as many runs of neighbours; NaN where none of them is finite."""
    if len(steps) <= MOST_POINTS:
        return steps, np.where(np.isfinite(values), values, np.nan)
    parts = np.array_split(np.where(np.isfinite(values), values, np.nan), MOST_POINTS)
    means = [part[~np.isnan(part)].mean() if (~np.isnan(part)).any() else np.nan for part in parts]
    return np.array([part[-1] for part in np.array_split(steps, MOST_POINTS)]), np.array(means)


@styled
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
    axes = figure.add_subplot()
    clear_to_blue = LinearSegmentedColormap.from_list("share", [(0.18, 0.49, 0.88, 0), (0.18, 0.49, 0.88, 1)])
    # The diagonal is where most is: a square root shows the mistakes beside it.
    axes.imshow(np.sqrt(share), cmap=clear_to_blue, vmin=0, vmax=1, interpolation="nearest")
    if classes <= MOST_ANNOTATED:
        for row, column in np.argwhere(counts > 0):
            ink = "white" if share[row, column] > 0.3 else INK
            label = str(counts[row, column])
            axes.text(column, row, label, ha="center", va="center", color=ink, fontsize=8.5)
    if classes <= MOST_NAMED:
        names = [shortened(name) for name in class_names]
        upright = max(map(len, names)) > 2
        axes.set_xticks(range(classes), names, rotation=90 if upright else 0, fontsize=8.5)
        axes.set_yticks(range(classes), names, fontsize=8.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(True)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return to_svg(figure, "confusion matrix")


@styled
def reliability(calibration: Sequence[Mapping[str, float]]) -> str:
    """Accuracy against confidence, bin by bin, with the diagonal of perfect calibration and the bins' sizes.

    Args:
      calibration: {"confidence": mean, "accuracy": mean, "count": examples} by bin of confidence.

    Returns:
      An <svg> element.
    """
    bins = [entry for entry in calibration if entry["count"]]
    confidence, accuracy, count = (
        np.array([b[key] for b in bins]) for key in ("confidence", "accuracy", "count")
    )
    figure = new_figure(6, 4.9)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    above.plot(
        [0, 1], [0, 1], color=INK, alpha=0.5, linestyle="--", linewidth=1, label="perfectly calibrated"
    )
    above.vlines(confidence, confidence, accuracy, color=EVAL, alpha=0.45, linewidth=5, label="gap")
    above.plot(confidence, accuracy, color=TRAIN, marker="o", markersize=5, label="accuracy")
    above.set(xlim=(0, 1.02), ylim=(0, 1.03), ylabel="accuracy")
    above.legend(loc="upper left")
    below.bar(confidence, count, width=0.5 / max(len(calibration), 10), color=TRAIN, alpha=0.6)
    below.set(xlabel="confidence", ylabel="examples")
    for axes in (above, below):
        axes.grid(True, axis="y")
        axes.set_axisbelow(True)
    return to_svg(figure, "reliability diagram")


@styled
def by_position(rows: Sequence[Mapping[str, float]]) -> str:
    """The mean loss of a language model's targets by their place in the text.

    Args:
      rows: {"position": from 0, "loss": nats, "count": targets} by stretch of places.

    Returns:
      An <svg> element.
    """
    positions, losses = ([float(row[key]) for row in rows] for key in ("position", "loss"))
    figure = new_figure(6, 3.2)
    axes = figure.add_subplot()
    axes.plot(positions, losses, color=EVAL, marker="o" if len(rows) <= 30 else None, markersize=3)
    axes.set_xlim(min(positions) - 0.5, max(positions) + 0.5)
    axes.set(xlabel="position", ylabel="nats")
    axes.grid(True)
    return to_svg(figure, "loss by position")


@styled
def class_bars(names: Sequence[str], values: Sequence[float], label: str) -> str:
    """A bar a class; of many classes, those with the lowest values.

    Args:
      names: of K classes.
      values: [K], 0 ... 1.
      label: what the values are.

    Returns:
      An <svg> element.
    """
    order = list(range(len(names)))
    if len(names) > MOST_BARS:
        order = sorted(order, key=lambda k: values[k])[:MOST_BARS]
    figure = new_figure(6, 0.9 + 0.27 * len(order))
    axes = figure.add_subplot()
    shown = [values[k] for k in order]
    bars = axes.barh(range(len(order)), shown, color=TRAIN, alpha=0.85, height=0.72)
    axes.bar_label(bars, [f"{value:.3f}" for value in shown], padding=3, fontsize=8.5)
    axes.set_yticks(range(len(order)), [shortened(names[k]) for k in order], fontsize=8.5)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(0, 1.08)
    axes.set_xlabel(label if len(order) == len(names) else f"{label} of the {len(order)} lowest")
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    return to_svg(figure, f"{label} by class")


def shortened(name: str, most: int = 18) -> str:
    """A name that fits beside an axis."""
    return name if len(name) <= most else name[: most - 1] + "…"
