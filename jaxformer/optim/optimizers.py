"""Optimizers: their hyperparameters, and the optax transformation that each one is."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxformer.optim.base import MomentDtype, Optimizer, rate_problems
from jaxformer.optim.layers import by_layer
from jaxformer.optim.masks import EMBEDDINGS, decay_mask
from jaxformer.paths import STACK, kernel_axes, matches, path_of

Tree = Any

OPTIMIZERS: dict[str, str] = {
    "sgd": "jaxformer.optim.optimizers:SGD",
    "momentum": "jaxformer.optim.optimizers:Momentum",
    "adam": "jaxformer.optim.optimizers:Adam",
    "adamw": "jaxformer.optim.optimizers:AdamW",
    "adafactor": "jaxformer.optim.optimizers:Adafactor",
    "lion": "jaxformer.optim.optimizers:Lion",
    "lamb": "jaxformer.optim.optimizers:LAMB",
    "muon": "jaxformer.optim.optimizers:Muon",
    "schedule_free": "jaxformer.optim.optimizers:ScheduleFree",
    "prodigy": "jaxformer.optim.optimizers:Prodigy",
    "sophia": "jaxformer.optim.optimizers:Sophia",
}


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent: the direction is the gradient."""


@dataclass(frozen=True)
class Momentum(Optimizer):
    """SGD with momentum: m = momentum * m + g (Sutskever et al. 2013; PyTorch's SGD without dampening)."""

    momentum: float = 0.9
    """How much of the last direction is kept."""
    nesterov: bool = False
    """Takes g + momentum * m instead of m."""
    mu_dtype: MomentDtype | None = None
    """Of m; None: as the parameters."""

    def direction(self) -> optax.GradientTransformation:
        """The accumulated gradient."""
        return optax.trace(self.momentum, self.nesterov, accumulator_dtype=self.mu_dtype)

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        yield from super().problems()
        yield from rate_problems(self, "momentum")


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1). It has no weight decay: adamw has."""

    b1: float = 0.9
    """How much of the gradients' average is kept a step."""
    b2: float = 0.999
    """How much of the squared gradients' average is kept a step."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    nesterov: bool = False
    """Looks one step ahead (Dozat 2016, NAdam)."""
    mu_dtype: MomentDtype | None = None
    """Of the first moment; None: as the parameters."""

    def direction(self) -> optax.GradientTransformation:
        """The first moment over the root of the second."""
        return optax.scale_by_adam(self.b1, self.b2, self.eps, mu_dtype=self.mu_dtype, nesterov=self.nesterov)

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        yield from super().problems()
        yield from rate_problems(self, "b1", "b2")
        if type(self) is Adam and self.weight_decay:
            yield (
                f'weight_decay={self.weight_decay}: adam has none; use name="adamw", '
                "or l2 for a penalty in the loss"
            )


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    Attributes:
      b1: how much of the gradients' average is kept a step.
      b2: how much of the squared gradients' average is kept a step (GPT-3, Llama: 0.95).
      eps: added to the root of the second moment.
      nesterov: looks one step ahead (Dozat 2016, NAdam).
      mu_dtype: of the first moment; None: as the parameters.
    """


@dataclass(frozen=True)
class Adafactor(Optimizer):
    """Adafactor (Shazeer and Stern 2018, algorithms 4 and 5): a second moment of rows and columns.

    The update is a share of the weights' size, so that learning_rate is relative, too (the paper: at most
    1e-2). Weight decay is multiplied by the learning rate, unlike in optax's alias.
    """

    decay_rate: float = 0.8
    """The second moment keeps 1 - step^-decay_rate of itself a step."""
    min_dim_size_to_factor: int = 128
    """Parameters with fewer than two axes of this length keep a full second moment."""
    clipping_threshold: float | None = 1.0
    """The largest root mean square of a parameter's update; None: no limit."""
    multiply_by_parameter_scale: bool = True
    """Makes the update a share of the root mean square of the weights."""
    momentum: float | None = None
    """How much of the average of updates is kept a step; None: no average, and no memory for it."""
    mu_dtype: MomentDtype = "float32"
    """Of that average."""

    def direction(self) -> optax.GradientTransformation:
        """The gradient over the root of its factored second moment."""
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

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        yield from super().problems()
        if self.momentum is not None:
            yield from rate_problems(self, "momentum")
        if self.clipping_threshold is not None and self.clipping_threshold < 1:
            yield f"clipping_threshold={self.clipping_threshold}: give 1 or more, or None for no limit"


@dataclass(frozen=True)
class Lion(Optimizer):
    """Lion (Chen et al. 2023, algorithm 2): the sign of a momentum.

    Wants a learning_rate 3 to 10 times smaller than AdamW's, and a weight_decay that much larger (section 5).
    """

    b1: float = 0.9
    """The momentum's share in the direction."""
    b2: float = 0.99
    """How much of the momentum is kept a step."""
    mu_dtype: MomentDtype | None = None
    """Of the momentum; None: as the parameters."""

    def direction(self) -> optax.GradientTransformation:
        """The sign."""
        return optax.scale_by_lion(self.b1, self.b2, mu_dtype=self.mu_dtype)

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        yield from super().problems()
        yield from rate_problems(self, "b1", "b2")


@dataclass(frozen=True)
class LAMB(Optimizer):
    """LAMB (You et al. 2020, algorithm 2): Adam's direction with decay, made as long as the weights.

    Lengths are taken parameter by parameter and, in a stack, layer by layer.
    """

    b1: float = 0.9
    """How much of the gradients' average is kept a step."""
    b2: float = 0.999
    """How much of the squared gradients' average is kept a step."""
    eps: float = 1e-6
    """Added to the root of the second moment."""
    mu_dtype: MomentDtype | None = None
    """Of the first moment; None: as the parameters."""

    def direction(self) -> optax.GradientTransformation:
        """Adam's direction and the decay, scaled to the norm of the weights."""
        adam = optax.scale_by_adam(self.b1, self.b2, self.eps, mu_dtype=self.mu_dtype)
        return optax.chain(adam, super().decay(), by_layer(lambda path, rank: optax.scale_by_trust_ratio()))

    def decay(self) -> optax.GradientTransformation:
        """Nothing more: the direction has it."""
        return optax.identity()

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        yield from super().problems()
        yield from rate_problems(self, "b1", "b2")


@dataclass(frozen=True)
class Muon(Optimizer):
    """Muon (Jordan 2024, KellerJordan/Muon): the momentum of a matrix, orthogonalised; Adam for the rest.

    Attention kernels are matrices [D, H Dh] and [H Dh, D], convolutions [h w C, D]; a stack of layers is
    orthogonalised layer by layer. With `consistent_rms` both parts move about as far as under AdamW, so that
    its learning_rate and weight_decay fit (Liu et al. 2025, Moonlight, section 2.2).
    """

    momentum: float = 0.95
    """How much of the gradients' average is kept a step."""
    nesterov: bool = True
    """Looks one step ahead."""
    ns_steps: int = 5
    """Newton-Schulz iterations."""
    consistent_rms: float | None = 0.2
    """The root mean square of a matrix's update; None: its singular values are about sqrt(max(1, out / in)),
    as in KellerJordan/Muon."""
    adam: tuple[str, ...] = (*EMBEDDINGS, "head")
    """Patterns of parameters that Adam takes, besides all that are no kernels."""
    adam_b1: float = 0.9
    """How much of the gradients' average is kept a step by Adam."""
    adam_b2: float = 0.95
    """How much of the squared gradients' average is kept a step by Adam."""
    eps: float = 1e-8
    """Added to Adam's root of the second moment, and to the norm of the matrix."""
    mu_dtype: MomentDtype | None = None
    """Of the momentum and of Adam's first moment; None: as the parameters."""

    def direction(self) -> optax.GradientTransformation:
        """Orthogonal matrices, and Adam's direction."""
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
        """Orthogonal matrices in the size that the config asks for."""

        def scaled(update: jax.Array, numbers: contrib.MuonDimensionNumbers) -> jax.Array:
            fan_in = math.prod(update.shape[a] for a in numbers.reduction_axis)
            fan_out = math.prod(update.shape[a] for a in numbers.output_axis)
            if self.consistent_rms is None:
                return update * max(1.0, fan_out / fan_in) ** 0.5
            return update * self.consistent_rms * max(fan_in, fan_out) ** 0.5

        return jax.tree.map(scaled, updates, self.dimension_numbers(updates))

    def dimension_numbers(self, params: Tree) -> Tree:
        """A tree with the axes of each matrix; None for what Adam takes."""

        def numbers(key_path: Any, leaf: Any) -> contrib.MuonDimensionNumbers | None:
            path = path_of(key_path)
            stacked = STACK.search(path) is not None
            axes = kernel_axes(path, leaf.ndim - stacked)
            if axes is None or any(matches(pattern, path) for pattern in self.adam):
                return None
            return contrib.MuonDimensionNumbers(*(tuple(a + stacked for a in group) for group in axes))

        return jax.tree_util.tree_map_with_path(numbers, params)

    def labels(self, params: Tree) -> Tree:
        """A tree of "muon" and "adam"."""
        return jax.tree.map(
            lambda numbers: "adam" if numbers is None else "muon",
            self.dimension_numbers(params),
            is_leaf=lambda x: x is None or isinstance(x, contrib.MuonDimensionNumbers),
        )

    def patterns(self) -> dict[str, tuple[str, ...]]:
        """Field -> the patterns in it."""
        return {**super().patterns(), "adam": self.adam}

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        yield from super().problems()
        yield from rate_problems(self, "momentum", "adam_b1", "adam_b2")
        if self.ns_steps < 1:
            yield f"ns_steps={self.ns_steps}: nothing would be orthogonalised; give 1 or more (5 is usual)"
        if self.consistent_rms is not None and self.consistent_rms <= 0:
            yield f"consistent_rms={self.consistent_rms}: give a number above 0 (0.2 is AdamW's), or None"


@dataclass(frozen=True)
class ScheduleFree(Optimizer):
    """Schedule-Free (Defazio et al. 2024, algorithm 1): averaging in the place of a falling learning rate.

    Gradients are taken at y = b1 x + (1 - b1) z, where z moves by the base optimizer and x is the average of
    all z, weighted by the squared learning rate. Training holds y; evaluation uses x (`eval_params`). Made
    for schedule.name="constant" with a warm-up.
    """

    averages: ClassVar[bool] = True

    base: Literal["adam", "sgd"] = "adam"
    """Adam (without its momentum) or sgd."""
    b1: float = 0.9
    """The average's share in the point where gradients are taken."""
    b2: float = 0.999
    """How much of adam's average of squared gradients is kept a step."""
    eps: float = 1e-8
    """Added to the root of adam's second moment."""

    def direction(self) -> optax.GradientTransformation:
        """The gradient over the root of its second moment."""
        if self.base == "sgd":
            return optax.identity()
        return optax.scale_by_rms(self.b2, self.eps, eps_in_sqrt=False, bias_correction=True)

    def transformation(
        self, schedule: optax.Schedule, multiply: optax.GradientTransformation
    ) -> optax.GradientTransformation:
        """The base optimizer's step of z, and what it means for y."""
        return contrib.schedule_free(super().transformation(schedule, multiply), schedule, self.b1)

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        yield from super().problems()
        yield from rate_problems(self, "b1", "b2")
        if self.b1 == 0:
            yield "b1=0: gradients would ignore the average; give a number above 0 (0.9 is usual)"


def eval_params(opt_state: Tree, params: Tree) -> Tree:
    """The averaged parameters x of a ScheduleFree optimizer; frozen ones are as they are.

    Args:
      opt_state: the state of `make_optimizer`'s transformation.
      params: the parameters y that are trained.
    """
    state = optax.tree.get(opt_state, "ScheduleFreeState")
    return jax.tree.map(
        lambda y, z: y if isinstance(z, optax.MaskedNode) else (y - (1 - state.b1) * z) / state.b1,
        params,
        state.z,
        is_leaf=lambda x: isinstance(x, optax.MaskedNode),
    )


@dataclass(frozen=True)
class Prodigy(Optimizer):
    """Prodigy (Mishchenko and Defazio 2024, algorithm 4): Adam that estimates its own learning rate."""

    learning_rate: float = 1.0
    """What its estimate is multiplied by; 1 is meant."""
    b1: float = 0.9
    """How much of the gradients' average is kept a step."""
    b2: float = 0.999
    """How much of the squared gradients' average is kept a step."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    estimate: float = 1e-6
    """The first estimate of the learning rate, too small on purpose."""
    estimate_coefficient: float = 1.0
    """Multiplies the estimate; the place to tune."""
    safeguard_warmup: bool = False
    """Leaves the warm-up out of the estimate."""

    def transformation(
        self, schedule: optax.Schedule, multiply: optax.GradientTransformation
    ) -> optax.GradientTransformation:
        """optax's Prodigy, whose decay knows the mask."""

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
            rate = (
                state.estim_lr * schedule(state.count) * jnp.sqrt(1 - self.b2**count) / (1 - self.b1**count)
            )
            mask = decay_mask(self, params)
            updates, state = prodigy.update(updates, state, params, **extra)
            decayed = jax.tree.map(
                lambda u, w, m: u - rate * self.weight_decay * w if m else u, updates, params, mask
            )
            return decayed, state

        return optax.chain(optax.GradientTransformationExtraArgs(init, update), multiply)

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        yield from super().problems()
        yield from rate_problems(self, "b1", "b2")
        if self.estimate <= 0:
            yield f"estimate={self.estimate}: it could not grow; give a small number above 0, as in 1e-6"


@dataclass(frozen=True)
class Sophia(Optimizer):
    """Sophia-H (Liu et al. 2024, algorithm 3): momentum over the Hessian's diagonal, clipped.

    Every `update_interval` steps it takes a Hessian-vector product of the whole batch's loss: about twice a
    gradient's work, and its memory without microbatches.
    """

    needs_whole_batch: ClassVar[bool] = True

    b1: float = 0.965
    """How much of the gradients' average is kept a step."""
    b2: float = 0.99
    """How much of the average of the Hessian's diagonal is kept at each estimate."""
    eps: float = 1e-8
    """The least that the momentum is divided by."""
    gamma: float = 0.01
    """Multiplies the Hessian's diagonal; larger ones clip more rarely."""
    clip_threshold: float = 1.0
    """The largest absolute value of the direction's entries."""
    update_interval: int = 10
    """Steps between two estimates."""
    mu_dtype: MomentDtype | None = None
    """Of the momentum; None: as the parameters."""

    def direction(self) -> optax.GradientTransformation:
        """Momentum over curvature, clipped."""
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

    def problems(self) -> Iterator[str]:
        """Yields a line for every field whose value cannot be."""
        yield from super().problems()
        yield from rate_problems(self, "b1", "b2")
        for key in ("gamma", "clip_threshold", "update_interval"):
            if getattr(self, key) <= 0:
                yield f"{key}={getattr(self, key)}: nothing would be learnt; give a number above 0"
