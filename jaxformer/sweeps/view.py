"""A sweep in words: how far it is, which trials are best, and how long it may take."""

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaxformer.errors import counted
from jaxformer.observe.text import duration, number, table
from jaxformer.observe.writers import METRICS
from jaxformer.sweeps.axes import shown
from jaxformer.sweeps.halving import Task
from jaxformer.sweeps.leases import Leases
from jaxformer.sweeps.study import LEASES, TRIALS, Study

ROWS = 10  # trials that are shown
TAIL = 4096  # bytes at the end of a file of metrics
STEP = re.compile(rb'"step": (\d+)')


class View:
    """What is shown of a sweep while it goes on.

    Args:
      study: the sweep.
    """

    def __init__(self, study: Study):
        self.study, self.leases, self.began = study, Leases(study.folder / LEASES), time.monotonic()
        self.left = study.rules.left(study.results())

    def seconds_left(self, left: float) -> float | None:
        """An estimate from what was trained since this began; None before there is something.

        Args:
          left: what is still to be trained, in whole trainings.
        """
        done = self.left - left
        return (time.monotonic() - self.began) * left / done if done > 0 else None

    def text(self) -> str:
        """A line for the sweep, and a table of the best trials."""
        study, rules, outcome = self.study, self.study.rules, self.study.outcome()
        results = study.results()
        due, statuses = rules.due(results), [trial["status"] for trial in outcome["trials"]]
        running = self.leases.held([task.run for task in due])
        parts = [f"{statuses.count('completed')} of {counted(rules.trials, 'trial')} completed"]
        if rules.halving is not None:
            reached = rules.rungs(results)
            parts.append(
                f"rung {len(reached)} of {len(rules.shares)} has {counted(len(reached[-1]), 'trial')}"
            )
        parts += [
            f"{statuses.count(status)} {status}" for status in ("paused", "failed") if status in statuses
        ]
        if running:
            parts.append(f"running: {', '.join(at_step(study.folder / TRIALS / run) for run in running)}")
        if (seconds := self.seconds_left(rules.left(results))) is not None and due:
            parts.append(f"about {duration(seconds)} left")
        return "\n".join(["; ".join(parts), "", *trial_table(outcome, len(rules.shares)).splitlines()])


def at_step(run: Path) -> str:
    """The name of a run, and the last step that its metrics have: "0007-seed1 at step 40"."""
    with suppress(OSError), (run / METRICS).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        if steps := STEP.findall(file.read()):
            return f"{run.name} at step {int(steps[-1]):,}"
    return run.name


def trial_table(outcome: Mapping[str, Any], rungs: int) -> str:
    """The trials as a table, best first, ROWS of them.

    Args:
      outcome: what study.json holds.
      rungs: how many rungs there are.
    """
    known = [trial for trial in outcome["trials"] if trial["status"] != "not finished"]
    paths = list(dict.fromkeys(path for trial in known for path in trial["values"]))
    columns = ["trial", *(path.rpartition(".")[2] for path in paths), outcome["metric"], "status"]
    rows = [
        [
            str(trial["trial"]),
            *(shown(trial["values"][path]) if path in trial["values"] else "" for path in paths),
            "" if trial["value"] is None else number(float(trial["value"])),
            trial["status"]
            + (f" at rung {trial['rung'] + 1} of {rungs}" if trial["status"] == "paused" else ""),
        ]
        for trial in known[:ROWS]
    ]
    return table(columns, rows, right=columns[:-1])


def best_lines(study: Study, outcome: Mapping[str, Any]) -> list[str]:
    """What came of a sweep: a line for its best trial, or one that there is none."""
    best = next((trial for trial in outcome["trials"] if trial["trial"] == outcome["best"]), None)
    if best is None:
        failed = [run for trial in outcome["trials"] for run in trial["runs"] if run["status"] == "failed"]
        why = f"; one says: {failed[0]['line']}" if failed else ""
        return [f"no trial was trained to its end{why}"]
    mean = f", the mean of {len(study.rules.seeds)} seeds" if len(study.rules.seeds) > 1 else ""
    of = ", ".join(f"{path}={value!r}" for path, value in best["values"].items())
    run = study.run(Task(best["trial"], study.rules.seeds[0], 0))
    return [
        f"best: trial {best['trial']}, {outcome['metric']} {number(float(best['value']))}{mean}: {of or 'the config'}",
        f"run:  {run}",
    ]
