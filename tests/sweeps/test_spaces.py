"""Search spaces, the points that samplers take from them, and how both are written."""

import json
import re
from itertools import product

import numpy as np
import pytest
from scipy.stats import qmc

from jaxformer.config import schema
from jaxformer.errors import UserError
from jaxformer.sweeps.points import combinations, dimensions, points
from jaxformer.sweeps.reading import read_lists, read_space, read_sweep
from jaxformer.sweeps.spaces import Halving, Sweep, choice, integer, log, sweep_from_json, uniform

RATE, WIDTH = "optimizer.learning_rate", "model.width"
NESTED = {
    "optimizer.name": choice({"adamw": {"optimizer.b2": uniform(0.9, 0.99)}, "lion": {}}),
    RATE: log(1e-4, 1e-2),
    WIDTH: integer(8, 10),
}


def test_a_grid_goes_through_all_combinations_as_nested_loops_do():
    found = points(Sweep({RATE: choice([0.1, 0.2]), WIDTH: integer(1, 3)}))
    assert found == [{RATE: rate, WIDTH: width} for rate, width in product([0.1, 0.2], [1, 2, 3])]


def test_a_grid_with_conditions_has_their_parameters_only_where_they_hold():
    space = {
        "optimizer.name": choice({"adamw": {"optimizer.b2": choice([0.9, 0.99])}, "lion": {}}),
        "x": choice([1]),
    }
    assert points(Sweep(space)) == [
        {"optimizer.name": "adamw", "optimizer.b2": 0.9, "x": 1},
        {"optimizer.name": "adamw", "optimizer.b2": 0.99, "x": 1},
        {"optimizer.name": "lion", "x": 1},
    ]


@pytest.mark.parametrize("sampler", ["random", "sobol", "halton"])
def test_points_depend_on_seed_and_number_alone(sampler):
    many, few = (points(Sweep(NESTED, sampler, trials=count)) for count in (21, 5))
    assert many[:5] == few
    assert points(Sweep(NESTED, sampler, trials=5, seed=1)) != few
    assert len({json.dumps(values) for values in many}) == 21
    for values in many:
        assert ("optimizer.b2" in values) == (values["optimizer.name"] == "adamw")
        assert 1e-4 <= values[RATE] <= 1e-2
        assert values[WIDTH] in (8, 9, 10)
        assert float(f"{values[RATE]:.6g}") == values[RATE]


@pytest.mark.parametrize("sampler", ["random", "sobol", "halton"])
def test_no_point_is_there_twice_and_no_combination_is_missing(sampler):
    """Conditions count: two of "a" with two of "b" each, and one without."""
    space = {"a": choice({1: {"b": choice([5, 6])}, 2: {"b": choice([5, 6])}, 3: {}}), "c": integer(0, 2)}
    every = [json.dumps(values) for values in points(Sweep(space, "grid"))]
    assert len(every) == combinations(space, 100) == 15
    for count in (4, 15, 40):
        found = [json.dumps(values) for values in points(Sweep(space, sampler, trials=count))]
        assert len(found) == len(set(found)) == min(count, 15)
        assert found == [json.dumps(values) for values in points(Sweep(space, sampler, trials=15))][:count]
    assert set(found) == set(every)
    assert combinations(space, 7) == 7
    assert combinations({**space, "d": uniform(0, 1)}, 50) == 50


def test_a_condition_moves_no_other_parameter():
    plain = {**NESTED, "optimizer.name": choice({"adamw": {"optimizer.b2": uniform(0.9, 0.99)}, "sgd": {}})}
    one, two = (points(Sweep(space, "random", trials=8)) for space in (NESTED, plain))
    assert [each[RATE] for each in one] == [each[RATE] for each in two]
    assert dimensions(NESTED) == 4


@pytest.mark.parametrize("sampler", ["sobol", "halton"])
def test_quasi_random_points_cover_the_space_better_than_random_ones(sampler):
    space = {"a": uniform(0, 1), "b": uniform(0, 1)}
    even, rough = (
        np.mean(
            [
                qmc.discrepancy(
                    [list(values.values()) for values in points(Sweep(space, name, trials=32, seed=seed))]
                )
                for seed in range(5)
            ]
        )
        for name in (sampler, "random")
    )
    assert even < rough / 3


def test_a_logarithmic_range_has_as_many_points_in_each_decade():
    rates = [values["a"] for values in points(Sweep({"a": log(1e-4, 1e-1)}, trials=30))]
    counts, _ = np.histogram(np.log10(rates), bins=3, range=(-4, -1))
    assert min(counts) >= 9


def test_a_whole_range_gives_both_ends_alike():
    values = [each["a"] for each in points(Sweep({"a": integer(1, 4), "b": uniform(0, 1)}, trials=64))]
    assert all(values.count(number) == 16 for number in (1, 2, 3, 4))


WRONG = {
    "nothing to try": (Sweep({}), "parameters: there is nothing to try"),
    "an empty choice": (Sweep({"a": choice([])}), "a: a choice of nothing"),
    "a value twice": (Sweep({"a": choice([1, 2, 1])}), "a: 1 is there twice"),
    "an inverted range": (
        Sweep({"a": uniform(2, 1)}, trials=2),
        r"uniform\(2, 1\): there is nothing in this range",
    ),
    "an empty range": (Sweep({"a": integer(2, 2)}), "nothing in this range"),
    "log of 0": (Sweep({"a": log(0, 1)}, trials=2), "has no logarithm; begin above 0"),
    "no numbers": (Sweep({"a": log("a", 1)}, trials=2), "expected two numbers"),
    "infinity": (Sweep({"a": uniform(0, float("inf"))}, trials=2), "expected two numbers"),
    "no whole numbers": (Sweep({"a": integer(0.5, 2)}), "expected two whole numbers"),
    "a range in a grid": (Sweep({"a": uniform(0, 1)}), "a range has no grid; use choice"),
    "a grid with a number": (Sweep({"a": choice([1])}, "grid", trials=3), "trials: a grid tries all"),
    "no number": (Sweep({"a": uniform(0, 1)}, "random"), "trials: the sampler 'random' has no end"),
    "a value": (Sweep({"a": 3}), "a: expected choice, uniform, log or integer, was given 3"),
    "a seed": (Sweep({"seed": choice([1, 2])}), "seed: stands apart.*use `seeds`"),
    "a seed twice": (Sweep({"a": choice([1])}, seeds=(1, 1)), "seeds: .* is there twice"),
    "a path twice": (Sweep({"b": choice([2]), "a": choice({1: {"b": choice([1])}})}), "b: is there twice"),
    "an object": (Sweep({"a": choice([object()])}), "is nothing that a config can hold"),
    "a sampler": (
        Sweep({"a": choice([1])}, "sobl", trials=2),
        "sampler: 'sobl' is not a choice; did you mean 'sobol'",
    ),
    "a metric twice": (Sweep({"a": choice([1])}, metric=["loss", "loss"]), "metric: .* is there twice"),
    "no metric": (Sweep({"a": choice([1])}, metric=[]), "at least one metric"),
    "halving with several objectives": (
        Sweep({"a": choice([1])}, metric=["loss", "accuracy"], halving=Halving()),
        "halving: goes by one metric, and there are several objectives",
    ),
    "cmaes with several objectives": (
        Sweep({"a": uniform(0, 1)}, "cmaes", 5, metric=["loss", "accuracy"]),
        "sampler: cmaes has one objective",
    ),
    "brackets of a sampler that learns": (
        Sweep({"a": uniform(0, 1)}, "tpe", 5, halving=Halving(brackets=True)),
        "halving: trials of several brackets cannot be compared",
    ),
    "brackets of asha": (
        Sweep({"a": choice([1])}, halving=Halving(rule="asha", brackets=True)),
        "halving.brackets: Hyperband's are of successive halving",
    ),
    "no end of a sampler that learns": (
        Sweep({"a": uniform(0, 1)}, "tpe"),
        "trials: the sampler 'tpe' has no end",
    ),
    "no hours": (Sweep({"a": uniform(0, 1)}, hours=0.0), "hours=0.0: expected"),
    "no FLOPs": (Sweep({"a": uniform(0, 1)}, flops=-1.0), "flops=-1.0: expected"),
    "a rung": (Sweep({"a": choice([1])}, halving=Halving(rungs=1)), "halving.rungs=1: expected 2 to 10"),
    "eta": (Sweep({"a": choice([1])}, halving=Halving(eta=1)), "halving.eta=1: expected 2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_named(case):
    sweep, message = WRONG[case]
    assert any(re.search(message, line) for line in schema.problems(sweep)), schema.problems(sweep)


def test_all_mistakes_are_said_at_once():
    wrong = Sweep({"a": choice([]), "b": choice({1: {"c": log(0, 1), "d": uniform(1, 0)}})}, trials=3)
    assert len(schema.problems(wrong)) == 3


def test_a_sweep_is_the_same_after_it_was_written():
    sweep = Sweep(NESTED, "halton", trials=7, seeds=(3, 5), halving=Halving(2, 4), seed=9, metric="loss")
    again = sweep_from_json(json.loads(json.dumps(sweep.to_json())))
    assert (again, points(again)) == (sweep, points(sweep))
    assert sweep_from_json(Sweep({"a": choice([1])}, seeds=2).to_json()).seeds == 2


@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("1e-3,3e-3", choice([1e-3, 3e-3])),
        ("adamw, lion", choice(["adamw", "lion"])),
        ("[8, 16],[16, 32]", choice([[8, 16], [16, 32]])),
        ("5 epochs", choice(["5 epochs"])),
        ("log(1e-4, 1e-2)", log(1e-4, 1e-2)),
        ("integer(1,4)", integer(1, 4)),
        ("dict(name='flip'),dict(name='crop')", choice([{"name": "flip"}, {"name": "crop"}])),
    ],
)
def test_values_on_a_line(text, space):
    assert read_space(text) == space


def test_seeds_on_a_line_are_seeds():
    assert read_lists(["a.b=1,2", "seed=0,4"]) == {"parameters": {"a.b": choice([1, 2])}, "seeds": (0, 4)}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("a=lg(1e-4,1e-2)", "there is no range 'lg'; did you mean 'log'"),
        ("a=log(1e-4)", r"expected two numbers, as in log\(1,10\)"),
        ("a=log(1,2),log(3,4)", "expected two numbers"),
        ("a=choose(1)", "there is no range 'choose'"),
    ],
)
def test_words_that_look_like_ranges(word, said):
    with pytest.raises(UserError, match=said):
        read_lists([word])


@pytest.mark.parametrize("word", ["a.b", "=1", "a.b=", "a..b=1", "seed=uniform(0, 1)"])
def test_words_that_are_no_lists(word):
    with pytest.raises(UserError, match="set="):
        read_lists([word])
    with pytest.raises(UserError, match="is there twice"):
        read_lists(["a=1", "a=2"])


FILE = """
from jaxformer.sweeps.spaces import Sweep, choice

def get_config():
    raise AssertionError("it is not asked for")

def get_sweep():
    return {"seed": choice([1])}

def get_sweep_wide():
    return Sweep({"model.width": choice([1, 2])}, metric="loss")

def get_sweep_broken():
    return {}["x"]

def get_sweep_lists():
    return Sweep({3: choice([1]), "model.depth": choice([1, 2])}, seeds=[0, 1], halving={"eta": 2, "rungs": 2})

def get_sweep_typed():
    return Sweep({}, halving={"rungs": 1})

def get_sweep_empty():
    return Sweep(None, trials=2)

def get_sweep_other():
    return 3
"""


def test_a_sweep_in_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    assert read_sweep(f"{path}:argument").parameters == {"seed": choice([1])}
    for config, spec in ((str(path), "wide"), ("vit_digits", f"{path}:wide")):
        assert read_sweep(config, spec).metric == "loss"
    for spec, message in {
        "wid": "there is no get_sweep_wid in .*did you mean 'get_sweep_wide'",
        "broken": "sweep=broken: KeyError: 'x' .*mine.py, line 14",
        "other": "expected a Sweep, or a dict of paths and spaces, was given a int",
        "nowhere.py": "nowhere.py: there is no such file",
        "typed": "halving.rungs=1: expected 2 to 10",
        "empty": r"parameters: expected dict\(...\), was given None",
    }.items():
        with pytest.raises(UserError, match=message):
            read_sweep(str(path), spec)
    lists = read_sweep(str(path), "lists")
    assert (lists.seeds, lists.halving, list(lists.parameters)) == (
        (0, 1),
        Halving(2, 2),
        ["3", "model.depth"],
    )
    with pytest.raises(UserError, match=r"there is no get_sweep in .*name values with `set`"):
        read_sweep("vit_digits")
