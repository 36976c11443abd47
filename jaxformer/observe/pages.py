"""The parts that the report and the comparison share: templates, charts of curves, images inside the page."""

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.errors import printable
from jaxformer.observe import plots, text
from jaxformer.observe.writers import Curves

TEMPLATES = Path(__file__).parent / "templates"
FIRST = ("loss", "accuracy", "top5_accuracy", "learning_rate")  # panels in this order, then by name

LOSSES = {"train": "training", "eval": "evaluations"}


def render(template: str, **parts: Any) -> str:
    """A template of TEMPLATES; everything in it is escaped but plots' SVG, which is marked safe there, and `printable`.

    A template has the filters `number`, `cell` and `words`, and `uri(folder)`, which puts a PNG file into the page.

    Raises:
      ValueError: a part lacks something that the template shows.
    """
    from jinja2 import UndefinedError

    try:
        return printable(environment().get_template(template).render(**parts))
    except UndefinedError as error:
        raise ValueError(str(error)) from error


@cache
def environment() -> Any:
    """What reads the templates, each once."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters |= {"number": text.number, "cell": cell, "words": words, "uri": uri}
    return made


def panels(curves: Curves, same_loss: bool = True) -> tuple[list[str], list[str]]:
    """Charts of the curves: "train/loss" and "eval/loss" share one.

    Args:
      curves: by metric.
      same_loss: whether those two can be compared; else each has its own.

    Returns:
      The main charts (metrics of evaluations, the loss and the learning rate) and the others, each an <svg> element.
      Curves that are zero throughout are left out.
    """
    grouped: dict[str, Curves] = {}
    for name in sorted(curves, key=lambda n: (panel_order(n), not n.startswith("train/"))):
        prefix, _, metric = name.rpartition("/")
        panel = metric if same_loss or metric != "loss" else f"loss of {LOSSES.get(prefix, prefix)}"
        grouped.setdefault(panel, {})[prefix or metric] = curves[name]
    main: list[str] = []
    other: list[str] = []
    for metric, lines in grouped.items():
        if is_telling(lines):
            first = metric in FIRST or metric.startswith("loss of ") or "eval" in lines
            (main if first else other).append(chart(metric, lines))
    return main, other


def panel_order(name: str) -> tuple[int, str]:
    """A sort key: the metrics of FIRST come first."""
    metric = name.rpartition("/")[2]
    return (FIRST.index(metric) if metric in FIRST else len(FIRST), metric)


def is_telling(lines: Mapping[str, plots.Curve]) -> bool:
    """Whether any of the curves has a value that is finite and not zero."""
    return any((np.isfinite(values) & (values != 0)).any() for _, values in lines.values())


def chart(metric: str, lines: Mapping[str, plots.Curve], colours: Sequence[str] = plots.COLOURS) -> str:
    """A metric's curves; a schedule is shown in its own shape, on a linear axis."""
    linear = metric.rpartition("/")[2] == "learning_rate"
    return plots.curves(words(metric), lines, colours=colours, linear=linear)


def words(name: str) -> str:
    """A metric's name as words: "learning rate"."""
    return name.replace("_", " ")


def uri(name: str, folder: Path) -> str:
    """A folder's PNG file as a data URI; "" if it is not there."""
    path = folder / Path(name).name  # whatever samples.json says: no other file gets into the page
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else ""


def cell(value: Any) -> str:
    """A table cell."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return text.number(value) if isinstance(value, float) else str(value)
