"""The best trial of a sweep against the config that the sweep changes: both trained anew, with the same new seeds.

It is a sweep of two trials, so that it goes on after a kill, and other machines can join. Its seeds are none of those
by which the best trial was chosen: among many trials the best one was lucky, too.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxformer.config import files, schema, sections
from jaxformer.errors import UserError, counted
from jaxformer.observe.text import number
from jaxformer.sweeps.checks import config_of
from jaxformer.sweeps.spaces import Choice, Sweep, choice
from jaxformer.sweeps.study import ABSENT, Study

BEST = "best"  # the folder in that of the sweep
CONFIG, WINNER = 0, 1  # the numbers of the trials
ENOUGH = 5  # seeds: of fewer even the same sign in all of them is likely by chance
RESAMPLED = 9_999


def comparison(
    study: Study, trial: int, seeds: int, changes: Mapping[str, Any]
) -> tuple[dict[str, Any], Sweep]:
    """The config and the sweep of two trials: the config as it is, and with the values of a trial.

    Args:
      study: the sweep whose trial it is.
      trial: the number of the trial.
      seeds: how many seeds both are trained with: those that follow the sweep's.
      changes: leaves of both, such as a longer training.

    Raises:
      UserError: a change is of a leaf that the sweep tried, or the config lacks all leaves that differ.
    """
    values = study.values[trial]
    if both := [path for path in changes if path in values]:
        raise UserError(
            f"{both[0]}: is what the sweep has tried; leave it out, or train by itself what is to differ"
        )
    config = config_of(study.about["config"], changes)
    first = max(study.rules.seeds) + 1
    more: dict[str, Any] = {
        "seeds": tuple(range(first, first + seeds)),
        "metric": study.metric,
        "cores_per_trial": study.sweep.cores_per_trial,
        "accelerators_per_trial": study.sweep.accelerators_per_trial,
    }
    before, after = (schema.to_dict(sections.resolve(each)) for each in (config, config_of(config, values)))
    differing = [path for path in values if leaf(before, path) != leaf(after, path)]
    if absent := [path for path in differing if leaf(before, path) is ABSENT]:
        differing = [path for path in differing if path not in absent]
        if not differing:
            raise UserError(
                f"{absent[0]}: the config has no value to compare the best trial's with; give it one"
            )
    if not differing:  # the best trial is the config
        return config, Sweep(**more)
    pivot, *_ = differing
    others = {path: choice([value]) for path, value in values.items() if path != pivot}
    return config, Sweep({pivot: Choice((leaf(before, pivot), values[pivot]), ({}, others))}, **more)


def leaf(config: Any, path: str) -> Any:
    """What nested dicts and lists hold at a path; ABSENT if there is nothing."""
    found = config
    for part in files.parts_of(path):
        if isinstance(found, Sequence) and not isinstance(found, str):
            found = found[int(part)] if part.isdecimal() and int(part) < len(found) else ABSENT
        else:
            found = found.get(part, ABSENT) if isinstance(found, Mapping) else ABSENT
    return found


@dataclass(frozen=True)
class Verdict:
    """What two lists of values, one a seed, say of each other."""

    config: list[float]
    """The metric of the config, by seed."""
    winner: list[float]
    """That of the best trial, of the same seeds."""
    mode: str
    """Whether more of it is better ("max") or less ("min")."""

    @property
    def gains(self) -> np.ndarray:
        """By how much the best trial is better, float64 [seeds]."""
        gains = np.array(self.winner) - np.array(self.config)
        return gains if self.mode == "max" else -gains

    def interval(self) -> tuple[float, float]:
        """95% of the means of resampled gains: a paired bootstrap over the seeds, by percentiles.

        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13. Examples are not resampled.
        """
        from scipy.stats import bootstrap

        found = bootstrap((self.gains,), np.mean, n_resamples=RESAMPLED, method="percentile", random_state=0)
        return float(found.confidence_interval.low), float(found.confidence_interval.high)

    def lines(self, metric: str) -> list[str]:
        """The means, the difference, and whether the best trial is better."""
        said = [
            f"{name}: {metric} {number(statistics.fmean(values))} ± {number(statistics.stdev(values))}"
            if len(values) > 1
            else f"{name}: {metric} {number(values[0])}"
            for name, values in {"the config": self.config, "the best trial": self.winner}.items()
        ]
        gains, seeds = self.gains, counted(len(self.gains), "seed")
        better = (
            f"better in {int((gains > 0).sum())} of {seeds}, by {number(float(gains.mean()))} in the mean"
        )
        if len(gains) < ENOUGH:
            return [
                *said,
                better,
                f"whether it beats the config is not to be told from fewer than {ENOUGH} seeds",
            ]
        low, high = self.interval()
        beats = (
            "beats the config"
            if low > 0
            else "is worse than the config"
            if high < 0
            else "does not beat the config"
        )
        how = "paired bootstrap over the seeds, on the same examples"
        narrow = "; of so few seeds it is rather too narrow" if len(gains) < 2 * ENOUGH else ""
        return [
            *said,
            f"{better}; 95% interval {number(low)} to {number(high)} ({how}{narrow})",
            f"the best trial {beats}",
        ]


def compares(both: Study, study: Study, trial: int) -> bool:
    """Whether a sweep is the `comparison` of a trial, and not of one that was the best before."""
    _, sweep = comparison(study, trial, 1, {})
    return both.sweep.to_json()["parameters"] == sweep.to_json()["parameters"]


def verdict_lines(study: Study) -> list[str]:
    """What came of a `comparison`, in lines; none before it is done.

    Args:
      study: the sweep of the two trials.
    """
    if not study.is_over:
        return []
    by_number = {trial["trial"]: trial for trial in study.outcome()["trials"]}
    if len(by_number) == 1:
        return ["the best trial is the config itself"]
    values = []
    for trial, name in {CONFIG: "the config", WINNER: "the best trial"}.items():
        runs = by_number[trial]["runs"]
        if failed := [run for run in runs if run["status"] == "failed"]:
            return [f"{name} failed with {counted(len(failed), 'seed')}: {failed[0]['line']}"]
        values.append([float(run["value"]) for run in runs])
    return Verdict(values[CONFIG], values[WINNER], study.rules.mode).lines(study.metric)
