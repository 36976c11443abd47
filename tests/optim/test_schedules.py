"""Every schedule against its formula, at its corners, and against PyTorch's."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.trees import schedule, to_steps

from jaxformer.optim import SCHEDULES
from jaxformer.optim.schedule import make_schedule, schedule_problems

T, W, C, PEAK = 1000, 100, 200, 0.3
N = T - W - C
CORNERS = [
    0,
    1,
    50,
    99,
    100,
    101,
    150,
    151,
    299,
    300,
    301,
    449,
    450,
    451,
    799,
    800,
    801,
    900,
    999,
    1000,
    1001,
    5000,
]
BOTH = {"warmup": "10%", "cooldown": "200 steps"}


def line(t, start, stop, a, b):
    """The straight line from (start, a) to (stop, b)."""
    return a + (b - a) * (t - start) / (stop - start)


def in_parts(curve, last=0.0, first=0.0, shape=lambda u: u):
    """The whole schedule of a curve between the warm-up's end and the cool-down's beginning."""

    def share(t):
        t = min(t, T)
        if t < W:
            return line(t, 0, W, first, curve(0))
        if t < T - C:
            return curve(t - W)
        u = (t - (T - C)) / C
        return curve(N) + (last - curve(N)) * shape(u)

    return share


def restarts(t):
    for i, (begin, length) in enumerate([(0, 50), (50, 150), (200, 450), (650, 1350)]):
        if t < begin + length:
            top = 0.5**i
            return 0.05 + (top - 0.05) * (1 + math.cos(math.pi * (t - begin) / length)) / 2


FORMULAS = {
    "constant": (BOTH, in_parts(lambda t: 1)),
    "constant to a tenth": (BOTH | {"final": 0.1}, in_parts(lambda t: 1, last=0.1)),
    "linear": (BOTH | {"final": 0.2}, in_parts(lambda t: 1 - 0.8 * t / N)),
    "cosine": (BOTH | {"final": 0.1}, in_parts(lambda t: 0.1 + 0.9 * (1 + math.cos(math.pi * t / N)) / 2)),
    "inverse_sqrt": (BOTH, in_parts(lambda t: math.sqrt(W / (W + t)))),
    "inverse_sqrt by timescale": (
        BOTH | {"timescale": "40 steps", "final": 0.01},
        in_parts(lambda t: math.sqrt(40 / (40 + t)), last=0.01),
    ),
    "wsd": (BOTH | {"final": 0.1}, in_parts(lambda t: 1, last=0.1, shape=math.sqrt)),
    "wsd linear": (BOTH | {"shape": "linear"}, in_parts(lambda t: 1)),
    "wsd cosine": (
        BOTH | {"shape": "cosine"},
        in_parts(lambda t: 1, shape=lambda u: (1 - math.cos(math.pi * u)) / 2),
    ),
    "one_cycle linear": (
        BOTH | {"shape": "linear", "start": 0.1, "final": 0.02},
        in_parts(lambda t: line(t, 0, N, 1, 0.1), first=0.1, last=0.02),
    ),
    "polynomial": (BOTH | {"power": 3.0, "final": 0.1}, in_parts(lambda t: 0.1 + 0.9 * (1 - t / N) ** 3)),
    "step": (
        BOTH | {"drops": ["300 steps", "45 epochs"], "factor": 0.5},
        in_parts(lambda t: 0.5 ** ((t + W >= 300) + (t + W >= 450))),
    ),
    "cosine_restarts": (
        BOTH | {"period": "50 steps", "growth": 3.0, "decay": 0.5, "final": 0.05},
        in_parts(restarts),
    ),
}


@pytest.mark.parametrize("case", FORMULAS)
def test_a_schedule_is_its_formula(case):
    fields, share = FORMULAS[case]
    config = schedule(case.split()[0], **fields)
    assert not list(schedule_problems(config, T, to_steps(T)))
    rate = make_schedule(config, PEAK, T, to_steps(T))
    found = [float(rate(t)) for t in CORNERS]
    np.testing.assert_allclose(found, [PEAK * share(t) for t in CORNERS], rtol=1e-5, atol=1e-7)
    traced = jax.jit(jax.vmap(rate))(np.array(CORNERS, np.int32))
    assert traced.dtype == jnp.float32
    np.testing.assert_allclose(traced, found, rtol=1e-5, atol=1e-7)


def test_every_schedule_has_a_formula_here():
    assert {case.split()[0] for case in FORMULAS} == set(SCHEDULES)


PLAIN = {
    "inverse_sqrt": {"timescale": "20 steps"},
    "step": {"drops": ["500 steps"]},
}


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"wsd", "one_cycle"}))
def test_without_warmup_and_cooldown_the_first_step_has_the_peak(name):
    rate = make_schedule(schedule(name, **PLAIN.get(name, {})), PEAK, T, to_steps(T))
    assert float(rate(0)) == pytest.approx(PEAK)


@pytest.mark.parametrize("name", SCHEDULES)
def test_made_while_tracing(name):
    """The optimizer may be built inside of a jitted init."""
    config = schedule(name, **(PLAIN.get(name, {}) | BOTH))
    inside = jax.jit(lambda t: make_schedule(config, PEAK, T, to_steps(T))(t))(jnp.int32(900))
    np.testing.assert_allclose(inside, make_schedule(config, PEAK, T, to_steps(T))(900), rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_step_is_above_the_peak_or_below_zero(name):
    config = schedule(name, **(PLAIN.get(name, {}) | BOTH))
    rates = jax.jit(jax.vmap(make_schedule(config, PEAK, T, to_steps(T))))(np.arange(T + 10))
    assert rates.min() >= 0
    assert rates.max() <= PEAK * (1 + 1e-6)


def test_inverse_sqrt_is_the_transformers():
    d, warmup = 512, 4000
    config = schedule("inverse_sqrt", warmup=f"{warmup} steps")
    rate = make_schedule(config, d**-0.5 * warmup**-0.5, 100_000, to_steps(100_000))
    for step in (1, 2000, 3999, 4000, 4001, 50_000, 100_000):
        assert float(rate(step)) == pytest.approx(d**-0.5 * min(step**-0.5, step * warmup**-1.5), rel=1e-4)


def torch_rates(make, steps):
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    scheduler = make(sgd)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        sgd.step()
        scheduler.step()
    return np.array(rates)


def our_rates(config, total, steps):
    return np.asarray(
        jax.jit(jax.vmap(make_schedule(config, PEAK, total, to_steps(total))))(np.arange(steps))
    )


def test_one_cycle_is_pytorchs():
    # PyTorch's last step is total_steps - 1 and its peak at pct_start * total_steps - 1.
    theirs = torch_rates(
        lambda sgd: torch.optim.lr_scheduler.OneCycleLR(
            sgd, PEAK, total_steps=T + 1, pct_start=301 / (T + 1)
        ),
        T + 1,
    )
    np.testing.assert_allclose(our_rates(schedule("one_cycle"), T, T + 1), theirs, rtol=1e-4, atol=1e-7)


def test_cosine_restarts_are_pytorchs():
    theirs = torch_rates(
        lambda sgd: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
            sgd, 60, T_mult=2, eta_min=0.1 * PEAK
        ),
        T,
    )
    config = schedule("cosine_restarts", period="60 steps", growth=2, final=0.1)
    np.testing.assert_allclose(our_rates(config, T, T), theirs, rtol=1e-5, atol=1e-7)


def test_step_is_pytorchs():
    theirs = torch_rates(lambda sgd: torch.optim.lr_scheduler.MultiStepLR(sgd, [300, 600, 800], gamma=0.1), T)
    config = schedule("step", drops=["30 epochs", "60 epochs", "80%"])
    np.testing.assert_allclose(our_rates(config, T, T), theirs, rtol=1e-5)


def test_a_long_training_keeps_its_digits():
    total = 10_000_000
    rate = make_schedule(schedule("cosine", warmup="10_000 steps"), 1.0, total, to_steps(total))
    for step in (5_000, 10_001, 2_345_678, 9_000_001):
        exact = (
            step / 10_000
            if step < 10_000
            else (1 + math.cos(math.pi * (step - 10_000) / (total - 10_000))) / 2
        )
        assert float(rate(step)) == pytest.approx(exact, rel=1e-4)


def test_two_halves_may_round_to_one_step_too_many():
    config = schedule("constant", warmup="50%", cooldown="50%")
    assert not list(schedule_problems(config, 101, to_steps(101)))
    rates = our_rates(config, 101, 102)
    np.testing.assert_allclose(rates[[0, 50, 51, 101]], np.array([0, 50 / 51, 1, 0]) * PEAK, atol=1e-7)


PROBLEMS = [
    (
        "cosine",
        {"warmup": "2000 steps"},
        "warmup=2000 steps: the training is 1000 steps; shorten it, or give a share",
    ),
    (
        "cosine",
        {"cooldown": "101 epochs"},
        "cooldown=101 epochs is 1010 steps: the training is 1000 steps; shorten it, or give a share",
    ),
    (
        "linear",
        {"warmup": "60%", "cooldown": "50%"},
        "warmup=60% and cooldown=50% are 1100 steps together, and the training is 1000: shorten one",
    ),
    (
        "step",
        {"drops": ["30 epochs", "300 steps"]},
        "drops=30 epochs, 300 steps: two of them are the same step (300, 300)",
    ),
    ("step", {"drops": ["1000 steps"]}, "drops=1000 steps: 1000 steps (step 1000) is not between"),
    (
        "step",
        {"drops": ["5 epochs"], "warmup": "10 epochs"},
        "drops=5 epochs: 5 epochs (step 50) is not between",
    ),
    (
        "inverse_sqrt",
        {"warmup": "0 steps"},
        "warmup=0 steps is no step at all: inverse_sqrt needs at least one",
    ),
]


@pytest.mark.parametrize(("name", "fields", "message"), PROBLEMS)
def test_durations_that_do_not_fit(name, fields, message):
    problems = list(schedule_problems(schedule(name, **fields), T, to_steps(T)))
    assert len(problems) == 1
    assert problems[0].startswith(message)


def test_too_many_restarts():
    config = schedule("cosine_restarts", period="1 steps", growth=1.0)
    assert list(schedule_problems(config, 100_000, to_steps(100_000))) == [
        "period=1 steps: more than 1000 restarts; give a longer period"
    ]


FIELD_PROBLEMS = [
    ("cosine", {"final": 1.5}, "final=1.5"),
    ("polynomial", {"power": 0.0}, "power=0.0"),
    ("step", {}, "drops=()"),
    ("step", {"drops": ["1 epochs"], "factor": 2.0}, "factor=2.0"),
    ("cosine_restarts", {"growth": 0.5}, "growth=0.5"),
    ("cosine_restarts", {"decay": 0.0}, "decay=0.0"),
    ("inverse_sqrt", {}, "timescale=None"),
    ("wsd", {"cooldown": None}, "cooldown=None"),
    ("one_cycle", {"warmup": None}, "warmup=None"),
    ("one_cycle", {"start": -1.0}, "start=-1.0"),
]


@pytest.mark.parametrize(("name", "fields", "message"), FIELD_PROBLEMS)
def test_values_that_cannot_be(name, fields, message):
    with pytest.raises(AssertionError) as caught:
        schedule(name, **fields)
    assert f"x.{message}" in str(caught.value)
