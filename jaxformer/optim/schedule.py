"""The contract of schedules: warm-up, a curve of its own, cool-down.

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
from typing import Annotated, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxformer.config.durations import Duration
from jaxformer.config.fields import InputOrZero, between

ToSteps: TypeAlias = Callable[[Duration], int]
PeakShare: TypeAlias = Annotated[float, between(0, 1, "a share of the peak learning rate, from 0 to 1")]


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
    """The base of all schedules. A schedule is a frozen dataclass that defines `curve`."""

    warmup: Duration | None = None
    """The time in which the learning rate rises in a straight line from zero (Goyal et al. 2017, section 2.2)."""
    cooldown: Duration | None = None
    """The time at the end in which it falls in a straight line."""
    final: InputOrZero[PeakShare] = 0.0
    """The share of the peak at which the curve ends, if it falls by itself (a cool-down then goes on to
    zero); else the share at which the cool-down ends."""

    falls: ClassVar[bool] = True
    """Whether the curve comes down by itself."""

    @abstractmethod
    def curve(self, spans: Spans, to_steps: ToSteps) -> optax.Schedule:
        """The share of the peak by the number of steps since the end of the warm-up."""

    def ends(self) -> tuple[float, float]:
        """The shares of the peak where the warm-up begins and where the cool-down ends."""
        return 0.0, 0.0 if self.falls else self.final

    def rise(self, count: jax.Array, steps: int) -> jax.Array:
        """The warm-up as a share of its last value, by the steps since it began."""
        return optax.linear_schedule(self.ends()[0], 1.0, steps)(count)

    def cooldown_share(self, count: jax.Array, steps: int) -> jax.Array:
        """How much of the cool-down's height is left, from 1 to 0, by the steps since it began."""
        return optax.linear_schedule(1.0, 0.0, steps)(count)

    def step_problems(self, spans: Spans, to_steps: ToSteps) -> Iterator[str]:
        """Yields a line for every duration that does not fit into the training."""
        yield from ()


def spans_of(schedule: Schedule, total_steps: int, to_steps: ToSteps) -> Spans:
    """The parts of a training; where rounding up makes them one step too long, the cool-down is shorter."""
    warmup = 0 if schedule.warmup is None else min(to_steps(schedule.warmup), total_steps)
    cooldown = 0 if schedule.cooldown is None else min(to_steps(schedule.cooldown), total_steps - warmup)
    return Spans(warmup, total_steps - warmup - cooldown, cooldown)


def make_schedule(schedule: Schedule, peak: float, total_steps: int, to_steps: ToSteps) -> optax.Schedule:
    """The learning rate by step.

    Args:
      schedule: the schedule, without `schedule_problems`.
      peak: the learning rate of which the schedule is a share.
      total_steps: the length of the training.
      to_steps: a duration in steps.

    Returns:
      A function from a step (an integer or an int32 scalar, traced or not) to a float32 scalar.
    """
    spans = spans_of(schedule, total_steps, to_steps)
    last = schedule.ends()[1]
    curve = schedule.curve(spans, to_steps)

    def rise(count: jax.Array) -> jax.Array:
        return schedule.rise(count, spans.warmup) * curve(0)

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


def schedule_problems(schedule: Schedule, total_steps: int, to_steps: ToSteps) -> Iterator[str]:
    """Yields a line for every duration of a schedule that does not fit into the training.

    Args:
      schedule: the schedule.
      total_steps: the length of the training.
      to_steps: a duration in steps.
    """
    parts = {"warmup": schedule.warmup, "cooldown": schedule.cooldown}
    steps = {key: to_steps(value) for key, value in parts.items() if value is not None}
    for key, length in steps.items():
        if length > total_steps:
            given = str(parts[key])
            steps_of = "" if given.endswith("steps") else f" is {length} steps"
            yield f"{key}={given}{steps_of}: the training is {total_steps} steps; shorten it, or give a share"
            return
    if sum(steps.values()) > total_steps + 1:
        yield (
            f"warmup={parts['warmup']} and cooldown={parts['cooldown']} are {sum(steps.values())} steps "
            f"together, and the training is {total_steps}: shorten one"
        )
        return
    yield from schedule.step_problems(spans_of(schedule, total_steps, to_steps), to_steps)
