"""Optimizers with two moments, one or none: Adam and what descends from it, SGD, Momentum, Lion, Sophia."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import optax
from optax import contrib

from jaxformer.config.fields import Constraint, Input, KeptShare, PositiveFloat, PositiveInt, at_least
from jaxformer.optim.base import Epsilon, MomentDtype, Optimizer, by_layer


@dataclass(frozen=True)
class Moments(Optimizer):
    """Optimizers with averages of gradients and of their squares."""

    b1: KeptShare = 0.9
    """The share of the gradients' average that is kept each step."""
    b2: KeptShare = 0.999
    """The share of the squared gradients' average that is kept each step (GPT-3, Llama: 0.95)."""
    eps: Input[Epsilon] = 1e-8
    """Added to the root of the second moment."""
    mu_dtype: MomentDtype | None = None
    """Dtype of the first moment; None: that of the parameters."""


@dataclass(frozen=True)
class AdamW(Moments):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""

    nesterov: bool = False
    """Looks one step ahead (Dozat 2016, NAdam)."""

    def direction(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, self.eps, mu_dtype=self.mu_dtype, nesterov=self.nesterov)


@dataclass(frozen=True)
class Adam(AdamW):
    """Adam (Kingma and Ba 2015, algorithm 1). It has no weight decay: adamw has."""

    weight_decay: Annotated[
        float,
        Constraint('0: adam has none; use name="adamw", or l2 for a penalty in the loss', lambda v: v == 0),
    ] = 0.0
    """Always 0; "adamw" has a weight decay."""


@dataclass(frozen=True)
class LAMB(Moments):
    """LAMB (You et al. 2020, algorithm 2): Adam's direction with decay, made as long as the weights.

    Lengths are taken parameter by parameter and, in a stack, layer by layer.
    """

    eps: Input[Epsilon] = 1e-6

    def direction(self) -> optax.GradientTransformation:
        adam = optax.scale_by_adam(self.b1, self.b2, self.eps, mu_dtype=self.mu_dtype)
        return optax.chain(adam, super().decay(), by_layer(lambda path, rank: optax.scale_by_trust_ratio()))

    def decay(self) -> optax.GradientTransformation:
        return optax.identity()  # it is part of the direction


@dataclass(frozen=True)
class Adafactor(Optimizer):
    """Adafactor (Shazeer and Stern 2018, algorithms 4 and 5): a second moment of rows and columns.

    The update is a share of the weights' size, so that learning_rate is relative, too (the paper: at most
    1e-2). Weight decay is multiplied by the learning rate, unlike in optax's alias.
    """

    decay_rate: Input[float] = 0.8
    """The second moment keeps 1 - step^-decay_rate of itself each step."""
    min_dim_size_to_factor: int = 128
    """Parameters with fewer than two axes of this length keep a full second moment."""
    clipping_threshold: Input[Annotated[float, at_least(1, "1 or more, or None for no limit")]] | None = 1.0
    """The largest root mean square of a parameter's update; None: no limit."""
    multiply_by_parameter_scale: bool = True
    """Makes the update a share of the root mean square of the weights."""
    momentum: KeptShare | None = None
    """The share of the average of updates that is kept each step; None: no average, and no memory for it."""
    mu_dtype: MomentDtype = "float32"
    """Dtype of that average."""

    def direction(self) -> optax.GradientTransformation:
        factor = self.min_dim_size_to_factor
        parts = [optax.scale_by_factored_rms(decay_rate=self.decay_rate, min_dim_size_to_factor=factor)]
        if (limit := self.clipping_threshold) is not None:
            parts.append(by_layer(lambda path, rank: optax.clip_by_block_rms(limit)))
        if self.multiply_by_parameter_scale:
            parts.append(by_layer(lambda path, rank: optax.scale_by_param_block_rms()))
        if self.momentum is not None:
            parts.append(optax.ema(self.momentum, debias=False, accumulator_dtype=self.mu_dtype))
        return optax.chain(*parts)


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent: the direction is the gradient."""


@dataclass(frozen=True)
class Momentum(Optimizer):
    """SGD with momentum: m = momentum * m + g (Sutskever et al. 2013; PyTorch's SGD without dampening)."""

    momentum: KeptShare = 0.9
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

    b1: KeptShare = 0.9
    """The momentum's share in the direction."""
    b2: KeptShare = 0.99
    """The share of the momentum that is kept each step."""
    mu_dtype: MomentDtype | None = None
    """Dtype of the momentum; None: that of the parameters."""

    def direction(self) -> optax.GradientTransformation:
        return optax.scale_by_lion(self.b1, self.b2, mu_dtype=self.mu_dtype)


@dataclass(frozen=True)
class Sophia(Moments):
    """Sophia-H (Liu et al. 2024, algorithm 3): momentum over the Hessian's diagonal, clipped.

    Every `update_interval` steps it takes a Hessian-vector product of the whole batch's loss: about twice a
    gradient's work, and its memory without microbatches.
    """

    b1: KeptShare = 0.965
    b2: KeptShare = 0.99
    """The share of the average of the Hessian's diagonal that is kept at each estimate."""
    eps: Input[Epsilon] = 1e-8
    """The least that the momentum is divided by."""
    gamma: Input[PositiveFloat] = 0.01
    """Multiplies the Hessian's diagonal; larger ones clip more rarely."""
    clip_threshold: Input[PositiveFloat] = 1.0
    """The largest absolute value of the direction's entries."""
    update_interval: PositiveInt = 10
    """Steps between two estimates."""

    needs_whole_batch: ClassVar[bool] = True

    def direction(self) -> optax.GradientTransformation:
        fields = ("b1", "b2", "eps", "gamma", "clip_threshold", "update_interval", "mu_dtype")
        given = {name: getattr(self, name) for name in fields}
        sophia = contrib.sophia(learning_rate=1.0, weight_decay=0.0, **given)
        return optax.chain(sophia, optax.scale(-1.0))  # optax has only the whole, which points downhill
