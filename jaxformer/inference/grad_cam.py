"""Grad-CAM (Selvaraju et al. 2017): where the evidence for a class is, by the gradient at a feature map."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.inference.attention_layers import BLOCK, Call, Path
from jaxformer.models.base import Model
from jaxformer.models.token_layout import Grid


@dataclass(frozen=True)
class Target:
    """The feature map at which gradients are taken."""

    path: Path
    """The module that gives it."""
    output: jax.ShapeDtypeStruct
    """Its shape and dtype: a map [1, h, w, C], or tokens [1, T, C]."""
    grid: Grid
    """(h, w); of tokens the places are the last ones."""


def find_target(model: Model, calls: Sequence[Call]) -> Target | None:
    """The last feature map that classes are read from; None of a model that has none.

    Of a CNN or a hierarchical model it is what the last block gives, of a plain Transformer what its last norm gives. A
    class token reads the places in the last block for the last time: there it is what that block's attention sees.

    Args:
      model: the linen module.
      calls: what `calls_of` found, with the model's layers unrolled.
    """
    if model.kind not in ("image", "segmenter"):
        return None  # a detector finds objects, each of its own class; the others know no classes
    segments = model.kind == "segmenter"
    root: Path = ("backbone",) if segments else ()
    inner = model.backbone if segments else model
    by_path = {call.path: call for call in calls}
    inside = [call for call in calls if call.path and call.path[: len(root)] == root]
    own = [call for call in inside if "backbone" not in call.path[len(root) :]]
    last = next((call for call in reversed(own) if BLOCK.fullmatch(call.path[-1])), None)
    if last is None:
        return None
    if last.output is not None and len(last.output.shape) == 4:
        return Target(last.path, last.output, last.grids[-1])
    path = (*last.path, "norm_1") if inner.by_class_token and not segments else (*root, "norm")
    tokens, grids = by_path[path].output if path in by_path else None, by_path[root].grids
    return Target(path, tokens, grids[-1]) if tokens is not None and grids else None


def with_activation(
    target: Target | None, run: Callable[[], Any], score: Callable[[Any], jax.Array]
) -> tuple[Any, jax.Array | None]:
    """What `run` gives, and the class activation map of a score, float32 [h, w], at least 0; None without a target.

    Selvaraju et al. 2017, equations 1 and 2: channels are weighted by the means of their gradients over places, added
    up, and what speaks against the class is left out.

    Args:
      target: the feature map.
      run: applies the model to one image.
      score: what is explained, float32 [], of what `run` gives.
    """
    if target is None:
        return run(), None
    here: Target = target

    def moved(change: jax.Array) -> tuple[jax.Array, tuple[Any, jax.Array]]:
        """The score if `change` is added to the feature map; what `run` gives, and the feature map."""
        calls: list[Any] = []

        def add(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if context.method_name != "__call__" or context.module.path != here.path or calls:
                return call(*args, **kwargs)
            calls.append(None)  # a block may call its base's `__call__`, which is not counted again
            calls[0] = call(*args, **kwargs) + change
            return calls[0]

        with nn.intercept_methods(add):
            outputs = run()
        return score(outputs), (outputs, calls[0])

    change = jnp.zeros(here.output.shape, here.output.dtype)
    gradient, (outputs, activation) = jax.grad(moved, has_aux=True)(change)
    gradient, activation = (on_grid(x.astype(jnp.float32), here.grid) for x in (gradient, activation))
    weights = jnp.mean(gradient, axis=(0, 1))  # [C]
    return outputs, nn.relu(activation @ weights)


def on_grid(x: jax.Array, grid: Grid) -> jax.Array:
    """The places [h, w, C] of a map [1, h, w, C], or of tokens [1, T, C], of which they are the last."""
    return x.reshape(-1, x.shape[-1])[-grid[0] * grid[1] :].reshape(*grid, -1)
