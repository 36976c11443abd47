"""Samplers that learn: where the next trial looks, given what is known of those before it.

A point is a function of the sweep, the trial's number and the results that it may know; nothing is kept between two
points. So whoever asks gets the same, and there is no state that could be lost. Optuna's study is made anew in memory
for each point, from our own records; its storages and their locks play no part.
"""

import importlib.util
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from jaxformer.errors import UserError
from jaxformer.sweeps.points import chosen, points
from jaxformer.sweeps.spaces import Choice, Parameters, Range, Sweep

FIRST = 10  # points of Sobol's, before tpe and gp have something to learn from
TRIES = 10  # to find a point that was not there yet
PACKAGES = {"tpe": ("optuna",), "cmaes": ("cmaes",), "gp": ("optuna", "torch")}


class Known(NamedTuple):
    """What a sampler knows of a trial."""

    values: Mapping[str, Any]
    """Its values, by path."""
    objectives: Sequence[float] | None
    """What it reached, a number an objective; None while it is under way."""


def check_packages(sampler: str | None) -> None:
    """Makes sure that what a sampler needs is installed.

    Raises:
      UserError: a package is missing.
    """
    for package in PACKAGES.get(sampler or "", ()):
        if importlib.util.find_spec(package) is None:
            remedy = "torch" if package == "torch" else "'jaxformer[sweeps]'"
            raise UserError(
                f"sampler={sampler!r}: needs {package}, which is not installed: pip install {remedy}"
            )


def needed(sweep: Sweep, number: int) -> int:
    """How many of the first trials have to be finished before trial `number` gets its point.

    CMA-ES goes by generations: all points of one are made from the results of those before it. With a budget of hours
    the first trial says what the others will take.
    """
    if sweep.method == "cmaes":
        generation = generation_size(sweep)
        return number // generation * generation
    return max(int(number > 0 and sweep.hours is not None), number - sweep.at_once + 1)


def most_at_once(sweep: Sweep) -> int:
    """How many trials may be under way at a time."""
    return generation_size(sweep) if sweep.method == "cmaes" else sweep.at_once


def told_of(found: Sequence[Sequence[float | None] | None], modes: Iterable[str]) -> list[list[float] | None]:
    """What samplers are told of trials: of one that failed, or gave NaN, in each objective the worst that there is.

    Args:
      found: the objectives of each trial; None while it is under way.
      modes: for each objective whether more of it is better ("max") or less ("min").
    """
    columns = []
    for place, mode in enumerate(modes):
        reached = [each[place] for each in found if each is not None]
        column = [math.nan if value is None else value for value in reached]
        numbers = [value for value in column if math.isfinite(value)]
        worst = (min if mode == "max" else max)(numbers, default=0.0)
        columns.append(iter([value if math.isfinite(value) else worst for value in column]))
    return [None if each is None else [next(column) for column in columns] for each in found]


def point(sweep: Sweep, modes: Sequence[str], number: int, known: Sequence[Known]) -> dict[str, Any]:
    """The values of a trial, by path.

    Args:
      sweep: the sweep; its sampler is one that learns.
      modes: for each objective whether more of it is better ("max") or less ("min").
      number: the trial's number.
      known: the trials before it, in order.
    """
    if sweep.method == "cmaes":
        return by_cmaes(sweep, modes[0], number, [each.objectives for each in known])
    if number < FIRST or all(each.objectives is None for each in known):
        *_, last = points(replace(sweep, sampler="sobol", trials=number + 1))
        return last
    before, values = [each.values for each in known], {}
    for attempt in range(TRIES):
        seed = int(np.random.default_rng([sweep.seed, number, attempt]).integers(2**31))
        values = by_optuna(sweep, modes, known, seed)
        if values not in before:
            break
    return values


def by_optuna(sweep: Sweep, modes: Sequence[str], known: Sequence[Known], seed: int) -> dict[str, Any]:
    """A point of Optuna's tpe (Bergstra et al. 2011, https://papers.nips.cc/paper/4443) or gp."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Optuna calls experimental
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler: optuna.samplers.BaseSampler
        if sweep.method == "tpe":
            sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=1, multivariate=True, group=True, constant_liar=True
            )
        else:
            sampler = optuna.samplers.GPSampler(
                seed=seed, n_startup_trials=1, warn_independent_sampling=False
            )
        states, directions = optuna.trial.TrialState, optuna.study.StudyDirection
        study = optuna.create_study(
            directions=[directions.MAXIMIZE if mode == "max" else directions.MINIMIZE for mode in modes],
            sampler=sampler,
        )
        distributions: dict[str, Any] = {}
        for each in known:
            entries = list(entries_of(sweep.parameters, each.values))
            for name, space, _ in entries:
                if name not in distributions:
                    distributions[name] = distribution(space)
            trial = optuna.trial.create_trial(
                state=states.RUNNING if each.objectives is None else states.COMPLETE,
                values=each.objectives,
                params={name: value for name, _, value in entries},
                distributions={name: distributions[name] for name, *_ in entries},
            )
            trial.__deepcopy__ = lambda _, trial=trial: trial  # type: ignore[attr-defined]  # nobody else has it
            study.add_trial(trial)
        with one_thread() if sweep.method == "gp" else nullcontext():
            return dict(suggested(sweep.parameters, study.ask()))


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch uses one thread: matrices are small, and last bits do not depend on the cores of whoever asks."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def distribution(space: Any) -> Any:
    """A space as Optuna has it; of a choice it knows numbers instead of values."""
    from optuna import distributions

    if isinstance(space, Choice):
        return distributions.CategoricalDistribution(range(len(space.values)))
    if space.kind == "integer":
        return distributions.IntDistribution(space.low, space.high)
    return distributions.FloatDistribution(space.low, space.high, log=space.kind == "log")


def suggested(parameters: Parameters, trial: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yields path and value of the parameters at a point that Optuna's trial suggests.

    What stands under a condition has the condition in its name: under another one it may be another range.
    """
    for path, space in parameters.items():
        name = above + path
        if isinstance(space, Choice):
            found = trial.suggest_categorical(name, range(len(space.values)))
            yield path, space.values[found]
            yield from suggested(space.conditions[found], trial, f"{name}={found}/")
            continue
        assert isinstance(space, Range)
        if space.kind == "integer":
            yield path, trial.suggest_int(name, space.low, space.high)
        else:
            yield (
                path,
                space.rounded(trial.suggest_float(name, space.low, space.high, log=space.kind == "log")),
            )


def entries_of(
    parameters: Parameters, values: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yields name, space and value in Optuna's form of the parameters of a trial."""
    for path, space in parameters.items():
        if not isinstance(space, Choice):
            yield above + path, space, values[path]
            continue
        found = space.values.index(values[path])
        yield above + path, space, found
        yield from entries_of(space.conditions[found], values, f"{above}{path}={found}/")


def spaces_of(parameters: Parameters) -> Iterator[Any]:
    """Yields the spaces in the order in which `chosen` goes through their places, those under conditions included."""
    for space in parameters.values():
        yield space
        if isinstance(space, Choice):
            for below in space.conditions:
                yield from spaces_of(below)


def generation_size(sweep: Sweep) -> int:
    """How many trials a generation of CMA-ES has (Hansen 2016, https://arxiv.org/abs/1604.00772, equation 48)."""
    return 4 + int(3 * math.log(len(list(spaces_of(sweep.parameters)))))


def by_cmaes(
    sweep: Sweep, mode: str, number: int, reached: Sequence[Sequence[float] | None]
) -> dict[str, Any]:
    """A point of CMA-ES with margin, for whole numbers and choices, too (Hamano 2022, https://arxiv.org/abs/2205.13482).

    It looks in the unit cube, as the samplers that do not learn do; all generations are gone through again.
    """
    counts = tuple(len(space.every() or ()) for space in spaces_of(sweep.parameters))
    size, sign, told = generation_size(sweep), -1.0 if mode == "max" else 1.0, []
    for objectives in reached[: number // size * size]:
        assert objectives is not None, "a generation is begun when those before it are finished"
        told.append(sign * objectives[0])
    row = generation(counts, sweep.seed, size, tuple(told))[number % size]
    return dict(chosen(sweep.parameters, iter(np.clip(row, 0.0, np.nextafter(1.0, 0.0)))))


@lru_cache(maxsize=1)  # for the other trials of a generation
def generation(counts: tuple[int, ...], seed: int, size: int, told: tuple[float, ...]) -> list[np.ndarray]:
    """The places of a generation's trials in the unit cube.

    Args:
      counts: how many values each parameter has, 0 of those with any number of them.
      seed: the sweep's.
      size: of a generation.
      told: what all trials of the generations before reached; less is better.
    """
    from cmaes import CMAwM

    steps = np.array([1 / count if count > 1 else 0.0 for count in counts])
    bounds = np.stack([steps / 2, 1 - steps / 2], axis=1)

    def begun(first: int) -> Any:
        drawn = int(np.random.default_rng([seed, first]).integers(2**31))
        return CMAwM(np.full(len(counts), 0.5), 0.3, bounds, steps, seed=drawn, population_size=size)

    search = begun(0)
    for first in range(0, len(told), size):
        search.tell([(search.ask()[1], value) for value in told[first : first + size]])
        if search.should_stop():  # it has found an optimum, and looks for another one
            search = begun(first // size + 1)
    return [search.ask()[0] for _ in range(size)]
