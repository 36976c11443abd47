"""Optimizers with one moment or none: SGD, Momentum, Lion, Sophia."""

from dataclasses import dataclass
from typing import ClassVar

import optax
from optax import contrib

from jaxformer.config.fields import PositiveFloat, PositiveInt, Rate
from jaxformer.optim.base import MomentDtype, Optimizer


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent: the direction is the gradient."""


@dataclass(frozen=True)
class Momentum(Optimizer):
    """SGD with momentum: m = momentum * m + g (Sutskever et al. 2013; PyTorch's SGD without dampening)."""

    momentum: Rate = 0.9
    """The share of the last direction that is kept."""
    nesterov: bool = False
    """Takes g + momentum * m instead of m."""
    mu_dtype: MomentDtype | None = None
    """Dtype of m; None: that of the parameters."""

    def direction(self) -> optax.GradientTransformation:
        return optax.trace(self.momentum, self.nesterov, accumulator_dtype=self.mu_dtype)


@dataclass(frozen=True)
class Lion(Optimizer):
    """Lion (Chen et al. 2023, algorithm 2): the direction is the sign of a momentum.

    Use a learning_rate 3 to 10 times smaller than AdamW's, and a weight_decay that much larger (section 5).
    """

    b1: Rate = 0.9
    """The momentum's share in the direction."""
    b2: Rate = 0.99
    """The share of the momentum that is kept each step."""
    mu_dtype: MomentDtype | None = None
    """Dtype of the momentum; None: that of the parameters."""

    def direction(self) -> optax.GradientTransformation:
        return optax.scale_by_lion(self.b1, self.b2, mu_dtype=self.mu_dtype)


@dataclass(frozen=True)
class Sophia(Optimizer):
    """Sophia-H (Liu et al. 2024, algorithm 3): momentum over the Hessian's diagonal, clipped.

    Every `update_interval` steps it takes a Hessian-vector product of the whole batch's loss: about twice a
    gradient's work, and its memory without microbatches.
    """

    b1: Rate = 0.965
    """The share of the gradients' average that is kept each step."""
    b2: Rate = 0.99
    """The share of the average of the Hessian's diagonal that is kept at each estimate."""
    eps: float = 1e-8
    """The least that the momentum is divided by."""
    gamma: PositiveFloat = 0.01
    """Multiplies the Hessian's diagonal; larger ones clip more rarely."""
    clip_threshold: PositiveFloat = 1.0
    """The largest absolute value of the direction's entries."""
    update_interval: PositiveInt = 10
    """Steps between two estimates."""
    mu_dtype: MomentDtype | None = None
    """Dtype of the momentum; None: that of the parameters."""

    needs_whole_batch: ClassVar[bool] = True

    def direction(self) -> optax.GradientTransformation:
        sophia = contrib.sophia(
            learning_rate=1.0,
            b1=self.b1,
            b2=self.b2,
            eps=self.eps,
            weight_decay=0.0,
            gamma=self.gamma,
            clip_threshold=self.clip_threshold,
            update_interval=self.update_interval,
            mu_dtype=self.mu_dtype,
        )
        return optax.chain(sophia, optax.scale(-1.0))  # optax has only the whole, which points downhill
