"""The folder of a sweep: what it is (sweep.json), what its trials gave (results/), and what came of it (study.json).

sweep.json                      config, spaces, seeds, code and versions: all that a worker needs
trials/0007-seed1/              an ordinary run, which `train` made
points/0007.json                the values of a trial, where they are decided as the sweep goes on; written once
results/0007-seed1-rung0.json   the metrics of a trial at a rung; written once, never changed
leases/0007-seed1.0             who has a trial in hand
logs/                           what the trainings logged
study.json                      all trials and the best one: the same bytes for any number of workers and kills
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from jaxformer.agreement import code_hash
from jaxformer.config import schema, sections
from jaxformer.errors import UserError
from jaxformer.files import locked, made, write_json, writing_to
from jaxformer.reading import as_written, named, read_json
from jaxformer.runs import differences, environment
from jaxformer.sweeps.budgets import Costs, why_no_more
from jaxformer.sweeps.checks import check, config_of
from jaxformer.sweeps.halving import Results, Rules, Task
from jaxformer.sweeps.outcome import outcome_of
from jaxformer.sweeps.points import combinations, points
from jaxformer.sweeps.records import REMEDY, Records
from jaxformer.sweeps.samplers import PACKAGES, Known, check_packages, needed, point, told_of
from jaxformer.sweeps.spaces import Sweep, sweep_from_json

SWEEP, STUDY, LOCK = "sweep.json", "study.json", ".lock"
FOLDERS = ("trials", "points", "results", "leases", "logs", "slots")
TRIALS, POINTS, RESULTS, LEASES, LOGS, SLOTS = FOLDERS
ENDS = ("trials", "hours", "flops")
AGAIN = "delete it, and its training goes on from its last checkpoint"
RESULT = re.compile(r"(\d+)-seed(\d+)-rung(\d+)\.json")
ABOUT = {
    "config": dict,
    "sweep": dict,
    "code": dict,
    "seeds": object,
    "metric": str,
    "mode": str,
}


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
        path = named(folder)
        about = read_json(path / SWEEP, ABOUT, REMEDY)
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
        now = {"code": code(study.about["sweep"].get("sampler"))}
        refuse_differences(study.folder, {"code": study.about["code"]}, now)
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
        path = named(folder)
        config = config if is_json(config) else schema.to_dict(sections.resolve(config))
        checked = check(config, sweep)
        (metric, mode), *_ = checked.objectives.items()
        found = {"metric": metric, "mode": mode, "objectives": checked.objectives, "seeds": checked.seeds}
        about = {
            "source": source,
            **found,
            "sweep": sweep.to_json(),
            "config": config,
            "code": code(sweep.sampler),
        }
        about |= {"git_revision": environment()["git_revision"]}
        about = json.loads(json.dumps(about))  # tuples become lists, as they are in the file
        with writing_to(path, "choose another folder"), made(path), locked(path / LOCK):
            before = read_json(path / SWEEP, {"config": dict, "sweep": dict}, REMEDY)
            if before is None and (others := {each.name for each in path.glob("[!.]*")} - {*FOLDERS}):
                holds = f"{path}: is no sweep's folder, and holds other files, such as {min(others)!r}"
                raise UserError(f"{holds}; give this sweep a folder of its own")
            if before is not None:
                compared = ("code", "config", "sweep", "objectives", "seeds")
                old: dict[str, Any] = {name: before.get(name) for name in compared}
                new = {name: about[name] for name in compared}
                more = {
                    name: new["sweep"][name] for name in ENDS if is_more(old["sweep"], new["sweep"], name)
                }
                old["sweep"] = {**old["sweep"], **more}  # it goes on with a larger budget
                refuse_differences(path, old, new)
            for name in FOLDERS:
                (path / name).mkdir(exist_ok=True)
            study = cls(path, about)
            if before is not None and more:
                study.records.go_on()
            write_json(path / SWEEP, about)
        return cls(path, about)

    @cached_property
    def sweep(self) -> Sweep:
        """What is tried."""
        with as_written(self.folder / SWEEP, REMEDY):
            return sweep_from_json(self.about["sweep"])

    @property
    def values(self) -> list[dict[str, Any]]:
        """The values of each trial that there is so far, by path."""
        return [each["values"] for each in self.records.read()] if self.sweep.is_open else self.enumerated

    @cached_property
    def enumerated(self) -> list[dict[str, Any]]:
        """The values of all trials of a sweep that is not open."""
        return points(self.sweep)

    @property
    def rules(self) -> Rules:
        """What decides which trial trains how far."""
        values, is_open = self.values, self.may_grow
        return Rules(len(values), self.about["seeds"], self.about["mode"], self.sweep.halving, is_open)

    @cached_property
    def records(self) -> Records:
        """The trials of an open sweep."""
        return Records(self.folder / POINTS)

    @property
    def may_grow(self) -> bool:
        """Whether more trials may come."""
        sweep = self.sweep
        return sweep.is_open and not self.records.is_ended and len(self.records.read()) != sweep.trials

    @property
    def objectives(self) -> dict[str, str]:
        """Metric -> whether more of it is better ("max") or less ("min"); the first one ranks the trials."""
        return self.about.get("objectives") or {self.about["metric"]: self.about["mode"]}

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train; asking changes nothing in the folder."""
        return not self.may_grow and not self.rules.due(self.results())

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
                if task not in self.known and (result := read_json(path, {"status": str}, AGAIN)) is not None:
                    self.known[task] = result
        return self.known

    def due(self) -> list[Task]:
        """What can be done now; nothing when the sweep is over. Trials that can begin now get their points."""
        results = self.results()
        while self.may_grow and self.may_begin(results):
            self.begin_next(results)
        return self.rules.due(results)

    @cached_property
    def costs(self) -> Costs:
        """What trials cost."""
        return Costs()

    def may_begin(self, results: Results) -> bool:
        """Whether all results are there that the next trial's point is made from."""
        rules = self.rules
        enough = needed(self.sweep, rules.trials)
        return all(rules.is_finished(results, n, rules.first(n)) for n in range(enough))

    def begin_next(self, results: Results) -> None:
        """Gives the next trial its point, or decides that there is none; one worker does, and others wait for it."""
        number = len(self.records.read())
        with writing_to(self.folder / POINTS), self.records.deciding(number) as undecided:
            if undecided:
                self.records.write(number, self.decided(number, results))

    def decided(self, number: int, results: Results) -> dict[str, Any]:
        """The record of the next trial, or of why there is none."""
        sweep = self.sweep
        values = self.next_values(number, needed(sweep, number), results)
        if values is None:
            return {"end": "all combinations are there"}
        record: dict[str, Any] = {"values": values}
        if sweep.flops is not None:
            record["flops"] = self.costs.flops(config_of(self.about["config"], values))
        flops = [each["flops"] for each in (*self.records.read()[:number], record) if "flops" in each]
        end = why_no_more(sweep, self.rules, results, flops)
        return {"end": end} if end else record

    def next_values(self, number: int, enough: int, results: Results) -> dict[str, Any] | None:
        """The values of a trial, given the results of so many first trials; None if there are no more combinations."""
        if combinations(self.sweep.parameters, number + 1) <= number:
            return None
        if not self.sweep.learns:
            values = points(
                self.sweep if self.sweep.method == "grid" else replace(self.sweep, trials=number + 1)
            )
            return values[number] if number < len(values) else None
        rules, metrics = self.rules, self.objectives
        found = [
            [rules.objective(results, n, 0, metric) for metric in metrics] if n < enough else None
            for n in range(number)
        ]
        known = [
            Known(values, objectives)
            for values, objectives in zip(self.values, told_of(found, metrics.values()))
        ]
        return point(self.sweep, list(metrics.values()), number, known)

    def outcome(self) -> dict[str, Any]:
        """What study.json holds; see `outcome_of`."""
        return outcome_of(self.rules, self.values, self.objectives, self.results())

    def finish(self) -> dict[str, Any]:
        """Writes study.json, and returns its content."""
        outcome = self.outcome()
        with writing_to(self.folder / STUDY):
            write_json(self.folder / STUDY, outcome)
        return outcome


def is_more(before: Mapping[str, Any], now: Mapping[str, Any], end: str) -> bool:
    """Whether one of the ENDS of a sweep is farther away than it was."""
    return (before.get(end) or 0) < (now[end] or 0)


def code(sampler: str | None) -> dict[str, Any]:
    """What has to be the same for all workers: this package's code, and versions, also of what a sampler needs."""
    check_packages(sampler)
    here, packages = environment(), PACKAGES.get(sampler or "", ())
    return {
        "hash": code_hash(),
        "python": here["python"],
        **here["versions"],
        **{package: metadata.version(package) for package in packages},
    }


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
    if changed := differences([before, now], ABSENT):
        lines = [f"{path}: {told(old)} -> {told(new)}" for path, (old, new) in changed.items()]
        more = " ..." * (len(lines) > 5)
        raise UserError(
            f"{folder} holds another sweep: {'; '.join(lines[:5])}{more}",
            "go on with what it was begun with, or give this sweep a folder of its own",
        )


ABSENT = object()


def told(value: Any) -> str:
    """A value in a message about differences."""
    return "not there" if value is ABSENT else "nothing" if value in ({}, []) else repr(value)
