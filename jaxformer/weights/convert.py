"""From other projects' tensors to our variables and back, layer by layer, as a table says.

A table has a `Row` for each layer, or for a parameter that has no layer. In a row's names "{i}" stands for the number
of a layer and "{j}" for another one (of a block in stage {i}); "{j+1}" is that number where they count from 1 and we
from 0. A `Family` has the table and what else is in checkpoints of that kind. How axes lie follows from the
project's `Style` and from what the parameter is (`paths.kernel_axes`). It is said as groups of axes, which reading
follows forwards and writing backwards.

Tensors are NumPy arrays, or what has a shape and a dtype and becomes one when it is asked for (`files.Stored`), so that
no more than one has to be in memory.
"""

import logging
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxformer.errors import UserError
from jaxformer.weights.resizing import Fit, fit
from jaxformer.weights.rows import Row, Rows, cut, joined, numbers_in, rows_of, with_numbers

logger = logging.getLogger("jaxformer")
Tensors: TypeAlias = Mapping[str, Any]
NO_ROW = "{}: the table has no tensor for this parameter; use a model without it"


@dataclass(frozen=True)
class Match:
    """A parameter of ours and the tensor that fills it."""

    row: Row
    """Where it lies in the tensor."""
    tensor: Any
    """The tensor; it is read by `array`."""
    leaf: Any
    """Shape and dtype of the parameter."""
    shape: tuple[int, ...]
    """Its shape in the source."""
    fit: Fit | None = None
    """What gives it another shape (`resizing.fit`)."""

    def array(self, copy: bool = True) -> np.ndarray:
        """The parameter; without a copy it may be a part of the mapped file, whose memory goes with it."""
        own = self.row.to_ours(np.asarray(self.tensor), self.shape)
        return (own if self.fit is None else self.fit(own)).astype(self.leaf.dtype, copy=copy)


def is_in(path: str, parts: Iterable[str]) -> bool:
    """Whether a path is that of one of these parts of a model, or of something in it."""
    return any(path == part or path.startswith(f"{part}/") for part in parts)


def unread(table: Iterable[Row], source: Iterable[str], new: Sequence[str]) -> set[str]:
    """The names of tensors that belong to these parts of ours."""
    rows = [row for row in table if is_in(row.ours, new)]
    ends = re.compile(r"[./][^./]*$")
    return {
        name
        for name in source
        for row in rows
        if any(numbers_in(row.theirs, each) is not None for each in (name, ends.sub("", name)))
    }


@dataclass(frozen=True)
class Family:
    """How checkpoints of a family of models are read."""

    rows: Rows
    """The table."""
    extras: Mapping[str, str | None] = field(default_factory=dict)
    """Tensors that may be there beside those of our parameters -> the tensor that each has to equal, where a model
    ties the two; None: it is left unread, whatever it holds."""
    prefix: str = ""
    """What names begin with, except in checkpoints of the model without its head ("bert.")."""
    antialias: bool = True
    """Whether tables of positions are resized with antialias; False where their model does it without."""
    prepare: Callable[[Tensors, Mapping], Tensors] = lambda source, shapes: source
    """Brings the tensors of other versions into the table's form, given our variables' shapes by path."""

    def read(self, source: Tensors, shapes: Mapping[str, Any]) -> dict[str, Any]:
        """Our variables, from their tensors.

        Args:
          source: their name -> tensor.
          shapes: our variables ("params", and "batch_stats" where there are any), unrolled, with a shape and a dtype
            at every leaf (of `jax.eval_shape`).

        Returns:
          Nested dicts of NumPy arrays, with the shapes and dtypes of `shapes`.

        Raises:
          UserError: parameters of ours that no tensor fills, tensors that no parameter takes, tensors of the wrong
            shape, and tensors that differ from what they are tied to: a line for each.
        """
        return unflatten_dict({key: match.array() for key, match in self.matched(source, shapes).items()})

    def matched(
        self, source: Tensors, shapes: Mapping[str, Any], new: Sequence[str] = ()
    ) -> dict[tuple[str, ...], Match]:
        """What fills each of our variables, by its path in `shapes`; nothing but tied tensors is read. See `read`.

        Args:
          source: their name -> tensor.
          shapes: our variables, with a shape and a dtype at every leaf.
          new: paths of parts ("head") of which parameters may stay unfilled, and tensors unread.
        """
        leaves = flatten_dict(shapes)
        source = self.prepare(source, {"/".join(key[1:]): leaf.shape for key, leaf in leaves.items()})
        prefix = self.left_out(source)
        table = cut(self.rows, prefix)
        problems: list[str] = []
        found: dict[tuple[str, ...], Match] = {}
        read = unread(table, source, new)
        for key, leaf in leaves.items():
            path = "/".join(key[1:])
            may_be_new = is_in(path, new)
            candidates = list(rows_of(table, path))
            if not candidates:
                problems += [] if may_be_new else [NO_ROW.format(path)]
                continue
            row = next((row for row in candidates if row.theirs in source), candidates[0])
            if row.theirs not in source:
                problems += [] if may_be_new else [f"{path}: {row.theirs} is missing in the checkpoint"]
                continue
            read.add(row.theirs)
            tensor = source[row.theirs]
            if tensor.shape == (expected := row.their_shape(leaf.shape, len(tensor.shape))):
                found[key] = Match(row, tensor, leaf, leaf.shape)
            elif (fitted := self.fitted(row, tensor, leaf)) is not None:
                found[key] = fitted
            elif not may_be_new:
                problems.append(f"{path}: {row.theirs} has shape {tensor.shape}; this model needs {expected}")
        problems += filter(
            None, (self.left_over(name, source, prefix) for name in source if name not in read)
        )
        if problems:
            raise UserError(*problems)
        return found

    def fitted(self, row: Row, tensor: Any, leaf: Any) -> Match | None:
        """A parameter whose tensor has another resolution, patch or vocabulary; None where that cannot be."""
        shape = row.our_shape(tensor.shape, leaf.shape)
        how = None if shape is None else fit(row.ours, shape, leaf.shape, self.antialias)
        if how is None or shape is None:
            return None
        logger.info("%s: %s of the source is resized to %s", row.ours, [*shape], [*leaf.shape])
        return Match(row, tensor, leaf, shape, how)

    def write(
        self, variables: Mapping[str, Any], without: Container[str] = (), *, prefixed: bool = True
    ) -> dict[str, np.ndarray]:
        """Their tensors, from our variables: what `read` takes.

        Args:
          variables: nested dicts of arrays ("params", and "batch_stats" where there are any), unrolled.
          without: layers that their model does not have, as the table calls them, where it has several for one of
            ours ("classifier", "qa_outputs").
          prefixed: whether names have the prefix that checkpoints of a model without its head leave out.

        Raises:
          UserError: the table has no tensor for a parameter: a line for each.
        """
        rows = (row for row in self.rows if row.theirs not in without)
        table = cut(rows, "" if prefixed else self.prefix)
        leaves = {"/".join(key[1:]): np.asarray(leaf) for key, leaf in flatten_dict(variables).items()}
        found = {path: next(rows_of(table, path), None) for path in leaves}
        if problems := [NO_ROW.format(path) for path, row in found.items() if row is None]:
            raise UserError(*problems)
        written: dict[str, np.ndarray] = {}
        for path, row in found.items():
            assert row is not None
            row.to_theirs(leaves[path], written)
        return written

    def left_out(self, source: Iterable[str]) -> str:
        """The prefix that the names of a checkpoint do not have."""
        return "" if any(name.startswith(self.prefix) for name in source) else self.prefix

    def left_over(self, name: str, source: Tensors, prefix: str) -> str | None:
        """What is wrong with a tensor that no parameter takes; None if it may be there."""
        if name.endswith(".num_batches_tracked"):  # PyTorch's BatchNorm counts what nothing here reads
            return None
        for extra, equal in self.extras.items():
            numbers = numbers_in(extra.removeprefix(prefix), name)
            if numbers is None:
                continue
            if equal is None:
                return None
            other = with_numbers(equal.removeprefix(prefix), numbers)
            if other in source and np.array_equal(source[name], source[other]):
                return None
            return f"{name}: differs from {other}, which it is tied to in this model"
        return f"{name}: in the checkpoint, but this model has no such parameter"


def family(*tables: Row | Sequence[Row], **fields: Any) -> Family:
    """The family whose table is made of these, one after the other."""
    return Family(tuple(joined(tables)), **fields)
