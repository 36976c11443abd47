"""Runs a traced program (a jaxpr) operation by operation, so that something else can be done with each.

Calls, rematerialisation and functions with a derivative of their own are taken apart into the operations that they
consist of. It may all happen while JAX traces: what comes out is then compiled as a whole.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
from jax.extend import core

Value: TypeAlias = Any
# XLA's options for programs that take longer to compile than to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
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

    def carried(self, value: Value) -> Value:
        """A value that a scan carries from one iteration to the next."""
        return value

    def operation(self, eqn: Any, where: str, inputs: Sequence[Value]) -> list[Value]:
        """The results of one operation; `where` is its name stack from the outside to the inside."""
        return bound(eqn, inputs)

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
            return self.scan(eqn, where, inputs)
        return self.operation(eqn, where, inputs)

    def scan(self, eqn: Any, where: str, inputs: Sequence[Value]) -> list[Value]:
        """The results of a scan."""
        params, (fixed, first, parts) = eqn.params, scanned(eqn, inputs)

        def body(carry: Any, slices: Any) -> Any:
            results = self.run(params["jaxpr"], [*fixed, *carry, *slices], where)
            return [*map(self.carried, results[: len(first)])], results[len(first) :]

        first = [*map(self.carried, first)]
        last, made = jax.lax.scan(body, first, parts, length=params["length"], reverse=params["reverse"])
        return [*last, *made]


def scanned(eqn: Any, inputs: Sequence[Value]) -> tuple[list[Value], list[Value], list[Value]]:
    """A scan's inputs: those of every iteration, those that are carried on, and those of which each gets a slice.

    What is sliced, or stacked, has an axis more outside of the body than inside; versions of JAX name the numbers
    differently.
    """
    body = eqn.params["jaxpr"].jaxpr

    def as_inside(outside: Any, inside: Any) -> int:
        return sum(out.aval.ndim == one.aval.ndim for out, one in zip(outside, inside, strict=True))

    unsliced, carried = as_inside(eqn.invars, body.invars), as_inside(eqn.outvars, body.outvars)
    fixed = unsliced - carried
    return list(inputs[:fixed]), list(inputs[fixed:unsliced]), list(inputs[unsliced:])


def bound(eqn: Any, inputs: Sequence[Any], **changes: Any) -> list[Any]:
    """The results of one operation, with other parameters where `changes` has some."""
    results = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params({**eqn.params, **changes}))
    return list(results) if eqn.primitive.multiple_results else [results]
