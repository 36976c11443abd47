"""The curves of schedules, between warm-up and cool-down."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxformer.config.durations import Duration
from jaxformer.config.fields import Constraint, Input, InputOrZero, above, at_least, strictly_between
from jaxformer.optim.schedule import PeakShare, Schedule, Spans, ToSteps

MOST_RESTARTS = 1000


@dataclass(frozen=True)
class Constant(Schedule):
    """f(t) = 1."""

    falls: ClassVar[bool] = False

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        return optax.constant_schedule(1.0)


@dataclass(frozen=True)
class Linear(Schedule):
    """f(t) = 1 + (final - 1) t / n: BERT's decay (Devlin et al. 2019, appendix A.2)."""

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        return optax.linear_schedule(1.0, self.final, max(spans.curve, 1))


@dataclass(frozen=True)
class Cosine(Schedule):
    """f(t) = final + (1 - final) (1 + cos(pi t / n)) / 2: one period of SGDR (Loshchilov and Hutter 2017)."""

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        return optax.cosine_decay_schedule(1.0, max(spans.curve, 1), alpha=self.final)


@dataclass(frozen=True)
class InverseSqrt(Schedule):
    """f(t) = sqrt(s / (s + t)) with s = timescale (Zhai et al. 2022, section 2 and big_vision's "rsqrt").

    Where s is the warm-up, that is sqrt(warmup / step), the Transformer's schedule (Vaswani et al. 2017,
    section 5.3), whose peak is learning_rate = d^-0.5 warmup^-0.5.
    """

    timescale: Duration | None = None
    """The time scale of the fall; None: the length of the warm-up."""
    falls: ClassVar[bool] = False

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        scale = spans.warmup if self.timescale is None else to_steps(self.timescale)
        return lambda count: jnp.sqrt(scale / (scale + jnp.asarray(count, jnp.float32)))

    def problems(self) -> Iterator[str]:
        if self.warmup is None and self.timescale is None:
            yield 'timescale=None: it is the warm-up, and there is none; give one, as in warmup="10_000 steps"'

    def step_problems(self, spans: Spans, to_steps: ToSteps) -> Iterator[str]:
        scale = spans.warmup if self.timescale is None else to_steps(self.timescale)
        if scale < 1:
            given = f"warmup={self.warmup}" if self.timescale is None else f"timescale={self.timescale}"
            yield f"{given} is no step at all: inverse_sqrt needs at least one"


@dataclass(frozen=True)
class WarmupStableDecay(Constant):
    """f(t) = 1, then down over the cool-down (Hu et al. 2024, MiniCPM, section 4; Zhai et al. 2022).

    With u, the share of the cool-down that is over, and d = 1 - final, it falls as 1 - d u (linear),
    1 - d sqrt(u) (one_minus_sqrt, the best in Haegele et al. 2024, section 3) or 1 - d (1 - cos(pi u)) / 2
    (cosine).
    """

    cooldown: Duration | None = Duration.parse("20%")
    """The length of the decay at the end."""
    shape: Literal["linear", "one_minus_sqrt", "cosine"] = "one_minus_sqrt"
    """Shape of the decay."""

    def cooldown_share(self, count: jax.Array, steps: int) -> jax.Array:
        left = optax.linear_schedule(1.0, 0.0, steps)(count)
        if self.shape == "one_minus_sqrt":
            return 1 - jnp.sqrt(1 - left)
        return (1 + jnp.cos(jnp.pi * (1 - left))) / 2 if self.shape == "cosine" else left

    def problems(self) -> Iterator[str]:
        if self.cooldown is None:
            yield 'cooldown=None: it is the decay of wsd; give one, as in "20%", or use name="constant"'


@dataclass(frozen=True)
class OneCycle(Schedule):
    """From `start` up to 1 over the warm-up, then down to `final` (Smith and Topin 2018, section 3).

    Both ways along half a cosine wave, as in PyTorch's OneCycleLR, or in straight lines. With a cool-down the
    curve comes down to `start`, and the cool-down goes on to `final`: the paper's third phase.
    """

    warmup: Duration | None = Duration.parse("30%")
    """The length of the rise."""
    start: InputOrZero[PeakShare] = 0.04
    """The share of the peak at the first step (PyTorch: 1 / 25)."""
    final: InputOrZero[PeakShare] = 4e-6
    shape: Literal["cosine", "linear"] = "cosine"
    """Shape of the rise and the fall."""

    def ends(self) -> tuple[float, float]:
        return self.start, self.final

    def rise(self, count: jax.Array, steps: int) -> jax.Array:
        if self.shape == "linear":
            return super().rise(count, steps)
        return 1 - optax.cosine_decay_schedule(1 - self.start, steps)(count)

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        bottom = self.start if spans.cooldown else self.final
        if self.shape == "linear":
            return optax.linear_schedule(1.0, bottom, max(spans.curve, 1))
        return optax.cosine_decay_schedule(1.0, max(spans.curve, 1), alpha=bottom)

    def problems(self) -> Iterator[str]:
        if self.warmup is None:
            yield 'warmup=None: the rise is half of one_cycle; give one, as in "30%", or use name="cosine"'


@dataclass(frozen=True)
class Polynomial(Schedule):
    """f(t) = final + (1 - final) (1 - t / n)^power."""

    power: Input[Annotated[float, above(0, "a number above 0; at 0 the rate would not fall")]] = 0.9
    """Exponent of the decay; 0.9 is DeepLab's "poly" (Chen et al. 2018, section 4.1), 1 is linear."""

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        return optax.polynomial_schedule(1.0, self.final, self.power, max(spans.curve, 1))


@dataclass(frozen=True)
class Step(Schedule):
    """f(t) = factor^k, where k drops lie at or before step t of the training (He et al. 2016, section 4.2)."""

    drops: tuple[Duration, ...] = ()
    """When the rate drops, counted from the start of the training, warm-up included: ("30 epochs", "60
    epochs", "80 epochs") is Goyal et al. 2017's."""
    factor: Input[Annotated[float, strictly_between(0, 1)]] = 0.1
    """The factor by which a drop multiplies the rate."""
    falls: ClassVar[bool] = False

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        drops = np.array([to_steps(drop) - spans.warmup for drop in self.drops])
        return lambda count: self.factor ** jnp.sum(jnp.asarray(count) >= drops)

    def problems(self) -> Iterator[str]:
        if not self.drops:
            yield 'drops=(): the rate never drops; give them, as in ("30 epochs", "60 epochs")'

    def step_problems(self, spans: Spans, to_steps: ToSteps) -> Iterator[str]:
        steps = [to_steps(drop) for drop in self.drops]
        if len(set(steps)) < len(steps):
            yield f"drops={written(self.drops)}: two of them are the same step ({written(steps)})"
        end = spans.warmup + spans.curve
        between = f"the warm-up's end (step {spans.warmup}) and the cool-down or the end (step {end})"
        for drop, step in zip(self.drops, steps):
            if not spans.warmup < step < end:
                yield f"drops={written(self.drops)}: {drop} (step {step}) is not between {between}"


@dataclass(frozen=True)
class CosineRestarts(Schedule):
    """Cosines one after the other: SGDR (Loshchilov and Hutter 2017, section 3).

    Cycle i has p_i = period growth^i steps (rounded) and begins at decay^i; with u the share of it that is
    over, f = final + (decay^i - final) (1 + cos(pi u)) / 2. The end of the training cuts the last cycle off.
    """

    period: Duration = Duration.parse("10%")
    """The length of the first cycle."""
    growth: Annotated[float, at_least(1, "1 or more; cycles may not shrink")] = 2.0
    """Each cycle is so many times longer than the one before."""
    decay: Input[Annotated[float, Constraint("a number above 0, at most 1", lambda v: 0 < v <= 1)]] = 1.0
    """The share of a cycle's first rate at which the next one begins."""

    def cycles(self, spans: Spans, to_steps: ToSteps) -> list[int]:
        """The length of each cycle that begins within the curve (and of at most one too many)."""
        lengths: list[int] = []
        period = to_steps(self.period)
        while (not lengths or sum(lengths) < spans.curve) and len(lengths) <= MOST_RESTARTS:
            lengths.append(max(round(period * self.growth ** len(lengths)), 1))
        return lengths

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        lengths = self.cycles(spans, to_steps)
        starts = [jnp.maximum(self.decay**i, self.final) for i in range(len(lengths))]
        waves = [optax.cosine_decay_schedule(s, n, alpha=self.final / s) for s, n in zip(starts, lengths)]
        return optax.join_schedules(waves, [sum(lengths[:i]) for i in range(1, len(lengths))])

    def step_problems(self, spans: Spans, to_steps: ToSteps) -> Iterator[str]:
        if len(self.cycles(spans, to_steps)) > MOST_RESTARTS:
            yield f"period={self.period}: more than {MOST_RESTARTS} restarts; give a longer period"


def written(values: tuple | list) -> str:
    """A list as a person writes it: "30 epochs, 60 epochs"."""
    return ", ".join(str(value) for value in values)
