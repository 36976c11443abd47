"""What all optimizers have in common: their rules by parameter path."""

import re
from abc import ABC
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import optax

from jaxformer.optim.masks import NO_DECAY, decay_mask

MomentDtype: TypeAlias = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Optimizer(ABC):
    """What all optimizers have: w -= lr(t) * multiplier * (direction + weight_decay * w).

    Patterns are regular expressions for whole names of a parameter's path (`paths.py`): "head" takes
    head/kernel and head/bias, "encoder/block_[0-3]" the first four blocks, stacked or not.
    """

    averages: ClassVar[bool] = False
    """Whether it averages the parameters by itself; the average is then what is evaluated."""
    needs_whole_batch: ClassVar[bool] = False
    """Whether it looks at the whole batch at once, which `parallel.mode="pmap"` splits."""

    learning_rate: float
    """The peak, of which the schedule is a share."""
    weight_decay: float = 0.0
    """Decoupled from the gradient and multiplied by the learning rate, as in PyTorch's and in optax's AdamW
    (Loshchilov and Hutter 2019). Where a paper multiplies it by the schedule alone (big_vision), its number
    is weight_decay * learning_rate here: 1e-4 at a peak of 1e-3 is 0.1."""
    clip_norm: float | None = None
    """The largest global norm of the gradient; larger ones are scaled down."""
    clip_value: float | None = None
    """The largest absolute value of a gradient's entry; comes before clip_norm."""
    agc: float | None = None
    """Adaptive gradient clipping (Brock et al. 2021, section 4.1): the largest norm of a unit's gradient as a
    share of the norm of its weights, 0.01 in the paper. Not the head's; comes after clip_norm."""
    no_decay: tuple[str, ...] = NO_DECAY
    """Patterns of parameters that neither decay nor are regularised."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameters that do not move: no gradient, no optimizer state."""
    learning_rate_multipliers: tuple[tuple[str, float], ...] = ()
    """Pairs of a pattern and what it multiplies the whole update by, decay included; the first pattern that
    takes a parameter counts."""
    layer_decay: float | None = None
    """Multiplies the update of layer i of N, decay included, by layer_decay ** (N - i): embeddings are layer
    0, block i is layer i + 1, the head is layer N (Bao et al. 2022)."""
    l1: float = 0.0
    """Adds l1 * sum |w| to the loss."""
    l2: float = 0.0
    """Adds l2 / 2 * sum w^2 to the loss: what PyTorch's SGD and Adam call weight_decay."""

    def direction(self) -> optax.GradientTransformation:
        """From the (clipped) gradient to the direction of descent, before the learning rate."""
        return optax.identity()

    def transformation(
        self, schedule: optax.Schedule, multiply: optax.GradientTransformation
    ) -> optax.GradientTransformation:
        """From the (clipped) gradient to the update.

        Args:
          schedule: learning rate by step.
          multiply: applies the multipliers by path.
        """
        return optax.chain(self.direction(), self.decay(), multiply, optax.scale_by_learning_rate(schedule))

    def decay(self) -> optax.GradientTransformation:
        """Adds weight_decay * w to the direction, where it decays."""
        if not self.weight_decay:
            return optax.identity()
        return optax.add_decayed_weights(self.weight_decay, lambda tree: decay_mask(self, tree))

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        if self.learning_rate < 0:
            yield f"learning_rate={self.learning_rate}: the loss would rise; give a number above 0"
        for key in ("weight_decay", "l1", "l2"):
            if getattr(self, key) < 0:
                yield f"{key}={getattr(self, key)}: weights would grow; give 0 or more"
        for key in ("clip_norm", "clip_value", "agc"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                yield f"{key}={value}: give a number above 0, or None for no clipping"
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            yield f"layer_decay={self.layer_decay}: give a number above 0, at most 1, as in 0.75"
        for pattern, value in self.learning_rate_multipliers:
            if value < 0:
                yield f"learning_rate_multipliers: {pattern!r} has {value}; give 0 or more"
        for key, patterns in self.patterns().items():
            for pattern in patterns:
                yield from pattern_problems(key, pattern)

    def patterns(self) -> dict[str, tuple[str, ...]]:
        """Field -> the patterns in it."""
        return {
            "no_decay": self.no_decay,
            "freeze": self.freeze,
            "learning_rate_multipliers": tuple(p for p, _ in self.learning_rate_multipliers),
        }


def pattern_problems(key: str, pattern: str) -> Iterator[str]:
    """Yields a line if `pattern` is not a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        yield f"{key}: {pattern!r} is not a regular expression ({error}); escape it or correct it"


def rate_problems(config: Any, *keys: str) -> Iterator[str]:
    """Yields a line for every one of these fields that is not in [0, 1)."""
    for key in keys:
        value = getattr(config, key)
        if not 0 <= value < 1:
            yield f"{key}={value}: the share that is kept a step; give a number of at least 0 and below 1"
