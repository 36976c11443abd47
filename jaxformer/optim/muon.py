"""Muon: orthogonalised momentum for matrices."""

import math
import operator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import jax
import optax
from optax import contrib

from jaxformer.config.fields import Rate, above, at_least
from jaxformer.optim.base import MomentDtype, Optimizer, Pattern
from jaxformer.optim.masks import EMBEDDINGS
from jaxformer.paths import STACK, kernel_axes, matches, path_of

Tree = Any


@dataclass(frozen=True)
class Muon(Optimizer):
    """Muon (Jordan 2024, KellerJordan/Muon): the momentum of a matrix, orthogonalised; Adam for the rest.

    Attention kernels are matrices [D, H Dh] and [H Dh, D], convolutions [h w C, D]; a stack of layers is
    orthogonalised layer by layer. With `consistent_rms` both parts move about as far as under AdamW, so that
    its learning_rate and weight_decay fit (Liu et al. 2025, Moonlight, section 2.2).
    """

    momentum: Rate = 0.95
    """The share of the gradients' average that is kept each step."""
    nesterov: bool = True
    """Looks one step ahead."""
    ns_steps: Annotated[int, at_least(1, "1 or more (5 is usual); with 0 nothing is orthogonalised")] = 5
    """Newton-Schulz iterations."""
    consistent_rms: Annotated[float, above(0, "a number above 0 (0.2 is AdamW's), or None")] | None = 0.2
    """The root mean square of a matrix's update; None: its singular values are about sqrt(max(1, out / in)),
    as in KellerJordan/Muon."""
    adam: tuple[Pattern, ...] = (*EMBEDDINGS, "head")
    """Patterns of parameters that Adam moves, besides all that are not kernels."""
    adam_b1: Rate = 0.9
    """The share of the gradients' average that Adam keeps each step."""
    adam_b2: Rate = 0.95
    """The share of the squared gradients' average that Adam keeps each step."""
    eps: float = 1e-8
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

    def dimension_numbers(self, params: Tree) -> Tree:
        """A tree with the axes of each matrix; None for what Adam moves."""

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

    def parts(self, params: Tree) -> dict[str, Tree]:
        labels = self.labels(params)
        words = {"muon": "by orthogonalised momentum", "adam": "by Adam"}
        return {rule: jax.tree.map(partial(operator.eq, label), labels) for label, rule in words.items()}

    def patterns(self) -> dict[str, tuple[str, ...]]:
        return {**super().patterns(), "adam": self.adam}
