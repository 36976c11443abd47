"""The folder of a sweep: what it is (sweep.json), what its trials gave (results/), and what came of it (study.json).

sweep.json                      config, spaces, seeds, code and versions: all that a worker needs
trials/0007-seed1/              an ordinary run, which `train` made
results/0007-seed1-rung0.json   the metrics of a trial at a rung; written once, never changed
leases/0007-seed1.0             who has a trial in hand
logs/                           what the trainings logged
study.json                      all trials and the best one: the same bytes for any number of workers and kills
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxformer.agreement import code_hash
from jaxformer.config import schema, sections
from jaxformer.errors import UserError
from jaxformer.files import locked, made, write_json, writing_to
from jaxformer.reading import as_written, read_json
from jaxformer.runs import differences, environment
from jaxformer.sweeps.checks import check, config_of
from jaxformer.sweeps.halving import Results, Rules, Task, ranked
from jaxformer.sweeps.points import points
from jaxformer.sweeps.spaces import Sweep, sweep_from_json

SWEEP, STUDY, LOCK = "sweep.json", "study.json", ".lock"
TRIALS, RESULTS, LEASES, LOGS, SLOTS = FOLDERS = ("trials", "results", "leases", "logs", "slots")
RESULT = re.compile(r"(\d+)-seed(\d+)-rung(\d+)\.json")
BEFORE = "restore it, or begin the sweep in a new folder"


@dataclass(frozen=True)
class Study:
    """A sweep in its folder."""

    folder: Path
    """Where it is."""
    about: Mapping[str, Any]
    """The content of sweep.json."""

    @classmethod
    def read(cls, folder: str | Path) -> "Study":
        """The sweep in a folder, to look at it.

        Raises:
          UserError: there is none.
        """
        path = Path(folder)
        about = read_json(
            path / SWEEP, {"config": dict, "sweep": dict, "code": dict, "seeds": object}, BEFORE
        )
        if about is None:
            raise UserError(f"{path}: not a sweep's folder (no {SWEEP} in it); `jaxformer sweep` makes one")
        return cls(path, about)

    @classmethod
    def open(cls, folder: str | Path) -> "Study":
        """The sweep in a folder, to work at it.

        Raises:
          UserError: there is none; or it was begun with other code or versions.
        """
        study = cls.read(folder)
        refuse_differences(study.folder, {"code": study.about["code"]}, {"code": code()})
        return study

    @classmethod
    def begin(
        cls, folder: str | Path, config: Mapping[str, Any], sweep: Sweep, source: Any = None
    ) -> "Study":
        """Checks a sweep as a whole, and writes it into its folder; goes on with the one that is there.

        Args:
          folder: its folder, which is made.
          config: nested dicts.
          sweep: what is tried.
          source: the config's name and overrides, as the command line has them; None in Python.

        Raises:
          ConfigError: what is wrong with the sweep, a line each; nothing is written.
          UserError: the folder holds something else, or another sweep, or cannot be written.
        """
        path = Path(folder)
        config = config if is_json(config) else schema.to_dict(sections.resolve(config))
        checked = check(config, sweep)
        found = {"metric": checked.metric, "mode": checked.rules.mode, "seeds": list(checked.rules.seeds)}
        about = {"source": source, **found, "sweep": sweep.to_json(), "config": config, "code": code()}
        about |= {"git_revision": environment()["git_revision"]}
        about = json.loads(json.dumps(about))  # tuples become lists, as they are in the file
        with writing_to(path, "choose another folder"), made(path), locked(path / LOCK):
            before = read_json(path / SWEEP, {"config": dict, "sweep": dict}, BEFORE)
            if before is None and (others := [each.name for each in path.glob("[!.]*")]):
                holds = f"{path}: is no sweep's folder, and holds other files, such as {min(others)!r}"
                raise UserError(f"{holds}; give this sweep a folder of its own")
            if before is not None:
                compared = ("code", "config", "sweep", "metric", "mode", "seeds")
                old: dict[str, Any] = {name: before.get(name) for name in compared}
                new = {name: about[name] for name in compared}
                if (old["sweep"].get("trials") or 0) < (sweep.trials or 0):  # it goes on with more
                    old["sweep"] = {**old["sweep"], "trials": sweep.trials}
                refuse_differences(path, old, new)
            for name in FOLDERS:
                (path / name).mkdir(exist_ok=True)
            write_json(path / SWEEP, about)
        return cls(path, about)

    @cached_property
    def sweep(self) -> Sweep:
        """What is tried."""
        with as_written(self.folder / SWEEP, BEFORE):
            return sweep_from_json(self.about["sweep"])

    @cached_property
    def values(self) -> list[dict[str, Any]]:
        """The values of each trial, by path."""
        return points(self.sweep)

    @cached_property
    def rules(self) -> Rules:
        """What decides which trial trains how far."""
        return Rules(len(self.values), self.about["seeds"], self.about["mode"], self.sweep.halving)

    @property
    def metric(self) -> str:
        """What decides which trial is better."""
        return self.about["metric"]

    def config(self, task: Task) -> sections.ExperimentConfig:
        """The config of a trial with a seed."""
        return sections.resolve(
            config_of(self.about["config"], {**self.values[task.trial], "seed": task.seed})
        )

    def run(self, task: Task) -> Path:
        """The folder of a run."""
        return self.folder / TRIALS / task.run

    def result_file(self, task: Task) -> Path:
        """The file with a task's result."""
        return self.folder / RESULTS / f"{task.run}-rung{task.rung}.json"

    @cached_property
    def known(self) -> dict[Task, dict[str, Any]]:
        """The results that were read; they never change."""
        return {}

    def results(self) -> Results:
        """What is there now."""
        for path in (self.folder / RESULTS).glob("[!.]*.json"):
            if found := RESULT.fullmatch(path.name):
                task = Task(*map(int, found.groups()))
                if (
                    task not in self.known
                    and (result := read_json(path, {"status": str}, BEFORE)) is not None
                ):
                    self.known[task] = result
        return self.known

    def due(self) -> list[Task]:
        """What can be done now, in order; nothing when the sweep is over."""
        return self.rules.due(self.results())

    def outcome(self) -> dict[str, Any]:
        """What study.json holds: every trial with its values and results, best first, and the best one's number.

        Nothing in it tells of machines, times or the order in which trials were trained.
        """
        results, rules = self.results(), self.rules
        reached: dict[int, int] = {}
        for rung, numbers in enumerate(rules.rungs(results)):
            reached |= dict.fromkeys(numbers, rung)
        trials = {number: self._trial(number, rung, results) for number, rung in reached.items()}
        order = [
            number
            for rung in reversed(range(len(rules.shares)))
            for number in ranked({n: trials[n]["value"] for n, r in reached.items() if r == rung}, rules.mode)
        ]
        first = trials[order[0]]  # a trial that failed comes last, and so does one that gave NaN
        whole = first["status"] == "completed" and not math.isnan(first["value"])
        return {
            "metric": self.metric,
            "mode": rules.mode,
            "best": first["trial"] if whole else None,
            "trials": [trials[number] for number in order],
        }

    def _trial(self, number: int, rung: int, results: Results) -> dict[str, Any]:
        """What study.json says of a trial."""
        value = self.rules.value(results, number, rung)
        tasks = [Task(number, seed, each) for seed in self.rules.seeds for each in range(rung + 1)]
        runs = [{"seed": t.seed, "rung": t.rung, **results[t]} for t in tasks if t in results]
        status = "completed" if rung == len(self.rules.shares) - 1 else "paused"
        if value is None:
            failed = any(run["status"] == "failed" for run in runs)
            status = "failed" if failed else "not finished"
        return {
            "trial": number,
            "status": status,
            "value": value,
            "values": self.values[number],
            "rung": rung,
            "runs": runs,
        }

    def finish(self) -> dict[str, Any]:
        """Writes study.json, and returns its content."""
        outcome = self.outcome()
        with writing_to(self.folder / STUDY):
            write_json(self.folder / STUDY, outcome)
        return outcome


def code() -> dict[str, Any]:
    """What has to be the same for all workers: this package's code, and versions."""
    here = environment()
    return {"hash": code_hash(), "python": here["python"], **here["versions"]}


def is_json(value: Any) -> bool:
    """Whether a config holds nothing but what JSON does."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def refuse_differences(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on with a sweep that was begun as something else.

    Raises:
      UserError: the first five leaves that differ.
    """
    if changed := differences([before, now]):
        lines = [f"{path}: {old!r} -> {new!r}" for path, (old, new) in changed.items()]
        more = " ..." * (len(lines) > 5)
        raise UserError(
            f"{folder} holds another sweep: {'; '.join(lines[:5])}{more}",
            "go on with what it was begun with, or give this sweep a folder of its own",
        )
