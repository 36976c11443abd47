"""A comparison of runs: a page that needs no network and no script, and a table for the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError, counted, printable
from jaxformer.files import write_atomically
from jaxformer.observe import pages, plots, text
from jaxformer.observe.summary import best_text, costs
from jaxformer.reading import as_written
from jaxformer.runs import Run, differences

ABSENT = object()


def compare_runs(run_dirs: Sequence[Path], output: Path) -> str:
    """Writes a page that compares runs: metrics, sizes, speed, differences in configs, curves.

    Args:
      run_dirs: run folders, in the order of the page.
      output: the page's path.

    Returns:
      The runs' sizes and results as a table in Markdown.

    Raises:
      UserError: one is not a run's folder, or there is none.
    """
    if not run_dirs:
        raise UserError("nothing to compare: name the folders of runs")
    runs = [Run.open(folder) for folder in run_dirs]
    folders = [run.name for run in runs]
    names = [str(run.folder) if folders.count(run.name) > 1 else run.name for run in runs]
    write_atomically(Path(output), pages.render("comparison.html.j2", **comparison_parts(runs, names)))
    return markdown_table([{"run": name, **in_short(run)} for run, name in zip(runs, names)])


def in_short(run: Run) -> dict[str, str]:
    """A run's best metrics and its costs, in words; unknown ones are empty, and without metrics the status is shown."""
    with as_written(run.result_file):
        known = costs(run.result or {})
        del known["MFU"]  # of different devices
        return {"best": best_text(run.result or {}) or run.status + text.doubt(run.metrics), **known}


def markdown_table(rows: Sequence[dict[str, str]]) -> str:
    """Rows of the same columns, aligned."""
    cells = [[printable(cell, keep="").replace("|", r"\|") for cell in row.values()] for row in rows]
    lines = [list(rows[0]), *cells]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(cell.ljust(n) for cell, n in zip(line, widths))} |" for line in lines)


def comparison_parts(runs: Sequence[Run], names: Sequence[str]) -> dict[str, Any]:
    """The template's values, by name."""
    colours = [plots.COLOURS[index % len(plots.COLOURS)] for index in range(len(runs))]
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    short = [in_short(run) for run in runs]
    cells = [
        [run.status, run.step, *words.values(), *map(run.metrics.get, metrics)]
        for run, words in zip(runs, short)
    ]
    charts = {}
    for metric in {name for run in runs for name in run.curves}:
        having = [
            (name, run, colour) for name, run, colour in zip(names, runs, colours) if metric in run.curves
        ]
        lines = {name: run.curves[metric] for name, run, _ in having}
        if pages.is_telling(lines):
            charts[metric] = pages.chart(metric, lines, [colour for *_, colour in having])
    return {
        "title": counted(len(runs), "run"),
        "names": list(zip(names, colours)),
        "columns": ["status", "step", *short[0], *metrics],
        "rows": list(zip(names, colours, cells)),
        "differences": config_differences(runs),
        "curves": [
            charts[m] for m in sorted(charts, key=lambda m: (m[:5] != "eval/", pages.panel_order(m), m))
        ],
    }


def config_differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The config leaves in which runs differ: path -> a value for each run, "" where it has no such leaf."""
    found = differences([run.config for run in runs], ABSENT)
    return {path: ["" if value is ABSENT else repr(value) for value in found[path]] for path in sorted(found)}
