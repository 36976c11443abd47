"""Parameters by path: names, patterns, layers, and the axes of a kernel.

A leaf's path is "encoder/block_3/attention/query/kernel". A pattern is a regular expression for one or more
whole names of a path, anywhere in it: "head" takes head/kernel and head/bias, "encoder/block_[01]" all of the
first two blocks (and not of block_10), "bias" every bias.

Layers that are scanned over are one leaf, "encoder/blocks/attention/query/kernel", with a leading layer
axis. A pattern sees each layer of it under the name that it has unrolled, too: rules mean the same in both
layouts.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

Tree = Any
STACK = re.compile(r"(^|/)blocks/")
BLOCK = re.compile(r"(?<![^/])(stage_\d+[_/])?block_\d+(?=/)")

ADAPTERS = "adapter_[^/]*|prefix_(key|value)|prompt_tokens"  # what adapters put into a model: no published one has it


def path_of(key_path: Sequence[Any]) -> str:
    """A key path of jax.tree_util as "encoder/block_3/attention/query/kernel"."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in key_path)


def leaves_by_path(tree: Tree) -> dict[str, Any]:
    """Path -> leaf."""
    return {path_of(key_path): leaf for key_path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def with_leaves(tree: Tree, leaves: Mapping[str, Any]) -> Tree:
    """The tree with other leaves at some paths."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaves.get(path_of(path), leaf), tree)


def matches(pattern: str, path: str) -> bool:
    """Whether `pattern` is one or more whole names of `path`."""
    return re.search(f"(^|/)({pattern})(/|$)", path) is not None


def layer_paths(path: str, shape: tuple[int, ...]) -> list[str]:
    """The path of each layer as it is unrolled; the path itself where the leaf is no stack of layers."""
    if not STACK.search(path):
        return [path]
    return [STACK.sub(rf"\g<1>block_{i}/", path) for i in range(shape[0])]


def layers_taken(patterns: Iterable[str], path: str, shape: tuple[int, ...]) -> list[bool]:
    """For each layer of a leaf (one, if it is no stack), whether one of the patterns takes it."""
    return [
        any(matches(pattern, name) or matches(pattern, path) for pattern in patterns)
        for name in layer_paths(path, shape)
    ]


def kernel_axes(path: str, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The axes of a kernel that are summed over and those of its outputs; None for other parameters.

    Args:
      path: of one layer's kernel (without the layer axis).
      rank: its number of axes.

    Returns:
      attention/{query,key,value} [D, H, Dh]: ((0,), (1, 2)); experts [E, D, F], a kernel each: ((1,), (2,));
      attention/out [H, Dh, D], dense [F, D] and convolutions [h, w, C, D]: all but the last, and the last.
    """
    if not path.endswith("kernel") or rank < 2:
        return None
    if rank == 3 and re.search(r"(^|/)(query|key|value)/kernel$", path):
        return (0,), (1, 2)
    if matches("experts", path):
        return (1,), (2,)
    return tuple(range(rank - 1)), (rank - 1,)
