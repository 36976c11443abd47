"""Where the first number that is not finite comes from, in a forward and backward pass."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.debugging.interpreter import Interpreter, scanned
from jaxformer.paths import STACK

WRAPPED = re.compile(r"^(?:transpose\()?(?:jvp\()?(.*?)\)*$")
OUTSIDE = "the train step, outside of the model"
NO_MODULE = ("", "rematted_computation", "checkpoint", "while", "body", "cond")


@dataclass(frozen=True)
class Place:
    """An operation of a model or of its loss."""

    module: str
    """Path of the module, "encoder/block_3/mlp"; outside of the model a part of the train step, "loss", or ""."""
    operation: str
    """JAX's name of the operation, such as "exp"."""
    backwards: bool
    """Whether it belongs to the backward pass."""
    line: str
    """The file and the number of the line that asks for it; "" where that is not known."""

    def __str__(self) -> str:
        where = self.module or OUTSIDE
        way = "backwards" if self.backwards else "forwards"
        return f"{where} ({way}, operation {self.operation}" + (f", {self.line})" if self.line else ")")


class Traced(NamedTuple):
    """An array and where the numbers in it that are not finite come from."""

    array: Any
    origin: "tuple[int, Place] | None" = None
    """How many operations ran before, and the operation; None where all is finite, or was written down as infinite."""


class Origins(Interpreter):
    """Runs a program at once, an operation after the other, and follows every number that is not finite."""

    def __init__(self) -> None:
        self.count = 0
        self.iteration = 0

    def given(self, array: Any) -> Traced:
        return Traced(array)

    def operation(self, eqn: Any, where: str, inputs: Sequence[Traced]) -> list[Traced]:
        self.count += 1
        if eqn.primitive.name == "cond":
            index, *operands = inputs
            return self.run(eqn.params["branches"][int(index.array)], operands, where)
        results = super().operation(eqn, where, [value.array for value in inputs])
        bad = [not is_finite(result) for result in results]
        if not any(bad):
            return list(map(Traced, results))
        before = first_of(inputs)
        if before is None and all(is_finite(value.array) for value in inputs):
            before = (self.count, self.place(eqn, where))
        elif before is None and any(bool(jnp.isnan(r).any()) for r, b in zip(results, bad) if b):
            before = (
                self.count,
                self.place(eqn, where),
            )  # of infinities that are written down, such as a mask's
        return [Traced(result, before if b else None) for result, b in zip(results, bad)]

    def scan(self, eqn: Any, where: str, inputs: Sequence[Traced]) -> list[Traced]:
        params, (fixed, carry, stacks), outer = eqn.params, scanned(eqn, inputs), self.iteration
        carries, length = len(carry), params["length"]
        order = range(length - 1, -1, -1) if params["reverse"] else range(length)
        made: list[list[Traced]] = [[] for _ in range(length)]
        for self.iteration in order:
            slices = [Traced(stack.array[self.iteration], stack.origin) for stack in stacks]
            slices = [Traced(part.array) if is_finite(part.array) else part for part in slices]
            results = self.run(params["jaxpr"], [*fixed, *carry, *slices], where)
            carry, made[self.iteration] = results[:carries], results[carries:]
        self.iteration = outer
        columns = zip(*made, strict=True)
        return [
            *carry,
            *(Traced(jnp.stack([v.array for v in column]), first_of(column)) for column in columns),
        ]

    def place(self, eqn: Any, where: str) -> Place:
        """An operation in words."""
        module, backwards = module_of(where)
        module = STACK.sub(rf"\g<1>block_{self.iteration}/", f"{module}/").rstrip("/")
        return Place(module, eqn.primitive.name, backwards, line_of(eqn))


def is_finite(array: Any) -> bool:
    """Whether all numbers of an array are finite; those of integers and keys are."""
    inexact = jnp.issubdtype(jnp.result_type(array), jnp.inexact)
    return not inexact or bool(np.isfinite(np.asarray(array, np.float32)).all())


def first_of(values: Iterable[Traced]) -> "tuple[int, Place] | None":
    """The earliest origin of some values."""
    return min((value.origin for value in values if value.origin), key=lambda origin: origin[0], default=None)


def module_of(where: str) -> tuple[str, bool]:
    """The module's path in a name stack such as "transpose(jvp(ViT))/encoder/block_0", and whether it is backwards."""
    names: list[str] = []
    for part in where.split("/"):
        name = WRAPPED.sub(r"\1", part).removesuffix(")")
        if part.startswith(("transpose(", "jvp(")) and name:
            names = []  # the stack of the forward pass, repeated in that of the backward pass
        if name not in NO_MODULE:
            names.append(name)
    inside = [name for name in names if not name[:1].isupper()]  # without the class of the model
    return "/".join(inside), "transpose(" in where


def line_of(eqn: Any) -> str:
    """The file and line of a user's code, or of this package's, that an operation comes from."""
    traceback = eqn.source_info.traceback
    frames = [] if traceback is None else traceback.frames
    ours = (f for f in frames if "site-packages" not in f.file_name and "/debugging/" not in f.file_name)
    found = next(ours, None)
    return "" if found is None else f"{found.file_name.rpartition('/')[2]}:{found.line_num}"


def first_not_finite(function: Callable[..., Any], *arguments: Any) -> Place | None:
    """The operation that the first number which is not finite among a function's results comes from.

    It is the first in the order in which the program runs, of those from which the results' come; numbers that are
    masked away later do not count. None: all results are finite, or came in as they are.

    Args:
      function: maps trees of arrays to a tree of arrays, such as `jax.value_and_grad` of a loss.
      arguments: its arguments.
    """
    program = jax.make_jaxpr(function)(*arguments)
    origin = first_of(Origins().run(program, list(map(Traced, jax.tree.leaves(arguments)))))
    return None if origin is None else origin[1]
