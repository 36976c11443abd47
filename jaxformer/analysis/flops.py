"""Counts the floating-point operations of a function from its jaxpr, without compiling or running it."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def count_flops(function: Callable, *args: Any) -> int:
    """FLOPs of the matrix products and convolutions of `function(*args)`: 2 for a multiply and add.

    Elementwise work is left out, as is usual for model FLOPs (Chowdhery et al. 2022, PaLM, appendix B): it is
    under a few percent of a Transformer's. A scan counts once for every iteration, unlike in XLA's own analysis.

    Args:
      args: arrays or ShapeDtypeStructs.
    """
    return jaxpr_flops(jax.make_jaxpr(function)(*args).jaxpr)


def training_flops(forward: int) -> int:
    """FLOPs of a step whose forward pass has `forward`: the backward pass has two products for each one."""
    return 3 * forward


def jaxpr_flops(jaxpr: Any) -> int:
    """FLOPs of a jaxpr and of those inside it; the largest branch of a conditional counts."""
    total = 0
    for equation in jaxpr.eqns:
        inner = [jaxpr_flops(sub) for value in equation.params.values() for sub in sub_jaxprs(value)]
        name = equation.primitive.name
        if name == "dot_general":
            total += dot_flops(equation)
        elif name == "conv_general_dilated":
            total += convolution_flops(equation)
        elif equation.params.get("name") == "shifted_products":
            total += depthwise_flops(equation)
        elif name == "scan":
            total += equation.params["length"] * sum(inner)
        elif name == "cond":
            total += max(inner, default=0)
        else:
            total += sum(inner)
    return total


def sub_jaxprs(value: Any) -> list[Any]:
    """The jaxprs in an equation's parameter."""
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, core.Jaxpr):
        return [value]
    if isinstance(value, (list, tuple)):
        return [jaxpr for item in value for jaxpr in sub_jaxprs(item)]
    return []


def dot_flops(equation: Any) -> int:
    """2 x (elements of the result) x (length of the contracted dimensions)."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[d] for d in contracted)


def convolution_flops(equation: Any) -> int:
    """2 x (elements of the result) x (products for each: kernel window x input features a group)."""
    kernel = equation.invars[1].aval.shape
    out_dimension = equation.params["dimension_numbers"].rhs_spec[0]
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // kernel[out_dimension]


def depthwise_flops(equation: Any) -> int:
    """2 x (elements of the result) x (kernel window), of a depthwise convolution by shifts (`models/conv.py`)."""
    height, width, _ = equation.invars[1].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * height * width
