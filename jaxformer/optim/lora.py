"""Kernels that move by a product of two thin matrices: LoRA (Hu et al. 2021) and DoRA (Liu et al. 2024).

No layer knows of them: they are functions of the tree of parameters. Beside "query/kernel" stand
"query/kernel_lora_a" and "query/kernel_lora_b"; the model is applied with W + alpha / rank * A B, and gradients are
taken with respect to A and B alone. So W + A B is made once a step for each kernel: one product of [in, r] and
[r, out], and one more copy of the adapted kernels in memory. What is saved is the gradients and the optimizer's state
of all that is frozen.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any
from zlib import crc32

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxformer.config.fields import PositiveFloat, PositiveInt, not_empty
from jaxformer.optim.adapters import Adapter
from jaxformer.optim.base import Pattern
from jaxformer.optim.build import nearest
from jaxformer.paths import STACK, kernel_axes, layers_taken

Tree = Any
A, B, MAGNITUDE = "_lora_a", "_lora_b", "_lora_magnitude"
ADDED = "[^/]*_lora_(a|b|magnitude)"  # the pattern of what stands beside the kernels


@dataclass(frozen=True)
class Matrix:
    """A kernel as matrices: one, or one for each layer of a stack or each expert."""

    lead: tuple[int, ...]
    """How many layers and experts there are."""
    rows: int
    """What is summed over: the entries of an input."""
    columns: int
    """The entries of an output."""


@dataclass(frozen=True)
class LoRA(Adapter):
    """Kernels stay, and a product of two thin matrices is added to each.

    All other parameters are frozen, but for the model's heads; `optimizer.train_only` names others to train.
    """

    own = (ADDED,)

    kernels: Annotated[tuple[Pattern, ...], not_empty("at least one pattern")] = ("attention/(query|value)",)
    """Patterns of paths; the kernels that they take are adapted."""
    rank: PositiveInt = 8
    """Columns of A and rows of B."""
    alpha: PositiveFloat = 16.0
    """A B is multiplied by alpha / rank."""

    def matrices(self, params: Tree) -> dict[str, Matrix]:
        """Path -> how it is adapted, of every kernel that is.

        Args:
          params: a tree of arrays or ShapeDtypeStructs.
        """
        leaves = flatten_dict(params, sep="/")
        found = {
            path: matrix(path, leaf.shape) for path, leaf in leaves.items() if self.takes(path, leaf.shape)
        }
        return {path: shape for path, shape in found.items() if shape is not None}

    def takes(self, path: str, shape: tuple[int, ...]) -> bool:
        """Whether a pattern takes all layers of a parameter."""
        return all(layers_taken(self.kernels, path, shape))

    def problems_with(self, params: Tree) -> Iterator[str]:
        shapes = {path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()}
        kernels = {path: shape for path, shape in shapes.items() if matrix(path, shape)}
        for pattern in self.kernels:
            taken = {path: layers_taken((pattern,), path, shape) for path, shape in kernels.items()}
            partly = [path for path, layers in taken.items() if any(layers) and not all(layers)]
            if not any(map(any, taken.values())):
                yield f"kernels: {pattern!r} takes no kernel; {nearest(pattern, kernels)}"
            elif partly and not self.takes(partly[0], kernels[partly[0]]):
                stack = f"takes some layers of the stack {partly[0]} and leaves others"
                yield f"kernels: {stack}; take all of them, or set model.scan=False"
        small = [(min(m.rows, m.columns), path) for path, m in self.matrices(params).items()]
        if small and min(small)[0] < self.rank:
            size, path = min(small)
            yield f"rank={self.rank}: {path} has no more than {size} rows or columns; use a smaller rank"

    def added(self, params: Tree, key: jax.Array) -> Tree:
        """The parameters with A and B beside the kernels: A uniform in +-1 / sqrt(in) as in peft, B zero."""
        leaves = dict(flatten_dict(params, sep="/"))
        for path, size in self.matrices(params).items():
            of_path, dtype = jax.random.fold_in(key, crc32(path.encode())), leaves[path].dtype
            bound, shape = size.rows**-0.5, (*size.lead, size.rows, self.rank)
            leaves[path + A] = jax.random.uniform(of_path, shape, dtype, -bound, bound)
            leaves[path + B] = jnp.zeros((*size.lead, self.rank, size.columns), dtype)
            leaves |= self.further(path, as_matrices(leaves[path], size))
        return unflatten_dict(leaves, sep="/")

    def further(self, path: str, matrices: jax.Array) -> dict[str, jax.Array]:
        """What stands beside a kernel besides A and B, given the kernel as matrices."""
        return {}

    def scaled(self, moved: jax.Array, magnitude: jax.Array | None) -> jax.Array:
        """The kernel, from the kernel and A B."""
        return moved

    def merged(self, params: Tree) -> Tree:
        """The parameters that the model is applied with: its own, and the adapted kernels as they have become."""
        leaves = dict(flatten_dict(params, sep="/"))
        for path, size in self.matrices(params).items():
            kernel = leaves[path]
            change = self.alpha / self.rank * leaves.pop(path + A) @ leaves.pop(path + B)
            moved = as_matrices(kernel, size) + change.astype(kernel.dtype)
            moved = self.scaled(moved, leaves.pop(path + MAGNITUDE, None))
            leaves[path] = moved.reshape(kernel.shape)
        return unflatten_dict(leaves, sep="/")


@dataclass(frozen=True)
class DoRA(LoRA):
    """The length of each column of a kernel is learnt by itself, and LoRA turns the columns (equation 5), without a
    gradient through the norm that they are divided by (section 4.3)."""

    def further(self, path: str, matrices: jax.Array) -> dict[str, jax.Array]:
        return {path + MAGNITUDE: lengths(matrices)}

    def scaled(self, moved: jax.Array, magnitude: jax.Array | None) -> jax.Array:
        assert magnitude is not None
        return moved * (magnitude / jax.lax.stop_gradient(lengths(moved)))[..., None, :]


def matrix(path: str, shape: tuple[int, ...]) -> Matrix | None:
    """A kernel as matrices; None for other parameters."""
    stacked = STACK.search(path) is not None
    axes = kernel_axes(path, len(shape) - stacked)
    if axes is None:
        return None
    sums, outputs = (tuple(axis + stacked for axis in group) for group in axes)
    rows, columns = (prod(shape[axis] for axis in group) for group in (sums, outputs))
    return Matrix(shape[: sums[0]], rows, columns)


def as_matrices(kernel: jax.Array, size: Matrix) -> jax.Array:
    """A kernel as [..., rows, columns]."""
    return kernel.reshape(*size.lead, size.rows, size.columns)


def lengths(matrices: jax.Array) -> jax.Array:
    """The norm of each column, [..., columns]."""
    return jnp.linalg.norm(matrices, axis=-2)


def beside_kernels(params: Tree) -> Tree:
    """What stands beside kernels alone; {} of a model without an adapter."""
    leaves = flatten_dict(params, sep="/")
    return unflatten_dict(
        {path: leaf for path, leaf in leaves.items() if path.endswith((A, B, MAGNITUDE))}, sep="/"
    )


def of_model(params: Tree) -> Tree:
    """A tree of parameters without what stands beside kernels."""
    leaves = flatten_dict(params, sep="/")
    return unflatten_dict(
        {path: leaf for path, leaf in leaves.items() if not path.endswith((A, B, MAGNITUDE))}, sep="/"
    )
