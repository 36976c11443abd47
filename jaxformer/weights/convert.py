"""From other projects' tensors to our parameters, name by name, as a table says.

A table has a `Row` for each parameter; "{i}" in a row's names stands for the number of a layer. Tensors come as
a mapping. It is extended later to import and export real checkpoints, by the same rows: a change of shape says
where each axis goes, so it can be followed both ways.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from jaxformer.errors import UserError
from jaxformer.paths import leaves_by_path

Axes = tuple[tuple[int, ...], ...]

# change: for each axis of theirs, our axes that it is made of, in order. PyTorch's Linear has weight [out, in] and
# its Conv2d [out, in, h, w]; our kernels have what goes in first.
CHANGES: dict[str, Axes | None] = {
    "same": None,
    "linear": ((1,), (0,)),  # [F, D] of theirs is [D, F] of ours
    "conv": ((3,), (2,), (0,), (1,)),  # [D, C, h, w] is [h, w, C, D]
    "heads_in": ((1, 2), (0,)),  # [H Dh, D] is [D, H, Dh]
    "heads_out": ((2,), (0, 1)),  # [D, H Dh] is [H, Dh, D]
    "heads_bias": ((0, 1),),  # [H Dh] is [H, Dh]
}


@dataclass(frozen=True)
class Row:
    """One parameter of ours and the tensor of theirs that it is.

    Attributes:
      ours: its path in the unrolled layout, such as "encoder/block_{i}/norm_1/scale".
      theirs: its name in their checkpoint.
      change: how the shape changes; a key of CHANGES.
    """

    ours: str
    theirs: str
    change: str = "same"


def from_table(table: Sequence[Row], source: Mapping[str, np.ndarray], params_shapes: Any) -> dict[str, Any]:
    """Our parameters, from their tensors.

    Args:
      table: the rows of this family of models.
      source: their name -> tensor.
      params_shapes: our tree, unrolled, with a shape and a dtype at every leaf (of `jax.eval_shape`). For
        a scanned model convert with `weights.layouts`.

    Returns:
      A nested dict of NumPy arrays, with the shapes and dtypes of `params_shapes`.

    Raises:
      UserError: parameters of ours that no tensor fills, tensors that no parameter takes, and tensors of the
        wrong shape: a line for each.
    """
    problems: list[str] = []
    params: dict[str, np.ndarray] = {}
    taken: set[str] = set()
    for path, leaf in leaves_by_path(params_shapes).items():
        row = row_of(table, path)
        if row is None:
            problems.append(f"{path}: the table has no tensor for this parameter; use a model without it")
            continue
        if row.theirs not in source:
            problems.append(f"{path}: {row.theirs} is missing in the checkpoint")
            continue
        taken.add(row.theirs)
        tensor, expected = source[row.theirs], their_shape(row.change, leaf.shape)
        if tuple(tensor.shape) != expected:
            problems.append(
                f"{path}: {row.theirs} has shape {tuple(tensor.shape)}; this model needs {expected}"
            )
            continue
        params[path] = to_ours(row.change, np.asarray(tensor), leaf.shape).astype(leaf.dtype)
    problems += [
        f"{name}: in the checkpoint, but this model has no such parameter"
        for name in source
        if name not in taken
    ]
    if problems:
        raise UserError(*problems)
    return unflatten_dict(params, sep="/")


def row_of(table: Sequence[Row], path: str) -> Row | None:
    """The row for a path of ours, with the number of the layer filled in; None if there is none."""
    for row in table:
        pattern = re.escape(row.ours).replace(re.escape("{i}"), r"(\d+)")
        if found := re.fullmatch(pattern, path):
            theirs = row.theirs.replace("{i}", found[1]) if found.groups() else row.theirs
            return Row(path, theirs, row.change)
    return None


def axes_of(change: str, rank: int) -> Axes:
    """The entry of CHANGES, spelt out for arrays of `rank` axes."""
    axes = CHANGES[change]
    return tuple((axis,) for axis in range(rank)) if axes is None else axes


def their_shape(change: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of their tensor for a parameter of ours of `shape`."""
    return tuple(math.prod(shape[axis] for axis in group) for group in axes_of(change, len(shape)))


def to_ours(change: str, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Their tensor as our parameter of `shape`: its axes are split, then put in our order."""
    order = [axis for group in axes_of(change, len(shape)) for axis in group]
    split = tensor.reshape([shape[axis] for axis in order])
    return split.transpose(np.argsort(order))
