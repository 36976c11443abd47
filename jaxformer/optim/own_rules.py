"""Optimizers with rules of their own: Muon (matrices), Schedule-Free (no schedule) and Prodigy (no learning rate)."""

import math
import operator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxformer.config.fields import KEPT, Input, KeptShare, above, between, strictly_between
from jaxformer.optim.base import Epsilon, LearningRate, MomentDtype, Optimizer, Pattern, is_masked
from jaxformer.optim.masks import EMBEDDINGS, decay_mask
from jaxformer.paths import STACK, kernel_axes, matches, path_of

Tree = Any


@dataclass(frozen=True)
class Muon(Optimizer):
    """Muon (Jordan 2024, KellerJordan/Muon): the momentum of a matrix, orthogonalised; Adam for the rest.

    Attention kernels are matrices [D, H Dh] and [H Dh, D], convolutions [h w C, D]; a stack of layers is
    orthogonalised layer by layer. With `consistent_rms` both parts move about as far as under AdamW, so that
    its learning_rate and weight_decay fit (Liu et al. 2025, Moonlight, section 2.2).
    """

    momentum: KeptShare = 0.95
    """The share of the gradients' average that is kept each step."""
    nesterov: bool = True
    """Looks one step ahead."""
    ns_steps: Annotated[int, between(1, 100, "1 to 100 (5 is usual); 0 orthogonalises nothing")] = 5
    """Newton-Schulz iterations."""
    consistent_rms: Input[Annotated[float, above(0, "a number above 0 (0.2 is AdamW's), or None")]] | None = (
        0.2
    )
    """The root mean square of a matrix's update; None: its singular values are about sqrt(max(1, out / in)),
    as in KellerJordan/Muon."""
    adam: tuple[Pattern, ...] = (*EMBEDDINGS, "head")
    """Patterns of parameters that Adam moves, besides all that are not kernels."""
    adam_b1: KeptShare = 0.9
    """The share of the gradients' average that Adam keeps each step."""
    adam_b2: KeptShare = 0.95
    """The share of the squared gradients' average that Adam keeps each step."""
    eps: Input[Epsilon] = 1e-8
    """Added to Adam's root of the second moment, and to the norm of the matrix."""
    mu_dtype: MomentDtype | None = None
    """Dtype of the momentum and of Adam's first moment; None: that of the parameters."""

    def direction(self) -> optax.GradientTransformation:
        matrices = optax.chain(
            contrib.scale_by_muon(
                ns_steps=self.ns_steps,
                beta=self.momentum,
                eps=self.eps,
                mu_dtype=self.mu_dtype,
                nesterov=self.nesterov,
                weight_dimension_numbers=self.dimension_numbers,
            ),
            optax.stateless(self.scaled_by_shape),
        )
        adam = optax.scale_by_adam(self.adam_b1, self.adam_b2, self.eps, mu_dtype=self.mu_dtype)
        return optax.partition({"muon": matrices, "adam": adam}, self.labels)

    def scaled_by_shape(self, updates: Tree, params: Tree | None) -> Tree:
        """Orthogonal matrices, scaled as the config says."""

        def scaled(update: jax.Array, numbers: contrib.MuonDimensionNumbers) -> jax.Array:
            fan_in = math.prod(update.shape[a] for a in numbers.reduction_axis)
            fan_out = math.prod(update.shape[a] for a in numbers.output_axis)
            if self.consistent_rms is None:
                return update * max(1.0, fan_out / fan_in) ** 0.5
            return update * self.consistent_rms * max(fan_in, fan_out) ** 0.5

        return jax.tree.map(scaled, updates, self.dimension_numbers(updates))

    def numbers(self, key_path: Any, leaf: Any) -> contrib.MuonDimensionNumbers | None:
        """The axes of a matrix; None for what Adam moves."""
        path = path_of(key_path)
        stacked = STACK.search(path) is not None
        axes = kernel_axes(path, leaf.ndim - stacked)
        if axes is None or any(matches(pattern, path) for pattern in self.adam):
            return None
        return contrib.MuonDimensionNumbers(*(tuple(a + stacked for a in group) for group in axes))

    def dimension_numbers(self, params: Tree) -> Tree:
        """A tree of `numbers`."""
        return jax.tree_util.tree_map_with_path(self.numbers, params)

    def labels(self, params: Tree) -> Tree:
        """A tree of "muon" and "adam"."""
        return jax.tree_util.tree_map_with_path(
            lambda *leaf: "adam" if self.numbers(*leaf) is None else "muon", params
        )

    def parts(self, params: Tree) -> dict[str, Tree]:
        labels = self.labels(params)
        words = {"muon": "by orthogonalised momentum", "adam": "by Adam"}
        return {rule: jax.tree.map(partial(operator.eq, label), labels) for label, rule in words.items()}

    def patterns(self) -> dict[str, tuple[str, ...]]:
        return {**super().patterns(), "adam": self.adam}


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
        float, strictly_between(0, 1, "a number between 0 and 1; at 0 gradients ignore the average"), KEPT
    ] = 0.9
    """The average's share in the point where gradients are taken."""
    b2: KeptShare = 0.999
    """The share of Adam's average of squared gradients that is kept each step."""
    eps: Input[Epsilon] = 1e-8
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

    learning_rate: Input[LearningRate] = 1.0
    """Multiplies the estimate; leave it at 1."""
    b1: KeptShare = 0.9
    """The share of the gradients' average that is kept each step."""
    b2: KeptShare = 0.999
    """The share of the squared gradients' average that is kept each step."""
    eps: Input[Epsilon] = 1e-8
    """Added to the root of the second moment."""
    estimate: Input[Annotated[float, above(0, "a small number above 0, such as 1e-6; 0 cannot grow")]] = 1e-6
    """The first estimate of the learning rate, too small on purpose."""
    estimate_coefficient: Input[float] = 1.0
    """Multiplies the estimate; the place to tune."""
    safeguard_warmup: bool = False
    """Leaves the warm-up out of the estimate."""

    @property
    def known_rate(self) -> float:
        return self.learning_rate * self.estimate

    def transformation(
        self, schedule: optax.Schedule, multiply: optax.GradientTransformation
    ) -> optax.GradientTransformation:
        """optax's Prodigy, with a weight decay that goes by the mask."""

        def above_zero(step: jax.Array) -> jax.Array:
            return jnp.maximum(schedule(step), 1e-10)  # it divides by the sum of the rates so far

        prodigy = contrib.prodigy(
            above_zero,
            (self.b1, self.b2),
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
