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
    """Runs a program with all its floating-point numbers in float64.

    Nothing is left of what functions say about their own derivatives, so those of the whole are JAX's. What brings a
    program of its own along, a `while` or a sort by a function, is computed in its own dtypes.
    """

    def given(self, array: Any) -> Any:
        return in_float64(array)

    def operation(self, eqn: Any, where: str, inputs: Sequence[Any]) -> list[Any]:
        name, params = eqn.primitive.name, eqn.params
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
        """A branch of a `cond`, to be called."""
        return lambda *operands: self.run(program, operands, where)


def cast(value: Any, like: Any) -> Any:
    """A value in the dtype that the program has there."""
    return value.astype(like.dtype) if is_float(like.dtype) else value
