"""Successive halving as a pure function: which trials train how far, given what is known of them.

All trials train to the first rung and pause. When all of them are there, the best one of `eta` go on from their
checkpoints to the next rung, and so on (Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943). Who trains
what, and when, changes nothing: a rung is decided when all of its trials are there, by value and then by number.
ASHA and the median rule do not wait for all: what they decide depends on timing.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from jaxformer.sweeps.spaces import Halving

FEW = 5  # trials at a rung below which the median says nothing


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
    """The length of each rung as a share of the training: 1/9, 1/3, 1 with eta=3 and rungs=3; by median 1/3, 2/3, 1."""
    if halving is None:
        return [1.0]
    if halving.rule == "median":
        return [(rung + 1) / halving.rungs for rung in range(halving.rungs)]
    return [1.0 / halving.eta**after for after in reversed(range(halving.rungs))]


def rung_steps(shares: Iterable[float], total: int) -> list[int]:
    """The step at which each rung of a training of `total` steps ends."""
    return [max(1, math.ceil(share * total - 1e-9)) for share in shares]


def ranked(values: Mapping[int, float | None], mode: str) -> list[int]:
    """The numbers of trials from the best to the worst.

    Args:
      values: number -> metric; those that are no number (`is_number`) come last.
      mode: whether more of it is better ("max") or less ("min").
    """

    def key(number: int) -> tuple[bool, float, int]:
        value = values[number]
        if value is None or not is_number(value):
            return True, 0.0, number
        return False, -value if mode == "max" else value, number

    return sorted(values, key=key)


def promoted(
    values: Mapping[int, float | None], mode: str, halving: Halving, failed: Collection[int] = ()
) -> list[int]:
    """The trials that go on to the next rung, in the order of their numbers: one of `eta`, and at least one.

    Trials that failed never go on, even where places are left; for one that fails at the next rung the next best does.

    Args:
      values: number -> metric, of all trials of a rung.
      mode: whether more of it is better ("max") or less ("min").
      halving: how many go on.
      failed: the trials that are known to have failed at the next rung.
    """
    places, found = max(1, len(values) // halving.eta), list[int]()
    for number in ranked(values, mode):
        if is_number(values[number]) and len(set(found) - set(failed)) < places:
            found.append(number)
    return sorted(found)


@lru_cache
def first_rungs(trials: int, halving: Halving | None) -> tuple[int, ...]:
    """The rung at which each trial begins: 0, or with brackets as many at each as Hyperband has there.

    The bracket that begins at rung b of R has R / (R - b) * eta^(R - b - 1) trials of a round (Li et al. 2018,
    https://arxiv.org/abs/1603.06560, algorithm 1); a trial goes where most are lacking, so that its bracket depends on
    its number alone.
    """
    if halving is None or not halving.brackets:
        return (0,) * trials
    later = [halving.rungs - begin for begin in range(halving.rungs)]
    sizes = [math.ceil(halving.rungs / rungs * halving.eta ** (rungs - 1)) for rungs in later]
    found: list[int] = []
    counts = [0] * len(sizes)
    for number in range(trials):
        lacking = [
            size * (number + 1) - count * sum(sizes) for size, count in zip(sizes, counts, strict=True)
        ]
        found.append(lacking.index(max(lacking)))
        counts[found[-1]] += 1
    return tuple(found)


def ahead(values: Mapping[int, float | None], mode: str, halving: Halving) -> list[int]:
    """The trials that go on by the values of those that are there, without waiting for others.

    With ASHA (Li et al. 2020, https://arxiv.org/abs/1810.05934) the best one of `eta`, rounded down. By the median rule
    (as in Vizier, https://doi.org/10.1145/3097983.3098043) whoever is no worse than the median, and all while there are
    fewer than FEW.
    """
    order = [number for number in ranked(values, mode) if is_number(values[number])]
    if halving.rule == "asha":
        return order[: len(values) // halving.eta]
    middle = len(order) - 1 if len(values) < FEW else (len(values) - 1) // 2
    return [n for place, n in enumerate(order) if place <= middle or values[n] == values[order[middle]]]


def is_number(value: float | None) -> bool:
    """Whether a trial has a value: it did not fail, and gave neither NaN nor an infinity."""
    return value is not None and math.isfinite(value)


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
    is_open: bool = False
    """Whether more trials may come, so that no rung can be decided for all."""

    @property
    def shares(self) -> list[float]:
        """The length of each rung as a share of the training."""
        return rung_shares(self.halving)

    def first(self, trial: int) -> int:
        """The rung at which a trial begins."""
        return first_rungs(self.trials, self.halving)[trial]

    def is_finished(self, results: Results, trial: int, rung: int) -> bool:
        """Whether all seeds of a trial have a result at a rung."""
        return all(Task(trial, seed, rung) in results for seed in self.seeds)

    def value(self, results: Results, trial: int, rung: int) -> float | None:
        """The mean metric of a trial at a rung over its seeds; None if one failed, or is not there yet."""
        return self.mean([results.get(Task(trial, seed, rung), {}).get("value") for seed in self.seeds])

    def objective(self, results: Results, trial: int, rung: int, metric: str) -> float | None:
        """The mean of another metric, as `value`."""
        runs = [results.get(Task(trial, seed, rung), {}).get("metrics") for seed in self.seeds]
        return self.mean([(metrics or {}).get(metric) for metrics in runs])

    def mean(self, values: Sequence[float | None]) -> float | None:
        """The mean of a value a seed; None if one of them is None."""
        known = [float(value) for value in values if value is not None]
        return math.fsum(known) / len(known) if len(known) == len(values) else None

    def rungs(self, results: Results) -> list[list[int]]:
        """The trials of each rung, as far as it is decided."""
        reached: list[list[int]] = [[] for _ in self.shares]
        for here in self.brackets():
            for rung in range(self.first(here[0]), len(self.shares)):
                reached[rung] += here
                here = self.going_on(results, here, rung)
        while len(reached) > 1 and not reached[-1]:
            reached.pop()
        return [sorted(numbers) for numbers in reached]

    def brackets(self) -> list[list[int]]:
        """The trials by the rung at which they begin."""
        numbers = range(self.trials)
        found = [[n for n in numbers if self.first(n) == rung] for rung in range(len(self.shares))]
        return [bracket for bracket in found if bracket]

    def going_on(self, results: Results, here: Sequence[int], rung: int) -> list[int]:
        """Which of the trials of a rung go on to the next one."""
        if self.halving is None or rung == len(self.shares) - 1:
            return []
        values = {n: self.value(results, n, rung) for n in here if self.is_finished(results, n, rung)}
        if not self.is_open and len(values) == len(here) and self.halving.rule != "median":
            later = (n for n in here if self.is_finished(results, n, rung + 1))
            failed = [n for n in later if self.value(results, n, rung + 1) is None]
            best = promoted(values, self.mode, self.halving, failed)
        elif self.halving.rule == "successive":
            return []
        else:
            best = ahead(values, self.mode, self.halving)
        return sorted(
            {*best, *(n for n in here if any(Task(n, seed, rung + 1) in results for seed in self.seeds))}
        )

    def due(self, results: Results) -> list[Task]:
        """The tasks that can be done now, those of later rungs first, then in order; none when the sweep is over."""
        return [
            task
            for rung, numbers in reversed(list(enumerate(self.rungs(results))))
            for task in (Task(trial, seed, rung) for trial in numbers for seed in self.seeds)
            if task not in results
        ]

    def left(self, results: Results) -> float:
        """How much is still to be trained, in whole trainings; where a rung is not decided, what is to be expected."""
        left, shares = 0.0, self.shares
        for here in self.brackets():
            first = self.first(here[0])
            count, since = len(here), 0.0
            for rung in range(first, len(shares)):
                done = sum(Task(n, seed, rung) in results for n in here for seed in self.seeds)
                left += (count * len(self.seeds) - done) * (shares[rung] - since)
                decided = count == len(here) and all(self.is_finished(results, n, rung) for n in here)
                here, since = self.going_on(results, here, rung), shares[rung]
                count = len(here) if decided else max(len(here), self.expected(count))
        return left

    def expected(self, count: int) -> int:
        """How many of so many trials go on."""
        if self.halving is None or not count:
            return 0
        return (count + 1) // 2 if self.halving.rule == "median" else max(1, count // self.halving.eta)
