"""Learning-rate schedules: warm-up, a curve of its own, cool-down.

A schedule is a share of the peak learning rate over the steps of a training, in three parts:

    0 ... warmup              a straight line from 0 (one_cycle: from `start`) up to the curve's first value
    warmup ... T - cooldown   the curve: what the schedules differ in; n is its length in steps
    T - cooldown ... T        a straight line (wsd: a choice of shapes) from the curve's last value down

After the last step T the value stays what it is there. Where a curve falls by itself (linear, cosine, ...),
`final` is where it ends, and a cool-down goes on from there to zero; where it does not (constant,
inverse_sqrt, step, wsd), `final` is where the cool-down ends.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxformer.config.durations import Duration

ToSteps: TypeAlias = Callable[[Duration], int]

SCHEDULES: dict[str, str] = {
    "constant": "jaxformer.optim.schedules:Constant",
    "linear": "jaxformer.optim.schedules:Linear",
    "cosine": "jaxformer.optim.schedules:Cosine",
    "inverse_sqrt": "jaxformer.optim.schedules:InverseSqrt",
    "wsd": "jaxformer.optim.schedules:WarmupStableDecay",
    "one_cycle": "jaxformer.optim.schedules:OneCycle",
    "polynomial": "jaxformer.optim.schedules:Polynomial",
    "step": "jaxformer.optim.schedules:Step",
    "cosine_restarts": "jaxformer.optim.schedules:CosineRestarts",
}

MOST_RESTARTS = 1000


@dataclass(frozen=True)
class Spans:
    """The three parts of a training, in steps."""

    warmup: int
    """Steps of warm-up."""
    curve: int
    """Steps between warm-up and cool-down."""
    cooldown: int
    """Steps of cool-down."""


@dataclass(frozen=True)
class Schedule(ABC):
    """What all schedules have."""

    warmup: Duration | None = None
    """How long the learning rate rises in a straight line from zero (Goyal et al. 2017, section 2.2)."""
    cooldown: Duration | None = None
    """How long, at the end, it falls in a straight line."""
    final: float = 0.0
    """The share of the peak at which the curve ends, if it falls by itself (a cool-down then goes on to
    zero); else the share at which the cool-down ends."""

    falls: ClassVar[bool] = True  # whether the curve comes down by itself

    @abstractmethod
    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        """The share of the peak by the number of steps since the end of the warm-up."""

    def ends(self) -> tuple[float, float]:
        """The shares of the peak where the warm-up begins and where the cool-down ends."""
        return 0.0, 0.0 if self.falls else self.final

    def cooldown_share(self, count: jax.Array, steps: int) -> jax.Array:
        """How much of the cool-down's height is left, from 1 to 0, by the steps since it began."""
        return optax.linear_schedule(1.0, 0.0, steps)(count)

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        if not 0 <= self.final <= 1:
            yield f"final={self.final}: a share of the peak learning rate; give a number from 0 to 1"

    def step_problems(self, spans: Spans, to_steps: ToSteps) -> Iterator[str]:
        """Yields a line for every duration that does not fit into the training."""
        yield from ()


@dataclass(frozen=True)
class Constant(Schedule):
    """f(t) = 1."""

    falls: ClassVar[bool] = False

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        """Ones."""
        return optax.constant_schedule(1.0)


@dataclass(frozen=True)
class Linear(Schedule):
    """f(t) = 1 + (final - 1) t / n: BERT's decay (Devlin et al. 2019, appendix A.2)."""

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        """A straight line."""
        return optax.linear_schedule(1.0, self.final, max(spans.curve, 1))


@dataclass(frozen=True)
class Cosine(Schedule):
    """f(t) = final + (1 - final) (1 + cos(pi t / n)) / 2: one period of SGDR (Loshchilov and Hutter 2017)."""

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        """Half a wave."""
        return optax.cosine_decay_schedule(1.0, max(spans.curve, 1), alpha=self.final)


@dataclass(frozen=True)
class InverseSqrt(Schedule):
    """f(t) = sqrt(s / (s + t)) with s = timescale (Zhai et al. 2022, section 2 and big_vision's "rsqrt").

    Where s is the warm-up, that is sqrt(warmup / step), the Transformer's schedule (Vaswani et al. 2017,
    section 5.3), whose peak is learning_rate = d^-0.5 warmup^-0.5.
    """

    timescale: Duration | None = None
    """How slowly it falls; None: as long as the warm-up."""
    falls: ClassVar[bool] = False

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        """One over the square root."""
        scale = spans.warmup if self.timescale is None else to_steps(self.timescale)
        return lambda count: jnp.sqrt(scale / (scale + jnp.asarray(count, jnp.float32)))

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        yield from super().problems()
        if self.warmup is None and self.timescale is None:
            yield 'timescale=None: it is the warm-up, and there is none; give warmup="10_000 steps" or so'

    def step_problems(self, spans: Spans, to_steps: ToSteps) -> Iterator[str]:
        """Yields a line for every duration that does not fit into the training."""
        scale = spans.warmup if self.timescale is None else to_steps(self.timescale)
        if scale < 1:
            key = "warmup" if self.timescale is None else "timescale"
            yield f"{key}={getattr(self, key)} is no step at all: inverse_sqrt needs at least one"


@dataclass(frozen=True)
class WarmupStableDecay(Schedule):
    """f(t) = 1, then down over the cool-down (Hu et al. 2024, MiniCPM, section 4; Zhai et al. 2022).

    With u, the share of the cool-down that is over, and d = 1 - final, it falls as 1 - d u (linear),
    1 - d sqrt(u) (one_minus_sqrt, the best in Haegele et al. 2024, section 3) or 1 - d (1 - cos(pi u)) / 2
    (cosine).
    """

    cooldown: Duration | None = Duration.parse("20%")
    """How long the decay at the end is."""
    shape: Literal["linear", "one_minus_sqrt", "cosine"] = "one_minus_sqrt"
    """Of the decay."""
    falls: ClassVar[bool] = False

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        """Ones."""
        return optax.constant_schedule(1.0)

    def cooldown_share(self, count: jax.Array, steps: int) -> jax.Array:
        """How much of the decay's height is left, from 1 to 0."""
        left = optax.linear_schedule(1.0, 0.0, steps)(count)
        shapes: dict[str, Callable[[], jax.Array]] = {
            "linear": lambda: left,
            "one_minus_sqrt": lambda: 1 - jnp.sqrt(1 - left),
            "cosine": lambda: (1 + jnp.cos(jnp.pi * (1 - left))) / 2,
        }
        return shapes[self.shape]()

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        yield from super().problems()
        if self.cooldown is None:
            yield 'cooldown=None: it is the decay of wsd; give one, as in "20%", or use name="constant"'


@dataclass(frozen=True)
class OneCycle(Schedule):
    """From `start` up to 1 over the warm-up, then down to `final` (Smith and Topin 2018, section 3).

    Both ways along half a cosine wave, as in PyTorch's OneCycleLR, or in straight lines. With a cool-down the
    curve comes down to `start`, and the cool-down goes on to `final`: the paper's third phase.
    """

    warmup: Duration | None = Duration.parse("30%")
    """How long the rise is."""
    start: float = 0.04
    """The share of the peak at the first step (PyTorch: 1 / 25)."""
    final: float = 4e-6
    shape: Literal["cosine", "linear"] = "cosine"
    """Of the rise and the fall."""

    def ends(self) -> tuple[float, float]:
        """The shares of the peak where the warm-up begins and where the cool-down ends."""
        return self.start, self.final

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        """The fall."""
        bottom = self.start if spans.cooldown else self.final
        if self.shape == "linear":
            return optax.linear_schedule(1.0, bottom, max(spans.curve, 1))
        return optax.cosine_decay_schedule(1.0, max(spans.curve, 1), alpha=bottom)

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        yield from super().problems()
        if not 0 <= self.start <= 1:
            yield f"start={self.start}: a share of the peak learning rate; give a number from 0 to 1"
        if self.warmup is None:
            yield 'warmup=None: the rise is half of one_cycle; give one, as in "30%", or use name="cosine"'


@dataclass(frozen=True)
class Polynomial(Schedule):
    """f(t) = final + (1 - final) (1 - t / n)^power."""

    power: float = 0.9
    """Of the decay; 0.9 is DeepLab's "poly" (Chen et al. 2018, section 4.1), 1 is linear."""

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        """A power."""
        return optax.polynomial_schedule(1.0, self.final, self.power, max(spans.curve, 1))

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        yield from super().problems()
        if self.power <= 0:
            yield f"power={self.power}: the rate would not fall; give a number above 0"


@dataclass(frozen=True)
class Step(Schedule):
    """f(t) = factor^k, where k drops lie at or before step t of the training (He et al. 2016, section 4.2)."""

    drops: tuple[Duration, ...] = ()
    """When the rate drops, counted from the start of the training, warm-up included: ("30 epochs", "60
    epochs", "80 epochs") is Goyal et al. 2017's."""
    factor: float = 0.1
    """What a drop multiplies the rate by."""
    falls: ClassVar[bool] = False

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        """A staircase."""
        return optax.piecewise_constant_schedule(
            1.0, {to_steps(drop) - spans.warmup: self.factor for drop in self.drops}
        )

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        yield from super().problems()
        if not self.drops:
            yield 'drops=(): the rate never drops; give them, as in ("30 epochs", "60 epochs")'
        if not 0 < self.factor < 1:
            yield f"factor={self.factor}: the rate would not drop; give a number between 0 and 1"

    def step_problems(self, spans: Spans, to_steps: ToSteps) -> Iterator[str]:
        """Yields a line for every duration that does not fit into the training."""
        steps = [to_steps(drop) for drop in self.drops]
        if len(set(steps)) < len(steps):
            yield f"drops={written(self.drops)}: two of them are the same step ({written(steps)})"
        total = spans.warmup + spans.curve + spans.cooldown
        for drop, step in zip(self.drops, steps):
            if not spans.warmup < step < total - spans.cooldown:
                yield (
                    f"drops={written(self.drops)}: {drop} (step {step}) is not between the warm-up's end "
                    f"(step {spans.warmup}) and the cool-down or the end (step {total - spans.cooldown})"
                )


@dataclass(frozen=True)
class CosineRestarts(Schedule):
    """Cosines one after the other: SGDR (Loshchilov and Hutter 2017, section 3).

    Cycle i has p_i = period growth^i steps (rounded) and begins at decay^i; with u the share of it that is
    over, f = final + (decay^i - final) (1 + cos(pi u)) / 2. The end of the training cuts the last cycle off.
    """

    period: Duration = Duration.parse("10%")
    """The length of the first cycle."""
    growth: float = 2.0
    """How many times longer each next one is."""
    decay: float = 1.0
    """The share of a cycle's first rate at which the next one begins."""

    def cycles(self, spans: Spans, to_steps: ToSteps) -> list[int]:
        """The length of each cycle that begins within the curve (and of at most one too many)."""
        lengths: list[int] = []
        period = to_steps(self.period)
        while (not lengths or sum(lengths) < spans.curve) and len(lengths) <= MOST_RESTARTS:
            lengths.append(max(round(period * self.growth ** len(lengths)), 1))
        return lengths

    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        """One wave after the other."""
        lengths = self.cycles(spans, to_steps)
        starts = [max(self.decay**i, self.final) for i in range(len(lengths))]
        waves = [optax.cosine_decay_schedule(s, n, alpha=self.final / s) for s, n in zip(starts, lengths)]
        return optax.join_schedules(waves, [sum(lengths[:i]) for i in range(1, len(lengths))])

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        yield from super().problems()
        if self.growth < 1:
            yield f"growth={self.growth}: cycles may not shrink; give 1 or more"
        if not 0 < self.decay <= 1:
            yield f"decay={self.decay}: a share of the cycle's first rate; give a number above 0, at most 1"

    def step_problems(self, spans: Spans, to_steps: ToSteps) -> Iterator[str]:
        """Yields a line for every duration that does not fit into the training."""
        if len(self.cycles(spans, to_steps)) > MOST_RESTARTS:
            yield f"period={self.period}: more than {MOST_RESTARTS} restarts; give a longer period"


def spans_of(schedule: Schedule, total_steps: int, to_steps: ToSteps) -> Spans:
    """How the training divides; where rounding up makes the parts one step too long, the cool-down yields."""
    warmup = 0 if schedule.warmup is None else min(to_steps(schedule.warmup), total_steps)
    cooldown = 0 if schedule.cooldown is None else min(to_steps(schedule.cooldown), total_steps - warmup)
    return Spans(warmup, total_steps - warmup - cooldown, cooldown)


def make_schedule(schedule: Any, peak: float, total_steps: int, to_steps: ToSteps) -> optax.Schedule:
    """The learning rate by step.

    Args:
      schedule: one of SCHEDULES' classes, without `schedule_problems`.
      peak: the learning rate of which the schedule is a share.
      total_steps: the length of the training.
      to_steps: a duration in steps.

    Returns:
      A function from a step (an integer or an int32 scalar, traced or not) to a float32 scalar.
    """
    spans = spans_of(schedule, total_steps, to_steps)
    first, last = schedule.ends()
    curve = schedule.curve(spans, to_steps)

    def rise(count: jax.Array) -> jax.Array:
        if isinstance(schedule, OneCycle) and schedule.shape == "cosine":
            return 1 - optax.cosine_decay_schedule(1 - first, spans.warmup)(count)
        return optax.linear_schedule(first, 1.0, spans.warmup)(count) * curve(0)

    def fall(count: jax.Array) -> jax.Array:
        return last + (curve(spans.curve) - last) * schedule.cooldown_share(count, spans.cooldown)

    parts, boundaries = [curve], []
    if spans.warmup:
        parts, boundaries = [rise, curve], [spans.warmup]
    if spans.cooldown:
        parts, boundaries = [*parts, fall], [*boundaries, total_steps - spans.cooldown]
    share = optax.join_schedules(parts, boundaries)

    def learning_rate(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.clip(jnp.asarray(step), 0, total_steps)
        return jnp.float32(peak) * jnp.asarray(share(step), jnp.float32)

    return learning_rate


def schedule_problems(schedule: Any, total_steps: int, to_steps: ToSteps) -> Iterator[str]:
    """Yields a line for every duration of a schedule that does not fit into the training.

    Args:
      schedule: one of SCHEDULES' classes.
      total_steps: the length of the training.
      to_steps: a duration in steps.
    """
    parts = {key: getattr(schedule, key) for key in ("warmup", "cooldown")}
    steps = {key: to_steps(value) for key, value in parts.items() if value is not None}
    for key, length in steps.items():
        if length > total_steps:
            said = str(parts[key])
            steps_of = "" if said.endswith("steps") else f" is {length} steps"
            yield f"{key}={said}{steps_of}: the training is {total_steps} steps; shorten it, or say it as a share"
            return
    if sum(steps.values()) > total_steps + 1:
        yield (
            f"warmup={parts['warmup']} and cooldown={parts['cooldown']} are {sum(steps.values())} steps "
            f"together, and the training is {total_steps}: shorten one"
        )
        return
    yield from schedule.step_problems(spans_of(schedule, total_steps, to_steps), to_steps)


def written(values: tuple | list) -> str:
    """A list as a person writes it: "30 epochs, 60 epochs"."""
    return ", ".join(str(value) for value in values)
