"""Shared by the pages: the templates, the grouping of curves, images inside the page."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.observe import text
from jaxformer.observe.writers import Curves

TEMPLATES = Path(__file__).parent / "templates"
FIRST = ("loss", "accuracy", "top5_accuracy", "learning_rate")  # panels in this order, then by name
Lines = dict[str, tuple[np.ndarray, np.ndarray]]


def render(template: str, **parts: Any) -> str:
    """A template of TEMPLATES; everything in it is escaped but plots' SVG, which is marked safe there."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    return environment.get_template(template).render(**parts)


def panels(curves: Curves) -> tuple[dict[str, Lines], dict[str, Lines]]:
    """Curves by panel: "train/loss" and "eval/loss" share one.

    Returns:
      (main panels, other panels), each title -> name -> (steps, values). The main ones are the metrics of
      evaluations, the loss and the learning rate. Curves that are zero throughout are left out.
    """
    grouped: dict[str, Lines] = {}
    for name in sorted(curves, key=lambda n: (panel_order(n), not n.startswith("train/"))):
        prefix, _, metric = name.rpartition("/")
        grouped.setdefault(metric, {})[prefix or metric] = curves[name]
    telling = {title: lines for title, lines in grouped.items() if is_telling(lines)}
    main = {title: lines for title, lines in telling.items() if title in FIRST or "eval" in lines}
    return main, {title: lines for title, lines in telling.items() if title not in main}


def panel_order(name: str) -> tuple[int, str]:
    """A sort key: FIRST first."""
    metric = name.rpartition("/")[2]
    return (FIRST.index(metric) if metric in FIRST else len(FIRST), metric)


def is_telling(lines: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> bool:
    """Whether any of the curves has a value that is finite and not zero."""
    return any((np.isfinite(values) & (values != 0)).any() for _, values in lines.values())


def data_uri(path: Path) -> str | None:
    """A PNG file as a data URI; None if it is not there."""
    if not path.is_file():
        return None
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def cell(value: Any) -> str:
    """A table cell."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return text.number(value) if isinstance(value, float) else str(value)
