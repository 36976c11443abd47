"""Runs a traced program (a jaxpr) operation by operation, so that something else can be done with each.

Calls, rematerialisation and functions with a derivative of their own are taken apart into the operations that they
consist of; scans stay scans. It all happens while JAX traces: what comes out is compiled as a whole.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
from jax.extend import core

Value: TypeAlias = Any
INSIDE = {  # operation -> its parameter that holds the operations inside
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}


class Interpreter:
    """Runs programs as they are; subclasses change what `operation` does, and what a value is."""

    def given(self, array: Any) -> Value:
        """A constant of the program as a value."""
        return array

    def operation(self, eqn: Any, where: str, inputs: Sequence[Value]) -> list[Value]:
        """The results of one operation; `where` is its name stack from the outside to the inside."""
        return bound(eqn, inputs)

    def sliced(self, value: Value) -> tuple[Any, Any]:
        """What a scan takes apart of a value, and what each of its iterations gets of it as it is."""
        return value, None

    def of_slice(self, part: Any, whole: Any) -> Value:
        """The value of one iteration."""
        return part

    def stacked(self, value: Value) -> Value:
        """The value that a scan has put together of those of its iterations."""
        return value

    def enter_iteration(self, number: Any) -> None:
        """Is called with the number, int32 [], of the iteration that is traced from now on, None behind the scan."""

    def carried(self, values: Sequence[Value], like: Sequence[Value]) -> list[Value]:
        """The values that go to the next iteration, of the same dtypes as the first had."""
        return jax.tree.map(lambda new, old: new.astype(old.dtype), list(values), list(like))

    def run(self, program: Any, inputs: Sequence[Value], where: str = "") -> list[Value]:
        """The results of a program, a ClosedJaxpr or a Jaxpr without constants."""
        jaxpr, constants = (
            (program.jaxpr, program.consts) if isinstance(program, core.ClosedJaxpr) else (program, ())
        )
        values = dict(zip(jaxpr.constvars, map(self.given, constants), strict=True))
        values |= dict(zip(jaxpr.invars, inputs, strict=True))

        def read(variable: Any) -> Value:
            return self.given(variable.val) if isinstance(variable, core.Literal) else values[variable]

        for eqn in jaxpr.eqns:
            place = "/".join(filter(None, (where, str(eqn.source_info.name_stack))))
            given = [read(variable) for variable in eqn.invars]
            values |= dict(zip(eqn.outvars, self.step(eqn, place, given), strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def step(self, eqn: Any, where: str, inputs: Sequence[Value]) -> list[Value]:
        """The results of an operation, or of those that it consists of."""
        name = eqn.primitive.name
        if name in INSIDE:
            return self.run(eqn.params[INSIDE[name]], inputs, where)
        if name == "scan":
            return self.scan(eqn.params, where, inputs)
        return self.operation(eqn, where, inputs)

    def scan(self, params: Any, where: str, inputs: Sequence[Value]) -> list[Value]:
        """The results of a scan."""
        constants, carries = params["num_consts"], params["num_carry"]
        fixed, first = inputs[:constants], list(inputs[constants : constants + carries])
        parts, wholes = (
            zip(*map(self.sliced, inputs[constants + carries :]))
            if inputs[constants + carries :]
            else ((), ())
        )

        def body(carry: Any, scanned: Any) -> Any:
            number, parts = scanned
            self.enter_iteration(number)
            slices = [self.of_slice(part, whole) for part, whole in zip(parts, wholes)]
            results = self.run(params["jaxpr"], [*fixed, *carry, *slices], where)
            return self.carried(results[:carries], carry), results[carries:]

        numbers = jax.numpy.arange(params["length"], dtype="int32")
        last, made = jax.lax.scan(
            body, first, (numbers, parts), length=params["length"], reverse=params["reverse"]
        )
        self.enter_iteration(None)
        return [*last, *map(self.stacked, made)]


def bound(eqn: Any, inputs: Sequence[Any], **changes: Any) -> list[Any]:
    """The results of one operation, with other parameters where `changes` has some."""
    functions, params = eqn.primitive.get_bind_params({**eqn.params, **changes})
    results = eqn.primitive.bind(*functions, *inputs, **params)
    return list(results) if eqn.primitive.multiple_results else [results]
