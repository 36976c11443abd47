"""Trials as rows: all that is known of each of them, for the report and the files beside it."""

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jaxformer.launching import attempts
from jaxformer.observe.report import REPORT
from jaxformer.reading import as_written
from jaxformer.runs import Run
from jaxformer.sweeps.halving import Rules, Task, is_number
from jaxformer.sweeps.study import TRIALS, Study


def trial_rows(study: Study, outcome: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each trial of a sweep, the best first.

    Args:
      study: the sweep.
      outcome: what study.json holds.

    Returns:
      Rows with "trial", "place" from 1 (None without a value), "status", "value" (the mean of the metric over the
      seeds at the last rung that all of them have reached), "deviation" (its standard deviation; None of one seed),
      "seeds" (seed -> value), "metrics" (their means), "rung" from 0, "steps" of a training, "seconds" of all of them,
      "values" (path -> value), "runs" and "reports" (paths in the folder of the sweep), and "line", why it failed.
    """
    rules = study.rules
    rows = [trial_row(study, rules, trial) for trial in outcome["trials"]]
    known = [row for row in rows if row["value"] is not None]
    places = {row["trial"]: place for place, row in enumerate(known, 1)}
    return [{"place": places.get(row["trial"]), **row} for row in rows]


def trial_row(study: Study, rules: Rules, trial: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a trial of study.json, without its place."""
    runs = [run for run in trial["runs"] if run["status"] != "failed"]
    counts = {rung: sum(run["rung"] == rung for run in runs) for rung in range(len(rules.shares))}
    rung = max((each for each, count in counts.items() if count == len(rules.seeds)), default=None)
    last = [run for run in runs if run["rung"] == rung]
    seeds = {run["seed"]: float(run["value"]) for run in last}
    failed = [run["line"] for run in trial["runs"] if run["status"] == "failed"]
    known = bool(seeds) and trial["status"] != "failed" and all(map(is_number, seeds.values()))
    names = [Task(trial["trial"], seed, 0).run for seed in rules.seeds]
    there = [f"{TRIALS}/{name}" for name in names if (study.folder / TRIALS / name).is_dir()]
    return {
        "trial": trial["trial"],
        "status": trial["status"],
        "value": statistics.fmean(seeds.values()) if known else None,
        "deviation": statistics.stdev(seeds.values()) if known and len(seeds) > 1 else None,
        "seeds": seeds,
        "metrics": {
            name: statistics.fmean(float(run["metrics"][name]) for run in last)
            for name in sorted(last[0]["metrics"] if known else (), key=lambda name: name != study.metric)
        },
        "rung": rung,
        "steps": max((run["step"] for run in last or runs), default=None),
        "seconds": math.fsum(seconds_of(Run(study.folder / run)) for run in there),
        "values": trial["values"],
        "runs": there,
        "reports": [f"{run}/{REPORT}" for run in there if (study.folder / run / REPORT).exists()],
        "line": failed[0] if failed else None,
    }


def seconds_of(run: Run) -> float:
    """How long a run has been trained, in all its attempts together."""
    with as_written(run.attempts_file):
        each = attempts.read(run.attempts_file)
        return math.fsum(one.marks[-1].seconds["total"] for one in each if one.marks)


def learning_curve(study: Study, row: Mapping[str, Any]) -> list[tuple[int, float]]:
    """The metric of a trial over its steps, the mean over the seeds wherever all of them were evaluated."""
    found: list[dict[int, float]] = []
    for path in row["runs"]:
        steps, values = Run(study.folder / path).curves.get(f"eval/{study.metric}", ((), ()))
        found.append({int(step): float(value) for step, value in zip(steps, values)})
    if row["steps"] is not None and row["value"] is not None:  # what is measured at a pause is in no curve
        for curve, value in zip(found, row["seeds"].values()):
            curve[row["steps"]] = value
    both = sorted(set.intersection(*map(set, found))) if found else []
    means = ((step, statistics.fmean(curve[step] for curve in found)) for step in both)
    return [(step, value) for step, value in means if math.isfinite(value)]


def as_csv(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The rows as a table with a head: one line for each trial, one column for each parameter, metric and seed."""
    paths, metrics, seeds = (
        list(dict.fromkeys(key for row in rows for key in row[name]))
        for name in ("values", "metrics", "seeds")
    )
    plain = ("trial", "place", "status", "value", "deviation", "rung", "steps", "seconds")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*plain, *paths, *metrics, *(f"{metric} of seed {seed}" for seed in seeds), "line"])
    for row in rows:
        cells = [row[name] for name in plain]
        for name, keys in {"values": paths, "metrics": metrics, "seeds": seeds}.items():
            cells += [row[name].get(key) for key in keys]
        writer.writerow([*cells, row["line"]])
    return buffer.getvalue()
