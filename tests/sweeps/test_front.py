"""Which trials no other one beats."""

import math
import random

import pytest

from jaxformer.sweeps.front import pareto_front


def test_the_front_has_the_trials_that_no_other_beats():
    values = {0: (0.9, 50.0), 1: (0.8, 10.0), 2: (0.7, 20.0), 3: (0.95, 100.0), 4: (0.8, 11.0)}
    assert pareto_front(values, ["max", "min"]) == [3, 0, 1]
    assert pareto_front(values, ["max", "max"]) == [3]
    assert pareto_front(values, ["min", "min"]) == [2, 1]


def test_trials_that_are_alike_are_on_it_together_and_failures_never():
    values = {4: (1.0, 1.0), 2: (1.0, 1.0), 0: None, 1: (math.nan, 0.0), 3: (2.0, None)}
    assert pareto_front(values, ["min", "min"]) == [2, 4]
    assert pareto_front({0: None}, ["min", "min"]) == []
    assert pareto_front({}, ["max"]) == []


def test_of_one_objective_it_has_the_best():
    assert pareto_front({0: (1.0,), 1: (3.0,), 2: (3.0,)}, ["max"]) == [1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_whoever_is_not_on_it_is_beaten_by_one_that_is(seed):
    draw = random.Random(seed)
    values = {number: tuple(draw.randrange(6) for _ in range(3)) for number in range(40)}
    front = pareto_front(values, ["max", "min", "max"])

    def beats(a, b):
        better = [
            x > y if mode == "max" else x < y for x, y, mode in zip(a, b, ["max", "min", "max"], strict=True)
        ]
        worse = [
            x < y if mode == "max" else x > y for x, y, mode in zip(a, b, ["max", "min", "max"], strict=True)
        ]
        return any(better) and not any(worse)

    for number, point in values.items():
        assert (number in front) != any(beats(values[other], point) for other in front)
