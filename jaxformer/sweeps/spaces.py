"""Search spaces: which values a leaf of a config takes, and how a `Sweep` goes through them.

    from jaxformer.sweeps.spaces import Sweep, choice, log

    def get_sweep():
        return Sweep({"optimizer.learning_rate": log(1e-4, 1e-2), "model.width": choice([32, 64])}, trials=16)

A choice whose values bring parameters of their own is a mapping from each value to them:
`choice({"adamw": {"optimizer.b2": uniform(0.9, 0.999)}, "lion": {}})`.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from jaxformer.config import fields, schema

SIGNIFICANT = 6
"""Digits of the numbers that ranges give, so that they can be read, and are the same on every machine."""


class Space:
    """The values of a leaf."""

    def problems(self) -> Iterator[str]:
        """Yields what is wrong with it."""
        raise NotImplementedError

    def at(self, place: float) -> Any:
        """The value at a place from 0 to 1, which is excluded."""
        raise NotImplementedError

    def every(self) -> Sequence[Any] | None:
        """All values in order; None if there is no end of them."""
        return None

    def ends(self) -> Sequence[Any]:
        """Values that stand for all where a field's constraint is checked."""
        raise NotImplementedError

    def below(self, value: Any) -> "Parameters":
        """The parameters that are there only where this value is chosen."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """As JSON, which `from_json` reads."""
        raise NotImplementedError


Parameters: TypeAlias = Mapping[str, Space]


@dataclass(frozen=True)
class Choice(Space):
    """One of several values."""

    values: tuple[Any, ...]
    """The values: what a config file could say."""
    conditions: tuple[Parameters, ...]
    """What each brings along."""

    def problems(self) -> Iterator[str]:
        if not self.values:
            yield "a choice of nothing; name at least one value"
        if twice := [value for i, value in enumerate(self.values) if value in self.values[:i]]:
            yield f"{twice[0]!r} is there twice; name different values"
        for value in self.values:
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError):
                yield f"{schema.quoted(value)}: is nothing that a config can hold; use numbers, texts, lists and dicts"

    def at(self, place: float) -> Any:
        return self.values[int(place * len(self.values))]

    def every(self) -> Sequence[Any]:
        return self.values

    def ends(self) -> Sequence[Any]:
        return self.values

    def below(self, value: Any) -> Parameters:
        return self.conditions[self.values.index(value)]

    def to_json(self) -> dict[str, Any]:
        if not any(self.conditions):
            return {"choice": list(self.values)}
        below = [{path: space.to_json() for path, space in each.items()} for each in self.conditions]
        return {"choice": list(self.values), "conditions": below}


@dataclass(frozen=True)
class Range(Space):
    """Numbers between two ends."""

    kind: Literal["uniform", "log", "integer"]
    """Evenly, evenly in their logarithm, or whole numbers with both ends."""
    low: Any
    """The least."""
    high: Any
    """The most."""

    def problems(self) -> Iterator[str]:
        said, wanted = (
            f"{self.kind}({self.low!r}, {self.high!r})",
            (int,) if self.kind == "integer" else (int, float),
        )
        numbers = [end for end in (self.low, self.high) if type(end) in wanted and math.isfinite(end)]
        if len(numbers) < 2:
            yield f"{said}: expected two {'whole ' * (self.kind == 'integer')}numbers"
        elif self.low >= self.high:
            yield f"{said}: there is nothing in this range; give the smaller number first, and then the larger"
        elif self.kind == "log" and self.low <= 0:
            yield f"{said}: has no logarithm; begin above 0, or use uniform"

    def at(self, place: float) -> Any:
        if self.kind == "integer":
            return self.low + int(place * (self.high - self.low + 1))
        if self.kind == "log":
            value = self.low * (self.high / self.low) ** place
        else:
            value = self.low + (self.high - self.low) * place
        return self.rounded(value)

    def rounded(self, value: float) -> float:
        """A number of this range with SIGNIFICANT digits."""
        return min(max(float(f"{value:.{SIGNIFICANT}g}"), float(self.low)), float(self.high))

    def every(self) -> Sequence[Any] | None:
        return range(self.low, self.high + 1) if self.kind == "integer" else None

    def ends(self) -> Sequence[Any]:
        return [self.low, self.high] if self.kind == "integer" else [float(self.low), float(self.high)]

    def to_json(self) -> dict[str, Any]:
        return {self.kind: [self.low, self.high]}


def choice(values: Sequence[Any] | Mapping[Any, Parameters]) -> Space:
    """One of several values; in a mapping each has parameters of its own, which are there only with it."""
    conditions = values.values() if isinstance(values, Mapping) else [{} for _ in values]
    return Choice(tuple(values), tuple(dict(each) for each in conditions))


def uniform(low: float, high: float) -> Space:
    """Numbers from `low` to `high`, evenly."""
    return Range("uniform", low, high)


def log(low: float, high: float) -> Space:
    """Numbers from `low` to `high`, evenly in their logarithm: as many from 1e-4 to 1e-3 as from 1e-3 to 1e-2."""
    return Range("log", low, high)


def integer(low: int, high: int) -> Space:
    """Whole numbers from `low` to `high`, both included."""
    return Range("integer", low, high)


def from_json(value: Mapping[str, Any]) -> Space:
    """The space that `to_json` wrote."""
    (kind, given), *more = value.items()
    if kind != "choice":
        return Range(kind, *given)  # type: ignore[arg-type]
    below = more[0][1] if more else [{} for _ in given]
    return Choice(
        tuple(given), tuple({path: from_json(space) for path, space in each.items()} for each in below)
    )


Rungs: TypeAlias = Annotated[int, fields.between(2, 10)]
Eta: TypeAlias = Annotated[int, fields.between(2, 100)]
Seed: TypeAlias = Annotated[int, fields.between(0, 2**32 - 1)]
Seeds: TypeAlias = Annotated[tuple[Seed, ...], fields.not_empty("at least one seed")]
Metrics: TypeAlias = Annotated[tuple[str, ...], fields.not_empty("at least one metric")]
LEARNING = ("tpe", "cmaes", "gp")


@dataclass(frozen=True)
class Halving:
    """Trials train to a rung and pause; the best go on from their checkpoints to the next."""

    eta: Eta = 3
    """At each rung one of so many goes on; and each rung is so many times as long as the one before."""
    rungs: Rungs = 3
    """How many rungs there are; the last is the whole training."""
    rule: Literal["successive", "asha", "median"] = "successive"
    """Who goes on. successive: the best of a rung, once all of its trials are there. asha: the best of those that are
    there, at once; which these are depends on timing. median: whoever is no worse than the median of those that are
    there, over rungs of one length; it depends on timing, too, and `eta` plays no part."""
    brackets: bool = False
    """Hyperband: some of the trials begin at a later rung, in case the first ones tell little."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if self.brackets and self.rule != "successive":
            yield f"brackets: Hyperband's are of successive halving; leave out rule={self.rule!r}, or the brackets"


@dataclass(frozen=True)
class Sweep:
    """What is tried, how, and what decides which trial is the best."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Path of a leaf -> its `Space`."""
    sampler: Literal["grid", "random", "sobol", "halton", "tpe", "cmaes", "gp"] | None = None
    """How values are taken from the spaces; None: a grid if no end is given, else Sobol's points. tpe, cmaes and gp
    learn from the trials that are finished."""
    trials: Annotated[int, fields.at_most(100_000)] | None = None
    """How many trials; a grid has as many as there are combinations."""
    hours: fields.PositiveFloat | None = None
    """A budget: no more trials than can be trained in so many hours, by what trials took so far, those of all workers
    added up. The number of trials depends on timing."""
    flops: fields.PositiveFloat | None = None
    """A budget: no more trials than can be trained with so many FLOPs, by the analysis of the train step;
    evaluations are not counted."""
    at_once: Annotated[int, fields.at_most(1024)] = 4
    """With tpe, gp or a budget: a trial begins when all are finished but the at_once - 1 before it, and knows nothing
    of these. So its values do not depend on the number of workers; more workers than this would wait. With hours the
    others wait for the first one, too, which says what they will take."""
    seeds: fields.PositiveInt | Seeds = 1
    """Each trial is trained with each of these seeds, and the mean counts; a number: so many, from the config's on."""
    metric: str | Metrics | None = None
    """What decides which trial is better; None: the config's eval.monitor. Several are several objectives: the first
    one ranks trials, and study.json has the Pareto front."""
    halving: Halving | None = None
    """Successive halving; None: every trial is trained to its end."""
    seed: Seed = 0
    """Decides the random and quasi-random points, and those of samplers that learn."""
    population: Annotated[int, fields.between(1, 1024)] = 1
    """How many trainings a worker does at once, as one program over a further axis; they differ in numbers alone."""
    cores_per_trial: fields.PositiveInt = 1
    """CPU cores of a worker where it trains on CPUs: results depend on it in their last bits, never on the number of
    workers."""
    accelerators_per_trial: fields.PositiveInt = 1
    """GPUs, or TPU chips, of a worker where it has some; the others of a machine are for other workers."""

    @property
    def method(self) -> str:
        """The sampler that is used."""
        ends = (self.trials, self.hours, self.flops)
        return self.sampler or ("grid" if ends == (None, None, None) else "sobol")

    @property
    def objectives(self) -> tuple[str, ...]:
        """The metrics that were named."""
        return (self.metric,) if isinstance(self.metric, str) else tuple(self.metric or ())

    @property
    def learns(self) -> bool:
        """Whether points depend on the results of trials before them."""
        return self.method in LEARNING

    @property
    def on_timing(self) -> str | None:
        """What depends on timing, and so on the number of workers; None: nothing does."""
        if self.halving is not None and self.halving.rule != "successive":
            return f"which trials go on depends on timing (halving by the rule {self.halving.rule!r})"
        return None if self.hours is None else "the number of trials depends on timing (a budget of hours)"

    @property
    def is_open(self) -> bool:
        """Whether it is decided trial by trial what is next."""
        return self.learns or self.hours is not None or self.flops is not None

    def problems(self) -> Iterator[str]:
        """Yields what cannot be, a line each."""
        if not self.parameters and (self.seeds == 1 or self.method != "grid"):
            yield "parameters: there is nothing to try; name a leaf and its values"
        if self.method == "grid" and self.trials is not None:
            yield "trials: a grid tries all combinations; leave it out, or choose another sampler"
        if self.method != "grid" and (self.trials, self.hours, self.flops) == (None, None, None):
            yield f"trials: the sampler {self.method!r} has no end by itself; say how many"
        if not isinstance(self.metric, str | None):
            yield from self._of_objectives(self.metric)
        if self.learns and self.halving is not None and self.halving.brackets:
            yield f"halving: trials of several brackets cannot be compared by {self.method}; use sobol, or no brackets"
        if isinstance(self.seeds, tuple) and len(set(self.seeds)) < len(self.seeds):
            yield f"seeds: {list(self.seeds)}: one is there twice"
        yield from self._of_spaces(self.parameters, ())

    def _of_objectives(self, metrics: tuple[str, ...]) -> Iterator[str]:
        """Yields what cannot be with several objectives."""
        if len(set(metrics)) < len(metrics):
            yield f"metric: {list(metrics)}: one is there twice"
        if len(metrics) > 1 and self.halving is not None:
            yield "halving: goes by one metric, and there are several objectives; leave out one of both"
        if len(metrics) > 1 and self.method == "cmaes":
            yield "sampler: cmaes has one objective; use tpe or gp for several"

    def _of_spaces(self, parameters: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[str]:
        """Yields what is wrong with parameters; `above` are the paths that they depend on, and those beside them."""
        for path, space in parameters.items():
            if not isinstance(space, Space):
                yield f"parameters: {path}: expected choice, uniform, log or integer, was given {schema.quoted(space)}"
                continue
            if path in above:
                yield f"parameters: {path}: is there twice; a condition may not set it again"
            if path == "seed":
                yield "parameters: seed: stands apart, since trials are compared by the mean over them; use `seeds`"
            found = list(space.problems())
            yield from (f"parameters: {path}: {problem}" for problem in found)
            if self.method == "grid" and not found and space.every() is None:
                yield f"parameters: {path}: a range has no grid; use choice, or another sampler with `trials`"
            if isinstance(space, Choice) and not found:
                for below in space.conditions:
                    yield from self._of_spaces(below, (*above, *parameters))

    def to_json(self) -> dict[str, Any]:
        """As JSON, which `sweep_from_json` reads."""
        spaces = {path: space.to_json() for path, space in self.parameters.items()}
        seeds = list(self.seeds) if isinstance(self.seeds, tuple) else self.seeds
        return {**schema.to_dict(self), "parameters": spaces, "seeds": seeds}


def sweep_from_json(value: Mapping[str, Any]) -> Sweep:
    """The sweep that `Sweep.to_json` wrote."""
    spaces = {path: from_json(space) for path, space in value["parameters"].items()}
    errors: list[str] = []
    made = schema.resolve(Sweep, {**value, "parameters": spaces}, "", errors)
    if made is None:
        raise ValueError("; ".join(errors))
    return made
