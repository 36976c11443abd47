"""Where the first number that is not finite comes from, in a forward and backward pass."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.debugging.interpreter import Interpreter
from jaxformer.paths import STACK

FINE, CONSTANT = 0, 1  # origins: of what is finite, and of what a program writes down as infinite (a mask)
ITERATIONS = 2**11  # of a scan, that are told apart
WRAPPED = re.compile(r"^(?:transpose\()?(?:jvp\()?(.*?)\)*$")
NO_MODULE = ("", "rematted_computation", "checkpoint", "while", "body", "cond")


@dataclass(frozen=True)
class Place:
    """An operation of a model or of its loss."""

    module: str
    """Path of the module, "encoder/block_3/mlp"; "" outside of the model."""
    operation: str
    """JAX's name of the operation, such as "exp"."""
    backwards: bool
    """Whether it belongs to the backward pass."""
    line: str
    """The file and the number of the line that asks for it; "" where that is not known."""

    def __str__(self) -> str:
        where = self.module or "the loss, outside of the model"
        way = "backwards" if self.backwards else "forwards"
        return f"{where} ({way}, operation {self.operation}" + (f", {self.line})" if self.line else ")")


class Traced(NamedTuple):
    """A value and where the numbers in it that are not finite come from."""

    array: Any
    origin: Any
    """Int32 []: FINE, CONSTANT, or a number of `Origins.places` times ITERATIONS, plus the iteration of a scan."""


class Origins(Interpreter):
    """Runs a program, and follows every number that is not finite from where it first was."""

    def __init__(self) -> None:
        self.places: list[tuple[Any, str]] = [("", ""), ("", "")]
        self.iteration: Any = None

    def given(self, array: Any) -> Traced:
        return Traced(array, jnp.where(is_finite(array), FINE, CONSTANT).astype("int32"))

    def sliced(self, value: Traced) -> tuple[Any, Any]:
        return value.array, value.origin

    def of_slice(self, part: Any, whole: Any) -> Traced:
        return Traced(part, jnp.where(is_finite(part), FINE, whole))

    def stacked(self, value: Traced) -> Traced:
        return Traced(value.array, earliest(value.origin))

    def enter_iteration(self, number: Any) -> None:
        self.iteration = number

    def carried(self, values: Sequence[Traced], like: Sequence[Traced]) -> list[Traced]:
        return list(values)

    def operation(self, eqn: Any, where: str, inputs: Sequence[Traced]) -> list[Traced]:
        results = super().operation(eqn, where, [value.array for value in inputs])
        if not any(is_inexact(result) for result in results):
            return [Traced(result, jnp.int32(FINE)) for result in results]
        self.places.append((eqn, where))
        iteration = 0 if self.iteration is None else jnp.minimum(self.iteration, ITERATIONS - 1)
        here = jnp.int32((len(self.places) - 1) * ITERATIONS) + iteration
        origins = [value.origin for value in inputs]
        before = earliest(jnp.stack(origins)) if origins else jnp.int32(FINE)

        def origin(result: Any) -> Any:
            if not is_inexact(result):
                return jnp.int32(FINE)
            masked = (before == CONSTANT) & ~jnp.isnan(result).any()
            known = (before > CONSTANT) | masked
            return jnp.where(is_finite(result), FINE, jnp.where(known, before, here)).astype("int32")

        return [Traced(result, origin(result)) for result in results]

    def place(self, origin: int) -> Place:
        """The operation that an origin names."""
        number, iteration = divmod(origin, ITERATIONS)
        eqn, where = self.places[number]
        module, backwards = module_of(where)
        return Place(
            STACK.sub(rf"\g<1>block_{iteration}/", module), eqn.primitive.name, backwards, line_of(eqn)
        )


def is_inexact(array: Any) -> bool:
    """Whether an array can hold numbers that are not finite."""
    return bool(jnp.issubdtype(jnp.result_type(array), jnp.inexact))


def is_finite(array: Any) -> Any:
    """Bool []: whether all numbers of an array are finite; those of integers and keys are."""
    return jnp.isfinite(array).all() if is_inexact(array) else jnp.bool_(True)


def earliest(origins: Any) -> Any:
    """The first of some origins; CONSTANT and FINE only where there is no other."""
    last = jnp.iinfo("int32").max
    first = jnp.min(jnp.where(origins > CONSTANT, origins, last))
    return jnp.where(first == last, jnp.max(jnp.where(origins > CONSTANT, 0, origins)), first)


def module_of(where: str) -> tuple[str, bool]:
    """The path of a module in a name stack such as "transpose(jvp(ViT))/encoder/block_0", and whether it is backwards."""
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
    origins = Origins()

    def run(inputs: Sequence[Any]) -> Any:
        origins.places = origins.places[:2]
        return earliest(
            jnp.stack([value.origin for value in origins.run(program, list(map(origins.given, inputs)))])
        )

    found = int(np.asarray(jax.jit(run)(jax.tree.leaves(arguments))))
    return origins.place(found) if found > CONSTANT else None
