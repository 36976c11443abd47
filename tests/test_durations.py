"""Durations: what can be written, what they are in steps, exactly."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxformer.config.durations import Duration

READINGS = {
    "5 epochs": (5, "epochs"),
    "1 epoch": (1, "epochs"),
    "10_000 steps": (10_000, "steps"),
    "1 step": (1, "steps"),
    "0 steps": (0, "steps"),
    "1.5k steps": (1500, "steps"),
    "1M examples": (10**6, "examples"),
    "1 M examples": (10**6, "examples"),
    "1.28B examples": (1_280_000_000, "examples"),
    "1 example": (1, "examples"),
    "5%": (5, "%"),
    "2.5 %": (Fraction(5, 2), "%"),
    "10 percent": (10, "%"),
    "0.1 epochs": (Fraction(1, 10), "epochs"),
    "  3steps  ": (3, "steps"),
}


@pytest.mark.parametrize("text", READINGS)
def test_what_people_write(text):
    assert Duration.parse(text) == Duration(Fraction(READINGS[text][0]), READINGS[text][1])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "epochs",
        "-5 epochs",
        "5 weeks",
        "1e6 steps",
        "5 m steps",
        "1.2.3 steps",
        "5 epochs 3",
        "_1 steps",
        ".5 %",
        "inf steps",
    ],
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="is not a duration: write a number and a unit") as caught:
        Duration.parse(text)
    assert repr(text) in str(caught.value)


STEPS = [
    # text, batch size, examples an epoch, total steps, steps
    ("7 steps", 128, 1000, None, 7),
    ("1 epochs", 100, 1000, None, 10),
    ("1 epochs", 128, 1000, None, 8),  # 7.8: every example is seen
    ("60 epochs", 128, 1438, None, 675),  # 674.06, not 60 times 12
    ("1M examples", 1000, 7, None, 1000),
    ("1M examples", 999, 7, None, 1002),
    ("1 examples", 128, 7, None, 1),
    ("5%", 1, 1, 1000, 50),
    ("5%", 1, 1, 1001, 51),
    ("0%", 1, 1, 1000, 0),
    ("100%", 1, 1, 1000, 1000),
    ("0.1%", 1, 1, 999, 1),
    ("29%", 1, 1, 100, 29),  # 0.29 * 100 is more than 29 in floating point
    ("1.1 epochs", 10, 100, None, 11),  # so is 1.1 * 10
    ("0.5 steps", 1, 1, None, 1),
]


@pytest.mark.parametrize(("text", "batch", "epoch", "total", "steps"), STEPS)
def test_steps_are_exact_and_rounded_up(text, batch, epoch, total, steps):
    found = Duration.parse(text).steps(batch_size=batch, epoch_examples=epoch, total_steps=total)
    assert found == steps
    assert type(found) is int


def test_a_percentage_needs_a_total():
    with pytest.raises(ValueError, match="a percentage needs a total"):
        Duration.parse("5%").steps(batch_size=1, epoch_examples=1)


decimals = st.decimals(min_value=0, max_value=10**12, allow_nan=False, places=4).map(lambda d: format(d, "f"))
units = st.sampled_from(["steps", "epochs", "examples", "%"])
counts = st.integers(1, 10**7)


@given(decimals, units)
def test_writing_and_reading_again_changes_nothing(amount, unit):
    duration = Duration.parse(f"{amount} {unit}")
    assert Duration.parse(str(duration)) == duration


@given(decimals, units, counts, counts, st.integers(0, 10**9))
def test_steps_are_the_least_that_cover_the_duration(amount, unit, batch, epoch, total):
    steps = Duration.parse(f"{amount} {unit}").steps(
        batch_size=batch, epoch_examples=epoch, total_steps=total
    )
    one = {
        "steps": 1,
        "epochs": Fraction(epoch, batch),
        "examples": Fraction(1, batch),
        "%": Fraction(total, 100),
    }
    assert steps == ceil(Fraction(amount) * one[unit])


@given(decimals, decimals, units, counts, counts)
def test_longer_is_never_fewer_steps(one, other, unit, batch, epoch):
    short, long = sorted((one, other), key=Fraction)
    steps = [
        Duration.parse(f"{x} {unit}").steps(batch_size=batch, epoch_examples=epoch, total_steps=1000)
        for x in (short, long)
    ]
    assert steps[0] <= steps[1]
