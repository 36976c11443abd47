"""Parameters that begin to move later: gradual unfreezing (Howard and Ruder 2018, ULMFiT, section 3.3).

Until its step a parameter's gradient is zero to the optimizer, and nothing of its state moves: from there on it is
optimized as if the training began, but for the learning rate, which is that of the schedule.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxformer.optim.masks import trainable_mask
from jaxformer.optim.schedule import ToSteps
from jaxformer.paths import layers_taken, leaves_by_path, path_of

Tree = Any


class Waiting(NamedTuple):
    """The state of a transformation that begins later."""

    done: jax.Array
    """int32 [], updates so far."""
    inner: Any
    """The state of what begins."""


def first_steps(config: Any, params: Tree, to_steps: ToSteps) -> dict[str, int]:
    """Path -> how many updates come before its first: what the first pattern of `unfreeze` says that takes it.

    Args:
      config: one of OPTIMIZERS' classes.
      params: a tree of arrays or ShapeDtypeStructs.
      to_steps: a duration in steps.
    """
    given = [(pattern, to_steps(duration)) for pattern, duration in config.unfreeze]
    return {
        path: next((step for pattern, step in given if all(layers_taken((pattern,), path, leaf.shape))), 0)
        for path, leaf in leaves_by_path(params).items()
    }


def held(first: Mapping[str, int]) -> optax.GradientTransformation:
    """Makes gradients zero until the first steps."""

    def update(updates: Tree, count: jax.Array, params: Tree | None = None) -> tuple[Tree, jax.Array]:
        def one(key_path: Any, gradient: jax.Array) -> jax.Array:
            step = first[path_of(key_path)]
            return jnp.where(count >= step, gradient, jnp.zeros_like(gradient)) if step else gradient

        return jax.tree_util.tree_map_with_path(one, updates), count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def begun(transformation: optax.GradientTransformation, step: int) -> optax.GradientTransformationExtraArgs:
    """A transformation whose updates are zero, and whose state stands still, until `step` updates have been."""
    inner = optax.with_extra_args_support(transformation)

    def update(
        updates: Tree, state: Waiting, params: Tree | None = None, **extra: Any
    ) -> tuple[Tree, Waiting]:
        now = state.done >= step
        moved, after = inner.update(updates, state.inner, params, **extra)
        moved = jax.tree.map(lambda x: jnp.where(now, x, jnp.zeros_like(x)), moved)
        after = jax.tree.map(lambda new, old: jnp.where(now, new, old), after, state.inner)
        return moved, Waiting(state.done + 1, after)

    return optax.GradientTransformationExtraArgs(
        lambda params: Waiting(jnp.zeros((), jnp.int32), inner.init(params)), update
    )


def unfreezing_problems(config: Any, params: Tree, total_steps: int, to_steps: ToSteps) -> Iterator[str]:
    """Yields a line for every time of `unfreeze` that does not fit the training.

    Args:
      config: one of OPTIMIZERS' classes.
      params: a tree of arrays or ShapeDtypeStructs.
      total_steps: the length of the training.
      to_steps: a duration in steps.
    """
    for pattern, duration in config.unfreeze:
        if (step := to_steps(duration)) >= total_steps:
            when = f"{pattern!r} after {duration} is step {step} of {total_steps}, so it never moves"
            yield f"unfreeze: {when}; freeze it, or give an earlier time"
    if config.unfreeze:
        first = first_steps(config, params, to_steps)
        trained = leaves_by_path(trainable_mask(config, params))
        waits = [first[path] for path, trains in trained.items() if trains]
        if waits and min(waits) > 0:
            yield f"unfreeze: takes every parameter, nothing would move before step {min(waits)}; leave the head out"
