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

    def of_product(equation: Any) -> int:
        each = products(equation)
        return 2 * math.prod(equation.outvars[0].aval.shape) * each if each else 0

    return added_up(jaxpr, of_product)


def kernel_flops(jaxpr: Any) -> int:
    """FLOPs of the Pallas kernels of a jaxpr on one device: their products, once for every place of their grids.

    What a mask lets a kernel leave out counts too.
    """

    def of_kernel(equation: Any) -> int:
        if equation.primitive.name != "pallas_call":
            return 0
        grid = equation.params["grid_mapping"].grid
        return math.prod(side for side in grid if isinstance(side, int)) * jaxpr_flops(
            equation.params["jaxpr"]
        )

    return added_up(jaxpr, of_kernel)


def added_up(jaxpr: Any, cost: Callable[[Any], int]) -> int:
    """The costs of a jaxpr's equations; of those that cost nothing themselves, the costs of what is inside."""
    total = 0
    for equation in jaxpr.eqns:
        if each := cost(equation):
            total += each
            continue
        inner = [added_up(part, cost) for part in parts(equation)]
        if equation.primitive.name == "cond":
            total += max(inner, default=0)
        else:
            total += sum(inner) * (equation.params["length"] if equation.primitive.name == "scan" else 1)
    return total


def largest_product(jaxpr: Any, batched: bool = True) -> int:
    """How many numbers the largest result of a matrix product or a convolution in a jaxpr has.

    Args:
      jaxpr: the jaxpr.
      batched: whether batched products count. They are attention's, of which a fused kernel leaves nothing in memory.
    """
    found = [e for e in jaxpr.eqns if products(e) and (batched or not is_batched(e))]
    sizes = [math.prod(e.outvars[0].aval.shape) for e in found]
    sizes += [largest_product(part, batched) for e in jaxpr.eqns if not products(e) for part in parts(e)]
    return max(sizes, default=0)


def largest_arrays(jaxpr: Any, count: int) -> list[tuple[int, str, str]]:
    """The largest arrays that a jaxpr makes: bytes, dtype and shape, place in the model."""
    found: dict[str, tuple[int, str]] = {}

    def walk(jaxpr: Any) -> None:
        for equation in jaxpr.eqns:
            for made in (variable.aval for variable in equation.outvars):
                if isinstance(made, jax.core.ShapedArray) and not jax.dtypes.issubdtype(
                    made.dtype, jax.dtypes.extended
                ):
                    size = math.prod(made.shape) * made.dtype.itemsize
                    found.setdefault(made.str_short(), (size, str(equation.source_info.name_stack)))
            for part in () if equation.primitive.name == "pallas_call" else parts(equation):
                walk(part)

    walk(jaxpr)
    ranked = sorted(found.items(), key=lambda item: -item[1][0])
    return [(size, shape, where) for shape, (size, where) in ranked[:count]]


def parts(equation: Any) -> list[Any]:
    """The jaxprs inside an equation."""
    return list(core.jaxprs_in_params(equation.params))


def is_batched(equation: Any) -> bool:
    """Whether an equation is many products of matrices."""
    return equation.primitive.name == "dot_general" and bool(equation.params["dimension_numbers"][1][0])


def products(equation: Any) -> int:
    """Products for each number that a matrix product or a convolution gives; 0 of anything else."""
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":  # the length of the contracted dimensions
        (contracted, _), _ = params["dimension_numbers"]
        return math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    if name == "conv_general_dilated":  # kernel window x input features of a group
        kernel = equation.invars[1].aval.shape
        return math.prod(kernel) // kernel[params["dimension_numbers"].rhs_spec[0]]
    if params.get("name") == "shifted_products":  # a depthwise convolution (`models/conv.py`): kernel window
        return math.prod(equation.invars[1].aval.shape[:2])
    return 0
