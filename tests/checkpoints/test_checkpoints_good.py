"""Checkpoints whose numbers are of no use replace none, and are replaced by the next."""

import pytest
from helpers.saved import make_items, targets_of
from test_checkpoints_damaged import full_disk

from jaxformer.errors import UserError


def save(checkpoints, step, good=True, accuracy=None):
    metrics = None if accuracy is None else {"accuracy": accuracy}
    assert checkpoints.save(step, make_items(step), {}, metrics, good)
    checkpoints.wait()


def test_what_is_not_good_costs_no_good_one_its_place(opened):
    checkpoints = opened(keep=2)
    seen = []
    for step, good in enumerate([True, True, False, False, True, False, True, True], 1):
        save(checkpoints, step, good)
        seen.append(checkpoints.steps())
    assert seen == [[1], [1, 2], [1, 2, 3], [1, 2, 4], [2, 5], [2, 5, 6], [5, 7], [7, 8]]


def test_it_is_known_from_the_disk(opened):
    first = opened(keep=1)
    save(first, 1)
    save(first, 2, good=False)
    first.close()
    again = opened(keep=1)
    assert again.good_steps() == [1]
    assert (
        again.restore(targets_of(make_items(0))).progress["step"] == 2
    )  # a run goes on exactly where it was
    save(again, 3, good=False)
    assert again.steps() == [1, 3]
    save(again, 4)
    assert again.steps() == [4]


def test_the_best_stays_whatever_comes(opened):
    checkpoints = opened(keep=1)
    save(checkpoints, 1, accuracy=0.9)
    for step in (2, 3):
        save(checkpoints, step, good=False)
    assert checkpoints.steps() == [1, 3]
    save(checkpoints, 4, accuracy=0.5)
    assert checkpoints.steps() == [1, 4]


def test_a_late_evaluation_may_show_that_one_is_not_good(opened):
    checkpoints = opened(keep=1)
    save(checkpoints, 1)
    checkpoints.rate(1, {"accuracy": float("nan")}, good=False)
    assert (checkpoints.good_steps(), checkpoints.by_rank()) == ([], [])
    assert checkpoints.restore(targets_of(make_items(0))).progress["step"] == 1  # its digests fit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_save_that_fails_names_the_good_ones_alone(opened):
    checkpoints = opened(keep=2)
    save(checkpoints, 1)
    save(checkpoints, 2, good=False)
    with full_disk():
        checkpoints.save(3, make_items(3), {})
        with pytest.raises(UserError, match="good ones there: 1;"):
            checkpoints.wait()
