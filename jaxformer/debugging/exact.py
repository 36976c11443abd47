"""A traced program in float64, with derivatives by JAX's own rules alone: what gradients are compared with."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxformer.debugging.interpreter import Interpreter, bound

DTYPES = ("dtype", "new_dtype", "out_dtype", "preferred_element_type")  # parameters that name one
AS_IT_WAS = ("bitcast_convert_type", "random_bits", "random_wrap", "random_unwrap", "iota")


def is_float(dtype: Any) -> bool:
    """Whether a dtype is one of floating-point numbers; keys and None are not."""
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating)


def in_float64(array: Any) -> Any:
    """An array of floating-point numbers as float64, any other as it is."""
    return jnp.asarray(array, jnp.float64) if is_float(jnp.result_type(array)) else array


class Exact(Interpreter):
    """Runs a program with all floating-point numbers that follow from inputs in float64 in float64, too.

    All others are constants, and are computed as they were: rounded otherwise, a bucket of distances would be another.
    Nothing is left of what functions say about their own derivatives, so those of the whole are JAX's. What brings a
    program of its own along, a `while` or a sort by a function, is computed in its own dtypes.
    """

    def carried(self, value: Any) -> Any:
        return in_float64(value)

    def step(self, eqn: Any, where: str, inputs: Sequence[Any]) -> list[Any]:
        constant = all(jnp.result_type(value) != jnp.float64 for value in inputs)
        return bound(eqn, inputs) if constant else super().step(eqn, where, inputs)

    def operation(self, eqn: Any, where: str, inputs: Sequence[Any]) -> list[Any]:
        name, params, inputs = eqn.primitive.name, eqn.params, [in_float64(value) for value in inputs]
        if name == "reduce_precision":
            return list(inputs)
        programs = any(isinstance(value, (core.Jaxpr, core.ClosedJaxpr)) for value in params.values())
        if name == "cond":
            index, *operands = inputs
            return list(jax.lax.switch(index, [self.branch(b, where) for b in params["branches"]], *operands))
        if programs or name in AS_IT_WAS:
            narrow = [cast(value, variable.aval) for variable, value in zip(eqn.invars, inputs)]
            return [in_float64(result) for result in bound(eqn, narrow)]
        changes: dict[str, Any] = {key: jnp.dtype("float64") for key in DTYPES if is_float(params.get(key))}
        if "precision" in params:
            changes["precision"] = None
        return bound(eqn, inputs, **changes)

    def branch(self, program: Any, where: str) -> Any:
        """A branch of a `cond`, to be called; its results are in float64, like those of the others."""
        return lambda *operands: [in_float64(result) for result in self.run(program, operands, where)]


def cast(value: Any, like: Any) -> Any:
    """A value in the dtype that the program has there."""
    return value.astype(like.dtype) if is_float(like.dtype) else value
