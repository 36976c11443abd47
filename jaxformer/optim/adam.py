"""Adam and what descends from it: AdamW, Adafactor, LAMB."""

from dataclasses import dataclass
from typing import Annotated

import optax

from jaxformer.config.fields import Constraint, Rate, at_least
from jaxformer.optim.base import MomentDtype, Optimizer, by_layer


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""

    b1: Rate = 0.9
    """The share of the gradients' average that is kept each step."""
    b2: Rate = 0.999
    """The share of the squared gradients' average that is kept each step (GPT-3, Llama: 0.95)."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    nesterov: bool = False
    """Looks one step ahead (Dozat 2016, NAdam)."""
    mu_dtype: MomentDtype | None = None
    """Dtype of the first moment; None: that of the parameters."""

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
class LAMB(Optimizer):
    """LAMB (You et al. 2020, algorithm 2): Adam's direction with decay, made as long as the weights.

    Lengths are taken parameter by parameter and, in a stack, layer by layer.
    """

    b1: Rate = 0.9
    """The share of the gradients' average that is kept each step."""
    b2: Rate = 0.999
    """The share of the squared gradients' average that is kept each step."""
    eps: float = 1e-6
    """Added to the root of the second moment."""
    mu_dtype: MomentDtype | None = None
    """Dtype of the first moment; None: that of the parameters."""

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

    decay_rate: float = 0.8
    """The second moment keeps 1 - step^-decay_rate of itself each step."""
    min_dim_size_to_factor: int = 128
    """Parameters with fewer than two axes of this length keep a full second moment."""
    clipping_threshold: Annotated[float, at_least(1, "1 or more, or None for no limit")] | None = 1.0
    """The largest root mean square of a parameter's update; None: no limit."""
    multiply_by_parameter_scale: bool = True
    """Makes the update a share of the root mean square of the weights."""
    momentum: Rate | None = None
    """The share of the average of updates that is kept each step; None: no average, and no memory for it."""
    mu_dtype: MomentDtype = "float32"
    """Dtype of that average."""

    def direction(self) -> optax.GradientTransformation:
        parts = [
            optax.scale_by_factored_rms(
                decay_rate=self.decay_rate, min_dim_size_to_factor=self.min_dim_size_to_factor
            )
        ]
        limit = self.clipping_threshold
        if limit is not None:
            parts.append(by_layer(lambda path, rank: optax.clip_by_block_rms(limit)))
        if self.multiply_by_parameter_scale:
            parts.append(by_layer(lambda path, rank: optax.scale_by_param_block_rms()))
        if self.momentum is not None:
            parts.append(optax.ema(self.momentum, debias=False, accumulator_dtype=self.mu_dtype))
        return optax.chain(*parts)
