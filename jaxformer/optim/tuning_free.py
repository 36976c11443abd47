"""Optimizers that need less tuning: Schedule-Free (no schedule) and Prodigy (no learning rate)."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxformer.config.fields import Rate, above, strictly_between
from jaxformer.optim.base import LearningRate, Optimizer, is_masked
from jaxformer.optim.masks import decay_mask

Tree = Any


@dataclass(frozen=True)
class ScheduleFree(Optimizer):
    """Schedule-Free (Defazio et al. 2024, algorithm 1): averaging instead of a falling learning rate.

    Gradients are taken at y = b1 x + (1 - b1) z, where z moves by the base optimizer and x is the average of
    all z, weighted by the squared learning rate. Training holds y; evaluation uses x (`eval_params`). It is meant
    for schedule.name="constant" with a warm-up.
    """

    base: Literal["adam", "sgd"] = "adam"
    """Adam (without its momentum) or sgd."""
    b1: Annotated[
        float, strictly_between(0, 1, "a number between 0 and 1; at 0 gradients ignore the average")
    ] = 0.9
    """The average's share in the point where gradients are taken."""
    b2: Rate = 0.999
    """The share of Adam's average of squared gradients that is kept each step."""
    eps: float = 1e-8
    """Added to the root of Adam's second moment."""

    averages: ClassVar[bool] = True

    def direction(self) -> optax.GradientTransformation:
        if self.base == "sgd":
            return optax.identity()
        return optax.scale_by_rms(self.b2, self.eps, eps_in_sqrt=False, bias_correction=True)

    def transformation(
        self, schedule: optax.Schedule, multiply: optax.GradientTransformation
    ) -> optax.GradientTransformation:
        return contrib.schedule_free(super().transformation(schedule, multiply), schedule, self.b1)

    def eval_params(self, opt_state: Tree, params: Tree) -> Tree:
        """The averaged parameters x; frozen ones are as they are."""
        state = optax.tree.get(opt_state, "ScheduleFreeState")

        def averaged(y: jax.Array, z: jax.Array) -> jax.Array:
            return y if is_masked(z) else (y - (1 - state.b1) * z) / state.b1

        return jax.tree.map(averaged, params, state.z, is_leaf=is_masked)


@dataclass(frozen=True)
class Prodigy(Optimizer):
    """Prodigy (Mishchenko and Defazio 2024, algorithm 4): Adam that estimates its own learning rate."""

    learning_rate: LearningRate = 1.0
    """Multiplies the estimate; leave it at 1."""
    b1: Rate = 0.9
    """The share of the gradients' average that is kept each step."""
    b2: Rate = 0.999
    """The share of the squared gradients' average that is kept each step."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    estimate: Annotated[float, above(0, "a small number above 0, such as 1e-6; 0 cannot grow")] = 1e-6
    """The first estimate of the learning rate, too small on purpose."""
    estimate_coefficient: float = 1.0
    """Multiplies the estimate; the place to tune."""
    safeguard_warmup: bool = False
    """Leaves the warm-up out of the estimate."""

    def transformation(
        self, schedule: optax.Schedule, multiply: optax.GradientTransformation
    ) -> optax.GradientTransformation:
        """optax's Prodigy, with a weight decay that goes by the mask."""

        def above_zero(step: jax.Array) -> jax.Array:
            return jnp.maximum(schedule(step), 1e-10)  # it divides by the sum of the rates so far

        prodigy = contrib.prodigy(
            above_zero,
            betas=(self.b1, self.b2),
            eps=self.eps,
            estim_lr0=self.estimate,
            estim_lr_coef=self.estimate_coefficient,
            safeguard_warmup=self.safeguard_warmup,
        )

        def init(params: Tree) -> Any:
            return prodigy.init(jax.tree.map(jnp.copy, params))  # it keeps them: the step donates its own

        def update(updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
            count = state.count + 1
            correction = jnp.sqrt(1 - self.b2**count) / (1 - self.b1**count)
            rate = state.estim_lr * schedule(state.count) * correction
            mask = decay_mask(self, params)
            updates, state = prodigy.update(updates, state, params, **extra)
            decayed = jax.tree.map(
                lambda u, w, m: u - rate * self.weight_decay * w if m else u, updates, params, mask
            )
            return decayed, state

        return optax.chain(optax.GradientTransformationExtraArgs(init, update), multiply)
