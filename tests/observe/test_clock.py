"""Seconds by phase, and steps that take long."""

import logging
import time

import numpy as np
import pytest

from jaxformer.observe.timing import Clock, Pace


def test_nested_phases_count_for_the_innermost_and_add_up(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    clock = Clock()
    wait(1)
    with clock.phase("train"):
        wait(2)
        with clock.phase("evaluate"):
            wait(4)
        wait(8)
    with clock.phase("train"):
        wait(16)
    summary = clock.summary()
    assert summary == {"evaluate": 4, "train": 26, "other": 1, "total": 31}
    assert clock.counts["train"] == 2


def test_a_phase_that_fails_is_counted(monkeypatch):
    clock = Clock()

    def fail():
        with clock.phase("train"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert clock.counts["train"] == 1
    assert clock.inner == []


def test_the_phase_of_now_is_known(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock, seen = Clock(), []

    def look():
        now[0] += 1
        seen.append(clock.current)

    look()
    with clock.phase("train"):
        look()
        with clock.phase("evaluate"):
            look()
            clock.renew()
            look()
        look()
    look()
    assert seen == [("other", 0), ("train", 1), ("evaluate", 2), ("evaluate", 3), ("train", 4), ("other", 5)]


def test_what_is_waited_for_counts_for_a_phase(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock()

    def slow():
        for n in range(3):
            now[0] += n
            yield n

    taken = []
    for _ in clock.each("data", slow()):
        taken.append(clock.latest["data"])
        now[0] += 10
    assert taken == [0, 1, 2]
    assert clock.summary() == {"data": 3, "other": 30, "total": 33}


SLOW = [
    (
        (3.0, 0.01, 0.09),
        "step 7 took 3.1 s, 31 times the median of 0.1 s: 3 s for data, 0.01 s for dispatch, 0.09 s for the device",
    ),
    ((0.0, 0.0, 0.99), None),
    (
        (0.0, 0.0, 1.01),
        "step 7 took 1 s, 10 times the median of 0.1 s: 0 s for data, 0 s for dispatch, 1 s for the device",
    ),
]


@pytest.mark.parametrize(("waits", "line"), SLOW)
def test_a_slow_step_says_what_was_waited_for(waits, line, caplog):
    pace = Pace()
    with caplog.at_level(logging.WARNING, logger="jaxformer"):
        for step in range(1, 7):
            pace.took(step, 0.01, 0.01, 0.08)
        pace.took(7, *waits)
    assert caplog.messages == ([line] if line else [])


def test_the_median_is_known_after_a_few_steps():
    pace, medians = Pace(), []
    for step, seconds in enumerate((1, 2, 3, 4, 5, 6, 7), 1):
        pace.took(step, 0, 0, seconds)
        medians.append(pace.median)
    assert medians == [None, None, None, None, 3, 3.5, 4]


def test_steps_of_milliseconds_are_not_worth_a_line(caplog):
    pace = Pace()
    for step in range(1, 20):
        pace.took(step, 0, 0, 0.001 if step % 7 else 0.9)
    assert caplog.messages == []


def test_batches_of_new_shapes_are_compiled_for():
    pace = Pace()
    batches = [{"tokens": np.zeros((4, n)), "mask": np.zeros(4)} for n in (8, 8, 16, 8, 16, 32)]
    assert [pace.compiles(batch) for batch in batches] == [True, False, True, False, False, True]
