"""Runs held against each other: a page that needs no network and no script, and a table for the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError
from jaxformer.files import write_atomically
from jaxformer.observe import pages, plots, text
from jaxformer.observe.report import chart
from jaxformer.observe.summary import best_metrics
from jaxformer.runs import Run

ABSENT = object()


def compare_runs(run_dirs: Sequence[Path], output: Path) -> str:
    """Writes a page that holds runs against each other: metrics, sizes, speed, differences in configs, curves.

    Args:
      run_dirs: run folders, in the order of the page.
      output: the page's path.

    Returns:
      The runs' sizes and results as a table in Markdown.

    Raises:
      UserError: one is not a run's folder, or there is none.
    """
    if not run_dirs:
        raise UserError(
            "nothing to compare: name the folders of runs, as in `jaxformer report runs/a runs/b`"
        )
    runs = [Run.open(folder) for folder in run_dirs]
    names = distinct_names(runs)
    write_atomically(Path(output), pages.render("comparison.html.j2", **comparison_parts(runs, names)))
    return markdown_table([{"run": name, **in_short(run)} for run, name in zip(runs, names)])


def distinct_names(runs: Sequence[Run]) -> list[str]:
    """The folders' names; their paths where names are the same."""
    names = [run.name for run in runs]
    return [str(run.folder) if names.count(run.name) > 1 else run.name for run in runs]


def in_short(run: Run) -> dict[str, str]:
    """A run's best metrics and its costs, in words; unknown ones are empty, and without metrics the status is shown."""
    result = run.result or {}
    best, seconds = result.get("best"), result.get("seconds", {})
    flops, rate = result.get("flops_per_example"), result.get("examples_per_second")
    shown = best_metrics(best) if best else {}
    return {
        "best": ", ".join(f"{name} {text.number(value)}" for name, value in shown.items()) or run.status,
        "parameters": text.engineering(result["parameters"]) if "parameters" in result else "",
        "FLOPs/example": text.engineering(flops) if flops else "",
        "examples/s": text.number(rate) if rate else "",
        "time": text.duration(seconds["total"]) if "total" in seconds else "",
    }


def markdown_table(rows: Sequence[dict[str, str]]) -> str:
    """Rows of the same columns, aligned."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(cell.ljust(n) for cell, n in zip(line, widths))} |" for line in lines)


def comparison_parts(runs: Sequence[Run], names: Sequence[str]) -> dict[str, Any]:
    """The template's values, by name."""
    colours = [plots.COLOURS[index % len(plots.COLOURS)] for index in range(len(runs))]
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    rows, short = [], [in_short(run) for run in runs]
    for run, name, colour, words in zip(runs, names, colours, short):
        measured = [pages.cell(run.metrics.get(metric)) for metric in metrics]
        cells = [run.status, pages.cell(run.step), *words.values(), *measured]
        rows.append({"name": name, "colour": colour, "cells": cells})
    charts = []
    for metric in dict.fromkeys(name for run in runs for name in run.curves):
        lines = {name: run.curves[metric] for run, name in zip(runs, names) if metric in run.curves}
        own = [colour for run, colour in zip(runs, colours) if metric in run.curves]
        if pages.is_telling(lines):
            charts.append((metric, chart(metric, lines, own)))
    charts.sort(key=lambda chart: (not chart[0].startswith("eval/"), pages.panel_order(chart[0])))
    return {
        "title": f"{len(runs)} runs",
        "names": [{"name": name, "colour": colour} for name, colour in zip(names, colours)],
        "columns": ["status", "step", *short[0], *metrics],
        "rows": rows,
        "differences": config_differences(runs),
        "curves": [svg for _, svg in charts],
    }


def config_differences(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Config leaves in which the runs are not all the same: "path" and a value for each run."""
    leaves = [run.leaves for run in runs]
    found = []
    for path in sorted({path for each in leaves for path in each}):
        values = [each.get(path, ABSENT) for each in leaves]
        if any(value != values[0] for value in values):
            found.append(
                {"path": path, "values": ["" if value is ABSENT else repr(value) for value in values]}
            )
    return found
