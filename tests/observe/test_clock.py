"""Seconds by phase."""

import time

import pytest

from jaxformer.observe.timing import Clock


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
