"""Numbers, names and tables as people read them."""

import io
import math
from collections.abc import Mapping, Sequence

from jaxformer.errors import data_size as data_size
from jaxformer.errors import printable

UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), foot: bool = False
) -> str:
    """Rows under a head, in aligned columns.

    Args:
      columns: the head.
      rows: a cell for each column.
      right: the columns that are flush right.
      foot: whether the last row stands below a rule.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    cells = [[printable(cell, keep="") for cell in row] for row in rows]
    body, last = (cells[:-1], cells[-1]) if foot else (cells, [""] * len(columns))
    made = Table(box=box.SIMPLE, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, show_footer=foot)
    for name, below in zip(columns, last, strict=True):
        made.add_column(name, below, justify="right" if name in right else "left", no_wrap=True)
    for row in body:
        made.add_row(*row)
    console = Console(file=io.StringIO(), width=10_000, markup=False, emoji=False, color_system=None)
    with console.capture() as drawn:
        console.print(made, highlight=False)
    return "\n".join(line.rstrip() for line in drawn.get().splitlines())


def notes(pairs: Mapping[str, str | None]) -> str:
    """One line for each name and its value, with aligned values, made `printable`; a value of None is left out."""
    known = {name: value for name, value in pairs.items() if value is not None}
    width = max(map(len, known), default=0)
    return "\n".join(f"{name.ljust(width)}  {printable(value, keep='')}" for name, value in known.items())


def number(value: float) -> str:
    """A metric: four significant digits, no exponent where it can be helped ("0.9861", "2.3e-07", "NaN")."""
    size = abs(value)
    if math.isnan(value):
        return "NaN"
    if size == 0:
        return "0"
    if size < 1e-4 or size >= 1e7:  # infinity is "inf"
        return f"{value:.3g}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if size < 1 else f"{value:.4g}"


def doubt(metrics: Mapping[str, float | str]) -> str:
    """What is said behind metrics that never count as the best (`Evaluation.ranked`); "" behind others."""
    usable = math.isfinite(float(metrics.get("loss", 0)))
    return "" if usable else " (the loss is not finite, so this never counts as the best)"


def engineering(value: float, unit: str = "") -> str:
    """Three significant digits and a decimal prefix: "5.72M", "1.08 TFLOP" with unit "FLOP"."""
    gap = " " if unit else ""
    for scale, prefix in UNITS:
        if abs(value) >= scale * 0.9995:
            return f"{value / scale:.3g}{gap}{prefix}{unit}"
    return f"{value:.3g}{gap}{unit}"


def duration(seconds: float) -> str:
    """Seconds as "0.52 s", "42 s", "3:07 min", "2:03:11 h" or "3 d 04:10 h"."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, second = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{second:02d} min"
    hours, minute = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}:{minute:02d}:{second:02d} h"
    days, hour = divmod(hours, 24)
    return f"{days} d {hour:02d}:{minute:02d} h"
