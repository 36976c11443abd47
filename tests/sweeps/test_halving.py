"""Which trials train how far: a function of their results alone."""

import math
import random

import pytest

from jaxformer.sweeps.halving import Rules, Task, promoted, ranked, rung_shares, rung_steps
from jaxformer.sweeps.spaces import Halving


def test_rungs_are_shares_of_the_training():
    assert rung_shares(None) == [1.0]
    assert rung_shares(Halving(3, 3)) == pytest.approx([1 / 9, 1 / 3, 1])
    assert rung_steps(rung_shares(Halving(3, 3)), 90) == [10, 30, 90]
    assert rung_steps(rung_shares(Halving(3, 2)), 91) == [31, 91]
    assert rung_steps(rung_shares(Halving(10, 4)), 5) == [1, 1, 1, 5]


def test_better_values_come_first_then_smaller_numbers_and_failures_last():
    values = {0: 0.5, 1: None, 2: 0.9, 3: 0.5, 4: math.nan, 5: math.inf, 6: -math.inf}
    assert ranked(values, "max") == [2, 0, 3, 1, 4, 5, 6]
    assert ranked(values, "min") == [0, 3, 2, 1, 4, 5, 6]
    assert promoted(values, "max", Halving(2)) == [0, 2, 3]  # as many as there are numbers


def test_one_of_eta_goes_on_and_at_least_one():
    values = {number: number / 10 for number in range(9)}
    assert promoted(values, "max", Halving(3)) == [6, 7, 8]
    assert promoted(values, "min", Halving(4)) == [0, 1]
    assert promoted({0: 0.1, 1: 0.2}, "max", Halving(3)) == [1]
    assert promoted({0: None, 1: None, 2: 0.1, 3: None}, "max", Halving(2)) == [2]
    assert promoted({0: None}, "max", Halving(2)) == []


def test_the_next_best_takes_the_place_of_one_that_fails_at_the_next_rung():
    values = {number: number / 10 for number in range(9)}
    assert promoted(values, "max", Halving(3), [7, 8]) == [4, 5, 6, 7, 8]
    rules, results = Rules(2, (0,), "max", Halving(2, 2)), {}
    for trial in range(2):
        results[Task(trial, 0, 0)] = {"status": "paused", "value": float(trial)}
    assert rules.due(results) == [Task(1, 0, 1)]
    results[Task(1, 0, 1)] = {"status": "failed", "value": None}
    assert rules.due(results) == [Task(0, 0, 1)]
    results[Task(0, 0, 1)] = {"status": "completed", "value": 0.0}
    assert rules.due(results) == []


def quality(task):
    """What a trial reaches in this test: the larger its number the better, but for odd ones, which are late."""
    return {"value": task.trial + task.seed / 10 - (5 if task.trial % 2 and task.rung == 0 else 0)}


def carried_out(rules, order):
    """The results when tasks that are due are done in a random order."""
    results, shuffled = {}, random.Random(order)
    while due := rules.due(results):
        task = shuffled.choice(due)
        results[task] = quality(task)
    return results


def test_the_order_of_work_changes_nothing():
    rules = Rules(9, (0, 1), "max", Halving(3, 3))
    results = carried_out(rules, 0)
    assert all(carried_out(rules, order) == results for order in range(1, 20))
    assert rules.rungs(results) == [list(range(9)), [4, 6, 8], [8]]
    assert len(results) == 2 * (9 + 3 + 1)
    assert rules.value(results, 4, 1) == pytest.approx(4.05)


def test_no_rung_is_decided_before_all_of_its_trials_are_there():
    rules = Rules(3, (0,), "min", Halving(3, 2))
    results = {Task(0, 0, 0): {"value": 0.0}, Task(2, 0, 0): {"value": 2.0}}
    assert rules.due(results) == [Task(1, 0, 0)]
    results[Task(1, 0, 0)] = {"value": None}
    assert rules.due(results) == [Task(0, 0, 1)]
    results[Task(0, 0, 1)] = {"value": 0.0}
    assert rules.due(results) == []


def test_a_trial_counts_by_the_mean_over_its_seeds_and_fails_with_one_of_them():
    rules = Rules(1, (0, 1), "max", None)
    assert rules.value({Task(0, 0, 0): {"value": 0.25}, Task(0, 1, 0): {"value": 0.75}}, 0, 0) == 0.5
    assert rules.value({Task(0, 0, 0): {"value": 0.25}, Task(0, 1, 0): {"value": None}}, 0, 0) is None
    assert rules.value({Task(0, 0, 0): {"value": 0.25}}, 0, 0) is None


def test_what_is_left_is_counted_in_whole_trainings():
    rules = Rules(9, (0,), "max", Halving(3, 3))
    assert rules.left({}) == pytest.approx(9 / 9 + 3 * (1 / 3 - 1 / 9) + 1 * (1 - 1 / 3))
    results = carried_out(rules, 0)
    assert rules.left(results) == 0
    assert rules.left({task: value for task, value in results.items() if task.rung < 2}) == pytest.approx(
        2 / 3
    )
    assert Rules(4, (0, 1), "max", None).left({}) == 8
