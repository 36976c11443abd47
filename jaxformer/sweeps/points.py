"""Enumerated points: trial number i is a function of the sweep's spaces, its seed and i, and of nothing else."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from jaxformer.sweeps.spaces import Choice, Parameters, Sweep

Values = Mapping[str, Any]
MOST = 100_000
DRAWN = 64  # times as many points as trials, at most, until each is another one


def points(sweep: Sweep) -> list[dict[str, Any]]:
    """The values of every trial, by path.

    A grid goes through the combinations as nested loops do, the last parameter fastest; more than MOST are cut off at
    MOST + 1. Other points are those of their sequence but for those that were there already, so that there are no more
    trials than combinations.
    """
    if sweep.method == "grid":
        return list(islice(grid(sweep.parameters), MOST + 1))
    trials, size = sweep.trials or 0, dimensions(sweep.parameters)
    wanted = min(trials, combinations(sweep.parameters, trials))
    found, drawn = dict[str, dict[str, Any]](), trials
    while len(found) < wanted and drawn <= DRAWN * trials:
        for row in PLACES[sweep.method](size, drawn, sweep.seed):
            values = dict(chosen(sweep.parameters, iter(row)))
            found.setdefault(json.dumps(values, sort_keys=True), values)
        drawn *= 2
    return list(found.values())[:wanted]


def combinations(parameters: Parameters, most: int) -> int:
    """How many combinations of values there are; `most` if there are more, or any number of them."""
    count = 1
    for space in parameters.values():
        every = space.every()
        if every is None or len(every) >= most:
            return most
        count = min(most, count * sum(combinations(space.below(value), most) for value in every))
    return count


def grid(parameters: Parameters) -> Iterator[dict[str, Any]]:
    """Yields all combinations of the values of finite spaces."""
    if not parameters:
        yield {}
        return
    (path, space), *others = parameters.items()
    for value in space.every() or ():
        for below in grid(space.below(value)):
            for beside in grid(dict(others)):
                yield {path: value, **below, **beside}


def dimensions(parameters: Parameters) -> int:
    """How many numbers a point takes: one a parameter, those under conditions included."""
    below = (each for space in parameters.values() if isinstance(space, Choice) for each in space.conditions)
    return len(parameters) + sum(dimensions(each) for each in below)


def chosen(parameters: Parameters, places: Iterator[float]) -> Iterator[tuple[str, Any]]:
    """Yields path and value of the parameters at a point.

    Each parameter has a place of its own, also where its condition does not hold, so that what one choice brings along
    never moves another parameter.
    """
    for path, space in parameters.items():
        value = space.at(float(next(places)))
        yield path, value
        if isinstance(space, Choice):
            for other, below in zip(space.values, space.conditions, strict=True):
                inside = list(chosen(below, places))
                yield from inside if other is value else ()


def random(dimensions: int, count: int, seed: int) -> np.ndarray:
    """float64 [count, dimensions] in [0, 1): independent numbers."""
    rows = [np.random.default_rng([seed, index]).random(dimensions) for index in range(count)]
    return np.array(rows).reshape(count, dimensions)


def sobol(dimensions: int, count: int, seed: int) -> np.ndarray:
    """float64 [count, dimensions] in [0, 1): Sobol's sequence, shifted around by a random vector.

    Cranley and Patterson's shift (https://doi.org/10.1137/0713071), and not a scrambling, whose numbers would be those
    of one version of SciPy.
    """
    from scipy.stats import qmc

    rows = qmc.Sobol(dimensions, scramble=False).random_base2((count - 1).bit_length())[:count]
    return shifted(rows, seed)


def halton(dimensions: int, count: int, seed: int) -> np.ndarray:
    """float64 [count, dimensions] in [0, 1): Halton's sequence, shifted around by a random vector, as Sobol's is."""
    from scipy.stats import qmc

    return shifted(qmc.Halton(dimensions, scramble=False).random(count), seed)


def shifted(rows: np.ndarray, seed: int) -> np.ndarray:
    """Points in [0, 1) moved by a random vector; what leaves on one side comes in on the other."""
    moved = (rows + np.random.default_rng(seed).random(rows.shape[1])) % 1.0
    return np.where(moved < 1.0, moved, 0.0)


PLACES = {"random": random, "sobol": sobol, "halton": halton}
