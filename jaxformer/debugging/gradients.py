"""Whether the gradient of a loss is its derivative, in random directions and in float64."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.debugging.exact import Exact, in_float64, is_float
from jaxformer.debugging.finite import OUTSIDE, line_of, module_of
from jaxformer.debugging.interpreter import INSIDE, QUICK, Interpreter, bound, scanned
from jaxformer.paths import leaves_by_path

Tree = Any
DIRECTIONS, FURTHER, PLACES = 8, 4, 3
TOLERANCE = 0.01  # of what a single parameter adds to a derivative
SMALL = 1e-3  # of the median norm: below it, a gradient is noise beside the others


@dataclass(frozen=True)
class Gradients:
    """What the check found."""

    error: float
    """The largest difference between the gradient and the derivative along a direction, in which every parameter has
    a part of about 1; NaN where there is no derivative."""
    zero: frozenset[str]
    """Paths of the parameters whose gradient is exactly zero."""
    wrong: tuple[str, ...] = ()
    """Modules and lines of the functions whose own derivative is wrong, where the error is too large."""
    rounding: bool = False
    """Whether an error that is too large is float32's: without such functions it is of the same size."""

    @property
    def right(self) -> bool:
        """Whether the gradient is the derivative."""
        return self.error < TOLERANCE


def check_gradient(loss: Callable[[Tree], jax.Array], params: Tree, seed: int = 0) -> Gradients:
    """Compares the gradient that a training takes with the derivative in float64.

    The derivative is taken forwards (a Jacobian-vector product) of the same program in float64, by JAX's rules for its
    own operations: nothing is left in it of `custom_vjp` and `custom_jvp`. Both are taken beside the parameters, where
    nothing is exactly zero: a layer behind a scale that begins at zero has no gradient at first. If they differ, they
    are compared at other places, too: at a bend, of a ReLU or a maximum, float32 and float64 may be on either side.

    Args:
      loss: parameters -> float32 [].
      params: a tree of float32 arrays.
      seed: of the directions.
    """
    draw = np.random.default_rng(seed)

    def place(size: float) -> Tree:
        return jax.tree.map(lambda w: w + jnp.asarray(draw.normal(size=w.shape) * size, w.dtype), params)

    slopes = jax.jit(jax.grad(loss), compiler_options=QUICK)
    at = place(0.02)
    gradient = slopes(at)
    zero = frozenset(path for path, g in leaves_by_path(gradient).items() if not np.any(np.asarray(g)))
    for _ in range(FURTHER if zero else 0):  # a narrow layer may be dead at one place
        there = leaves_by_path(slopes(place(0.3)))
        zero &= {path for path, g in there.items() if not np.any(np.asarray(g))}
    error = difference(loss, at, gradient, draw)
    for _ in range(PLACES - 1):
        if error >= TOLERANCE:
            at = place(0.05)
            error = min(error, difference(loss, at, slopes(at), draw))
    if error < TOLERANCE:
        return Gradients(error, zero)
    program = jax.make_jaxpr(loss)(at)
    plain = jax.grad(lambda at: Interpreter().run(program, jax.tree.leaves(at))[0])
    rounded = difference(loss, at, jax.jit(plain, compiler_options=QUICK)(at), draw)
    return Gradients(error, zero, tuple(wrong_functions(loss, at, draw)), rounded > error / 4)


def difference(
    loss: Callable[[Tree], jax.Array], at: Tree, gradient: Tree, draw: np.random.Generator
) -> float:
    """The largest difference between a gradient and the derivative along a direction, see `Gradients.error`."""
    gradients = [np.asarray(g, np.float64) for g in jax.tree.leaves(gradient)]
    norms = [float(np.linalg.norm(g)) for g in gradients]
    floor = SMALL * float(np.median(norms)) or 1.0
    sizes = [1 / max(norm, floor) for norm in norms]
    leaves, program = jax.tree.leaves(at), jax.make_jaxpr(loss)(at)
    directions = [draw.normal(size=(DIRECTIONS, *w.shape)) * size for w, size in zip(leaves, sizes)]
    expected = derivatives(lambda *ws: Exact().run(program, ws)[0], leaves, directions)
    along = zip(directions, gradients, strict=True)
    taken = sum(np.einsum("di,i->d", d.reshape(DIRECTIONS, -1), g.ravel()) for d, g in along)
    return float(np.abs(taken - expected).max())


def derivatives(
    function: Callable[..., jax.Array], at: Sequence[Any], directions: Sequence[np.ndarray]
) -> np.ndarray:
    """float64 [D]: the derivatives of a function of floating-point arrays along D directions, [D, ...] each."""

    def along(point: Any, direction: Any) -> jax.Array:
        return jax.jvp(function, point, direction)[1]

    with jax.enable_x64(True):
        point = tuple(map(in_float64, at))
        given = tuple(jnp.asarray(direction, "float64") for direction in directions)
        return np.asarray(jax.jit(jax.vmap(along, in_axes=(None, 0)), compiler_options=QUICK)(point, given))


class Recorder(Interpreter):
    """Runs a program, and keeps the functions with a derivative of their own and what they are given."""

    def __init__(self) -> None:
        self.functions: list[tuple[Any, str]] = []
        self.given_to: list[Sequence[Any]] = []

    def step(self, eqn: Any, where: str, inputs: Sequence[Any]) -> list[Any]:
        if eqn.primitive.name.startswith("custom_"):
            self.functions.append((eqn, where))
            self.given_to.append(inputs)
        return super().step(eqn, where, inputs)

    def scan(self, eqn: Any, where: str, inputs: Sequence[Any]) -> list[Any]:
        """What is inside of a scan is left alone."""
        params, (fixed, first, parts) = eqn.params, scanned(eqn, inputs)
        function = jax.extend.core.jaxpr_as_fun(params["jaxpr"])

        def body(carry: Any, parts: Any) -> Any:
            results = function(*fixed, *carry, *parts)
            return results[: len(first)], results[len(first) :]

        last, made = jax.lax.scan(body, first, parts, length=params["length"], reverse=params["reverse"])
        return [*last, *made]


def wrong_functions(loss: Callable[[Tree], jax.Array], params: Tree, draw: np.random.Generator) -> list[str]:
    """The functions in a loss whose own derivative is not that of what they compute, by module and line."""
    program, recorder = jax.make_jaxpr(loss)(params), Recorder()

    def run(leaves: Sequence[Any]) -> Any:
        recorder.__init__()  # type: ignore[misc]
        recorder.run(program, leaves)
        return recorder.given_to

    given_to, found = jax.jit(run, compiler_options=QUICK)(jax.tree.leaves(params)), []
    for (eqn, where), inputs in zip(recorder.functions, given_to, strict=True):
        if not any(own_derivative_is_right(eqn, at, draw) for at in (inputs, beside(inputs, draw))):
            module = module_of(where)[0] or OUTSIDE
            found.append(f"{module}, {line_of(eqn)}")
    return list(dict.fromkeys(found))


def beside(inputs: Sequence[Any], draw: np.random.Generator) -> list[Any]:
    """Inputs moved a little, so that no two are equal: a maximum of equals, all 0 after a ReLU, has no derivative."""

    def moved(array: Any) -> Any:
        if not is_float(jnp.result_type(array)):
            return array
        size = 1e-3 * jnp.sqrt(jnp.mean(jnp.square(jnp.where(jnp.isfinite(array), array, 0))))
        return array + (draw.normal(size=jnp.shape(array)) * size).astype(array.dtype)

    return [moved(array) for array in inputs]


def own_derivative_is_right(eqn: Any, inputs: Sequence[Any], draw: np.random.Generator) -> bool:
    """Whether the derivative that a function brings along is that of what it computes, at these inputs."""
    moving = [i for i, x in enumerate(inputs) if is_float(jnp.result_type(x))]
    results = [out.aval for out in eqn.outvars]
    weights = [draw.normal(size=out.shape) if is_float(out.dtype) else None for out in results]
    program = eqn.params[INSIDE[eqn.primitive.name]]

    def weighed(run: Callable[[Sequence[Any]], Sequence[Any]], *moved: Any) -> jax.Array:
        given = list(inputs)
        for i, x in zip(moving, moved):
            given[i] = x
        parts = [jnp.sum(jnp.asarray(w, y.dtype) * y) for w, y in zip(weights, run(given)) if w is not None]
        return jnp.sum(jnp.stack(parts))

    at = [jnp.asarray(inputs[i], "float32") for i in moving]
    slopes = jax.grad(partial(weighed, partial(bound, eqn)), argnums=tuple(range(len(at))))
    gradients = jax.jit(slopes, compiler_options=QUICK)(*at)
    for k, gradient in enumerate(map(np.asarray, gradients)):
        size = float(np.linalg.norm(gradient)) or 1.0
        directions = [draw.normal(size=(2, *x.shape)) * (i == k) / size for i, x in enumerate(at)]
        expected = derivatives(partial(weighed, partial(Exact().run, program)), at, directions)
        taken = np.einsum("di,i->d", directions[k].reshape(2, -1), gradient.astype(np.float64).ravel())
        if gradient.any() and not np.abs(taken - expected).max() < TOLERANCE:
            return False
    return True
