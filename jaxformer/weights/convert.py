"""From other projects' tensors to our parameters, name by name, as a table says.

A table has a `Row` for each parameter; in a row's names "{i}" stands for the number of a layer, "{j}" for another one
(of a block in stage {i}), and "{j+1}" for that where they count from 1 and we from 0. A `Family` has the
table and what else is in checkpoints of that kind. Tensors come as a mapping. It is extended later to import and
export real checkpoints, by the same rows: a change of shape says where each axis goes and a part which share of a
tensor it is, so they can be followed both ways.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from jaxformer.errors import UserError
from jaxformer.paths import leaves_by_path

Axes = tuple[tuple[int, ...], ...]
PLACEHOLDER = re.compile(r"\{([a-z])([+-]\d+)?\}")  # of a number in a name: a letter, and what is added to it

# change: for each axis of theirs, our axes that it is made of, in order. PyTorch's Linear has weight [out, in] and
# its Conv2d [out, in, h, w]; our kernels have what goes in first, and so has transformers' Conv1D.
CHANGES: dict[str, Axes | None] = {
    "same": None,
    "linear": ((1,), (0,)),  # [F, D] of theirs is [D, F] of ours
    "conv": ((3,), (2,), (0,), (1,)),  # [D, C, h, w] is [h, w, C, D]
    "heads_in": ((1, 2), (0,)),  # [H Dh, D] is [D, H, Dh]
    "heads_out": ((2,), (0, 1)),  # [D, H Dh] is [H, Dh, D]
    "heads_bias": ((0, 1),),  # [H Dh] is [H, Dh]
    "conv_linear": ((1,), (0,), (), ()),  # [F, D, 1, 1] is [D, F]
    "linear_conv": ((3,), (0, 1, 2)),  # [F, D] is [1, 1, D, F]
    "conv_heads_in": ((1, 2), (0,), (), ()),  # [H Dh, D, 1, 1] is [D, H, Dh]
    "conv1d": ((3,), (2,), (0, 1)),  # [D, C, n] is [n, 1, C, D]
    "conv_heads_out": ((2,), (0, 1), (), ()),  # [D, H Dh, 1, 1] is [H, Dh, D]
    "channels": ((), (), (), (0,)),  # [1, 1, 1, C] is [C]
    "conv1d_heads_in": ((0,), (1, 2)),  # [D, H Dh] is [D, H, Dh]
    "conv1d_heads_out": ((0, 1), (2,)),  # [H Dh, D] is [H, Dh, D]
}


@dataclass(frozen=True)
class Part:
    """One of the equal parts that a tensor of theirs falls into."""

    index: int
    """which."""
    count: int
    """How many there are."""
    axis: int
    """Along which axis of theirs."""

    def of(self, tensor: np.ndarray) -> np.ndarray:
        """This part of a tensor."""
        return np.split(tensor, self.count, self.axis)[self.index]

    def whole(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The tensor's shape, from this part's."""
        axis = self.axis % len(shape)
        return (*shape[:axis], shape[axis] * self.count, *shape[axis + 1 :])


@dataclass(frozen=True)
class Row:
    """One parameter of ours and the tensor of theirs that it is.

    Of several rows with the same `ours` the first counts whose tensor is in the checkpoint.
    """

    ours: str
    """Its path in the unrolled layout, such as "encoder/block_{i}/norm_1/scale"."""
    theirs: str
    """Its name in their checkpoint."""
    change: str = "same"
    """How the shape changes; a key of CHANGES."""
    part: Part | None = None
    """The part of the tensor that it is; None: all of it."""

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of their tensor for a parameter of ours of `shape`."""
        changed = their_shape(self.change, shape)
        return changed if self.part is None else self.part.whole(changed)

    def to_ours(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Their tensor as our parameter of `shape`."""
        return to_ours(self.change, tensor if self.part is None else self.part.of(tensor), shape)


@dataclass(frozen=True)
class Extra:
    """A tensor in their checkpoints that may be there beside those of our parameters."""

    theirs: str
    """Its name."""
    equals: str | None = None
    """The name of the tensor that it has to equal, where a model ties the two; None: it is left unread,
    whatever it holds."""


@dataclass(frozen=True)
class Family:
    """How checkpoints of a family of models are read."""

    rows: tuple[Row, ...]
    """The table."""
    extras: tuple[Extra, ...] = ()
    """What else may be in them."""
    prefix: str = ""
    """What names begin with, except in checkpoints of the model without its head ("bert.")."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Ends of names as older versions wrote them, and as they are in the table."""

    def read(self, source: Mapping[str, np.ndarray], params_shapes: Any) -> dict[str, Any]:
        """Our parameters; see `from_table`."""
        for old, new in self.renamed:
            source = {re.sub(f"{re.escape(old)}$", new, name): tensor for name, tensor in source.items()}
        rows, extras = self.rows, self.extras
        if not any(name.startswith(self.prefix) for name in source):
            rows = tuple(replace(row, theirs=row.theirs.removeprefix(self.prefix)) for row in rows)
            extras = tuple(
                Extra(e.theirs.removeprefix(self.prefix), e.equals and e.equals.removeprefix(self.prefix))
                for e in extras
            )
        return from_table(rows, source, params_shapes, extras)


def from_table(
    table: Sequence[Row],
    source: Mapping[str, np.ndarray],
    params_shapes: Any,
    extras: Sequence[Extra] = (),
) -> dict[str, Any]:
    """Our parameters, from their tensors.

    Args:
      table: the rows of this family of models.
      source: their name -> tensor.
      params_shapes: our tree, unrolled, with a shape and a dtype at every leaf (of `jax.eval_shape`).
      extras: what may be in `source` without being a parameter of ours.

    Returns:
      A nested dict of NumPy arrays, with the shapes and dtypes of `params_shapes`.

    Raises:
      UserError: parameters of ours that no tensor fills, tensors that no parameter takes, tensors of the wrong
        shape, and tensors that differ from what they are tied to: a line for each.
    """
    problems: list[str] = []
    params: dict[str, np.ndarray] = {}
    taken: set[str] = set()
    for path, leaf in leaves_by_path(params_shapes).items():
        rows = list(rows_of(table, path))
        if not rows:
            problems.append(f"{path}: the table has no tensor for this parameter; use a model without it")
            continue
        row = next((row for row in rows if row.theirs in source), rows[0])
        if row.theirs not in source:
            problems.append(f"{path}: {row.theirs} is missing in the checkpoint")
            continue
        taken.add(row.theirs)
        tensor, expected = source[row.theirs], row.their_shape(leaf.shape)
        if tuple(tensor.shape) != expected:
            problems.append(
                f"{path}: {row.theirs} has shape {tuple(tensor.shape)}; this model needs {expected}"
            )
            continue
        params[path] = row.to_ours(np.asarray(tensor), leaf.shape).astype(leaf.dtype)
    for name in source:
        if name not in taken and (problem := left_over(name, extras, source)):
            problems.append(problem)
    if problems:
        raise UserError(*problems)
    return unflatten_dict(params, sep="/")


def left_over(name: str, extras: Sequence[Extra], source: Mapping[str, np.ndarray]) -> str | None:
    """What is wrong with a tensor that no parameter takes; None if an Extra says that it may be there."""
    for extra in extras:
        numbers = numbers_in(extra.theirs, name)
        if numbers is None:
            continue
        if extra.equals is None:
            return None
        other = with_numbers(extra.equals, numbers)
        if other in source and np.array_equal(source[name], source[other]):
            return None
        return f"{name}: differs from {other}, which it is tied to in this model"
    return f"{name}: in the checkpoint, but this model has no such parameter"


def rows_of(table: Sequence[Row], path: str) -> Iterator[Row]:
    """The rows for a path of ours, with the numbers of its layer filled in."""
    for row in table:
        numbers = numbers_in(row.ours, path)
        if numbers is not None:
            yield replace(row, ours=path, theirs=with_numbers(row.theirs, numbers))


def numbers_in(pattern: str, name: str) -> dict[str, int] | None:
    """What the placeholders of `pattern` stand for in `name`, by their letters; None if it is another name."""
    parts = PLACEHOLDER.split(pattern)  # text, letter, what is added to it, text, ...
    letters, offsets = parts[1::3], parts[2::3]
    found = re.fullmatch(r"(\d+)".join(map(re.escape, parts[::3])), name)
    if found is None:
        return None
    return {x: int(n) - int(offset or 0) for x, offset, n in zip(letters, offsets, found.groups())}


def with_numbers(pattern: str, numbers: Mapping[str, int]) -> str:
    """`pattern` with numbers for its placeholders."""
    return PLACEHOLDER.sub(lambda found: str(numbers[found[1]] + int(found[2] or 0)), pattern)


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
