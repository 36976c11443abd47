"""Successive halving as a pure function: which trials train how far, given what is known of them.

All trials train to the first rung and pause. When all of them are there, the best one of `eta` go on from their
checkpoints to the next rung, and so on (Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943). Who trains
what, and when, changes nothing: a rung is decided when all of its trials are there, by value and then by number.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxformer.sweeps.spaces import Halving


class Task(NamedTuple):
    """A part of a sweep that one worker does: a trial with one seed, up to a rung."""

    trial: int
    """The number of the trial."""
    seed: int
    """The seed."""
    rung: int
    """The number of the rung, from 0."""

    @property
    def run(self) -> str:
        """The name of the run's folder: "0007-seed1"."""
        return f"{self.trial:04}-seed{self.seed}"


Results = Mapping[Task, Mapping[str, Any]]


def rung_shares(halving: Halving | None) -> list[float]:
    """The length of each rung as a share of the training: 1/9, 1/3, 1 with eta=3 and rungs=3."""
    if halving is None:
        return [1.0]
    return [1.0 / halving.eta**after for after in reversed(range(halving.rungs))]


def rung_steps(shares: Iterable[float], total: int) -> list[int]:
    """The step at which each rung of a training of `total` steps ends."""
    return [max(1, math.ceil(share * total - 1e-9)) for share in shares]


def ranked(values: Mapping[int, float | None], mode: str) -> list[int]:
    """The numbers of trials from the best to the worst.

    Args:
      values: number -> metric; None of a trial that failed, and NaN, come last.
      mode: whether more of it is better ("max") or less ("min").
    """

    def key(number: int) -> tuple[bool, float, int]:
        value = values[number]
        if value is None or math.isnan(value):
            return True, 0.0, number
        return False, -value if mode == "max" else value, number

    return sorted(values, key=key)


def promoted(values: Mapping[int, float | None], mode: str, halving: Halving) -> list[int]:
    """The trials that go on to the next rung, in the order of their numbers: one of `eta`, and at least one.

    Trials that failed never go on, even where places are left.
    """
    alive = {number for number, value in values.items() if value is not None and not math.isnan(value)}
    places = max(1, len(values) // halving.eta)
    return sorted(number for number in ranked(values, mode)[:places] if number in alive)


@dataclass(frozen=True)
class Rules:
    """What decides which tasks a sweep has."""

    trials: int
    """How many trials there are."""
    seeds: Sequence[int]
    """The seeds of each trial."""
    mode: str
    """Whether more of the metric is better ("max") or less ("min")."""
    halving: Halving | None
    """None: there is one rung, the whole training."""

    @property
    def shares(self) -> list[float]:
        """The length of each rung as a share of the training."""
        return rung_shares(self.halving)

    def value(self, results: Results, trial: int, rung: int) -> float | None:
        """The mean metric of a trial at a rung over its seeds; None if one failed, or is not there yet."""
        found = [results.get(Task(trial, seed, rung), {}).get("value") for seed in self.seeds]
        known = [float(value) for value in found if value is not None]
        return math.fsum(known) / len(known) if len(known) == len(found) else None

    def rungs(self, results: Results) -> list[list[int]]:
        """The trials of each rung that is decided so far; of the first, all."""
        reached = [list(range(self.trials))]
        while len(reached) < len(self.shares) and not self.missing(results, reached):
            rung = len(reached) - 1
            values = {trial: self.value(results, trial, rung) for trial in reached[-1]}
            assert self.halving is not None
            reached.append(promoted(values, self.mode, self.halving))
        return reached

    def missing(self, results: Results, reached: Sequence[Sequence[int]]) -> list[Task]:
        """The tasks of the latest rung that have no result yet, in order."""
        rung = len(reached) - 1
        tasks = (Task(trial, seed, rung) for trial in reached[-1] for seed in self.seeds)
        return [task for task in tasks if task not in results]

    def due(self, results: Results) -> list[Task]:
        """The tasks that can be done now, in order; none when the sweep is over."""
        return self.missing(results, self.rungs(results))

    def left(self, results: Results) -> float:
        """How much is still to be trained, in whole trainings."""
        shares, reached = [0.0, *self.shares], self.rungs(results)
        rung = len(reached) - 1
        left = len(self.missing(results, reached)) * (shares[rung + 1] - shares[rung])
        count = len(reached[-1])
        for after in range(rung + 1, len(self.shares)):
            count = max(1, count // self.halving.eta) if self.halving and count else 0
            left += count * len(self.seeds) * (shares[after + 1] - shares[after])
        return left
