"""Rows of the tables of names: a layer of ours, what it is called elsewhere, and how its axes lie there."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal, TypeAlias

import numpy as np

from jaxformer.paths import kernel_axes

Axes: TypeAlias = list[tuple[int, ...]]  # for each axis of theirs, our axes that it is made of, in order
PLACEHOLDER = re.compile(r"\{([a-z])([+-]\d+)?\}")  # of a number in a name: a letter, and what is added to it

LEAVES = {  # our names of a layer's parameters: their names, where the two differ
    **dict.fromkeys(("kernel", "scale", "embedding"), "weight"),
    "mean": "running_mean",
    "var": "running_var",
}

# How a project writes the parameters of a layer down. PyTorch's kernels are [out, in, height, width], with the heads of
# attention merged; transformers' Conv1D is the same with kernels [in, out]; Flax's parameters are as ours; a "table"
# is an embedding [N, D], where ours is a parameter [1, N, D]; a "vector" has all axes of ours in one; "1x1" is
# PyTorch's where what is a convolution in one of the two is a dense layer in the other.
Style: TypeAlias = Literal["pytorch", "conv1d", "flax", "table", "vector", "1x1"]


@dataclass(frozen=True)
class Part:
    """One of the equal parts that a tensor of theirs falls into."""

    index: int
    """Which part it is."""
    count: int
    """How many parts there are."""
    axis: int = 0
    """The axis of theirs along which the parts lie."""
    by_head: bool = False
    """Whether each head has its own parts, one after the other; else each part has all heads."""

    def of(self, tensor: np.ndarray, heads: int) -> np.ndarray:
        """This part of a tensor."""
        part = self.place(tensor, heads)
        axis = self.axis % tensor.ndim
        return part.reshape(*tensor.shape[:axis], -1, *tensor.shape[axis + 1 :])

    def place(self, tensor: np.ndarray, heads: int) -> np.ndarray:
        """Where this part lies in a tensor, as a view [..., groups, length of a group's part, ...]."""
        axis, groups = self.axis % tensor.ndim, heads if self.by_head else 1
        before, after = tensor.shape[:axis], tensor.shape[axis + 1 :]
        parts = tensor.reshape(*before, groups, self.count, -1, *after)
        return parts[(slice(None),) * (axis + 1) + (self.index,)]


@dataclass(frozen=True)
class Row:
    """A layer or a parameter of ours and what it is called there.

    Of several rows for the same parameter the first counts whose tensor is in the checkpoint.
    """

    ours: str
    """The path of a layer, such as "encoder/block_{i}/norm_1", or of a parameter, such as "class_token"."""
    theirs: str
    """Its name in their checkpoint."""
    part: Part | None = None
    """The part of the tensor that it is; None: all of it."""
    style: Style = "pytorch"
    """How its parameters are named and laid out."""

    def axes(self, rank: int, their_rank: int) -> Axes:
        """The axes of their tensor of `their_rank` axes, for a parameter of ours that has `rank`."""
        kernel = kernel_axes(self.ours, rank)
        each: Axes = [(axis,) for axis in range(rank)]
        if self.style == "table":
            return [(0, 1), (2,)]
        if self.style == "vector":
            return [tuple(range(rank))]
        if self.style == "flax":
            each[:0] = [()] * (their_rank - rank)  # [1, 1, 1, C] is [C]
            return each
        if kernel is None:
            return [tuple(range(rank))] if self.ours.endswith("/bias") else each
        axes: Axes = [(3,), (2,), (0,), (1,)]
        if rank < 4:
            axes = list(kernel if self.style == "conv1d" else kernel[::-1])
            axes += [()] * (their_rank - len(axes))  # [F, D, 1, 1] is [D, F]
        return [*axes[: their_rank - 1], tuple(chain(*axes[their_rank - 1 :]))]  # [F, D] is [1, 1, D, F]

    def written_rank(self, rank: int) -> int:
        """How many axes a tensor has that is written for a parameter of ours of `rank` axes."""
        kernel = kernel_axes(self.ours, rank)
        if self.style in ("table", "vector"):
            return 2 if self.style == "table" else 1
        if self.style == "1x1" and rank in (2, 4):
            return 6 - rank
        if self.style == "flax" or rank == 4:
            return rank
        return len(kernel) if kernel else 1 if self.ours.endswith("/bias") else rank

    def their_shape(self, shape: tuple[int, ...], their_rank: int) -> tuple[int, ...]:
        """The shape of their tensor for a parameter of ours of `shape`."""
        theirs = [math.prod(shape[axis] for axis in group) for group in self.axes(len(shape), their_rank)]
        if self.part is not None:
            theirs[self.part.axis] *= self.part.count
        return tuple(theirs)

    def our_shape(self, theirs: tuple[int, ...], like: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape of our parameter in their tensor, where no two axes of ours are one of theirs; else None.

        Args:
          theirs: the tensor's shape.
          like: a shape of ours of the same rank.
        """
        axes = self.axes(len(like), len(theirs))
        if self.part is not None or len(axes) != len(theirs):
            return None
        found = list(like)
        for group, size in zip(axes, theirs):
            if len(group) > 1 and self.style != "table":
                return None
            if group:
                found[group[-1]] = size
        if self.style == "table":
            found = [1, theirs[0], theirs[1]]
        return tuple(found)

    def to_ours(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Their tensor as our parameter of `shape`: its axes are split, then put in our order."""
        if self.part is not None:
            tensor = self.part.of(tensor, heads=shape[-2] if len(shape) > 1 else 1)
        order = list(chain(*self.axes(len(shape), tensor.ndim)))
        return tensor.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))

    def to_theirs(self, parameter: np.ndarray, written: dict[str, np.ndarray]) -> None:
        """Puts our parameter into their tensor: a new one in `written`, or the part of one that is its own."""
        shape, rank = parameter.shape, self.written_rank(parameter.ndim)
        order = list(chain(*self.axes(len(shape), rank)))
        whole = self.their_shape(shape, rank)
        if self.part is None:
            written[self.theirs] = np.ascontiguousarray(parameter.transpose(order)).reshape(whole)
            return
        tensor = written.setdefault(self.theirs, np.zeros(whole, parameter.dtype))
        place = self.part.place(tensor, heads=shape[-2] if len(shape) > 1 else 1)
        place[...] = parameter.transpose(order).reshape(place.shape)


Rows: TypeAlias = tuple[Row, ...]


def rows(names: Mapping[str, str], ours: str = "", theirs: str = "", style: Style = "pytorch") -> Rows:
    """Rows from our names -> theirs, below a path of ours and a name of theirs."""
    return tuple(Row(ours + mine, theirs + other, style=style) for mine, other in names.items())


def fused(ours: str, theirs: str, axis: int = 0, by_head: bool = False, style: Style = "pytorch") -> Rows:
    """The rows of queries, keys and values that are one layer there."""
    names = ("query", "key", "value")
    return tuple(Row(ours + name, theirs, Part(i, 3, axis, by_head), style) for i, name in enumerate(names))


def below(ours: str, theirs: str, *tables: Row | Sequence[Row]) -> Rows:
    """The rows of a part of a model, such as its blocks."""
    return tuple(replace(row, ours=ours + row.ours, theirs=theirs + row.theirs) for row in joined(tables))


def joined(tables: Iterable[Row | Sequence[Row]]) -> Iterator[Row]:
    """All rows of rows and tables."""
    for table in tables:
        yield from (table,) if isinstance(table, Row) else table


def rows_of(table: Sequence[Row], path: str) -> Iterator[Row]:
    """The rows for the path of a parameter, with its own names in them and the numbers filled in."""
    layer, _, leaf = path.rpartition("/")
    for row in table:
        own = f"/{leaf}" if row.style == "flax" else f".{LEAVES.get(leaf, leaf)}"
        for name, ending in ((path, ""), (layer, own)):
            if (numbers := numbers_in(row.ours, name)) is not None:
                yield replace(row, ours=path, theirs=with_numbers(row.theirs, numbers) + ending)


def cut(table: Iterable[Row], prefix: str) -> list[Row]:
    """Rows whose names in the checkpoint do not begin with a prefix."""
    return [replace(row, theirs=row.theirs.removeprefix(prefix)) for row in table]


def numbers_in(pattern: str, name: str) -> dict[str, int] | None:
    """What the placeholders of `pattern` stand for in `name`, by their letters; None if it is another name."""
    if "{" not in pattern:
        return {} if pattern == name else None
    parts = PLACEHOLDER.split(pattern)  # text, letter, what is added to it, text, ...
    letters, offsets = parts[1::3], parts[2::3]
    found = re.fullmatch(r"(\d+)".join(map(re.escape, parts[::3])), name)
    if found is None:
        return None
    return {x: int(n) - int(offset or 0) for x, offset, n in zip(letters, offsets, found.groups())}


def with_numbers(pattern: str, numbers: Mapping[str, int]) -> str:
    """`pattern` with numbers for its placeholders."""
    return PLACEHOLDER.sub(lambda found: str(numbers[found[1]] + int(found[2] or 0)), pattern)
