"""Makes the optax transformation of an optimizer, and finds rules that do not fit the model's parameters."""

import dataclasses
import difflib
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxformer.optim.base import Optimizer, by_layer, is_masked
from jaxformer.optim.masks import EMBEDDINGS, layer_indices, multipliers, trainable_mask
from jaxformer.optim.schedule import ToSteps
from jaxformer.optim.unfreezing import begun, first_steps, held, unfreezing_problems
from jaxformer.paths import kernel_axes, layer_paths, layers_taken, leaves_by_path, matches, path_of

Tree = Any


def make_optimizer(
    config: Optimizer, schedule: optax.Schedule, params: Tree, to_steps: ToSteps | None = None
) -> optax.GradientTransformationExtraArgs:
    """The transformation from gradients to updates: clipping, then the optimizer, by the config's rules.

    Frozen parameters are not clipped with the others, have no state, and get updates of zero.

    Args:
      config: the optimizer, without `optimizer_problems`.
      schedule: learning rate by step.
      params: a tree of arrays or ShapeDtypeStructs.
      to_steps: a duration in steps; None: all that is trained moves from the first step on, whatever `unfreeze` says.

    Returns:
      `init(params)` and `update(gradients, state, params, obj_fn=loss)`. Only an optimizer that
      `needs_whole_batch` calls `obj_fn`, which takes a tree like `params` and returns a scalar: the loss of the
      batch that the gradients are of.
    """
    by_path = multiply(multipliers(config, params))
    first = {} if to_steps is None else first_steps(config, params, to_steps)
    if any(first.values()):
        transformation = optax.chain(
            held(first), clipping(config), gradually(config, schedule, by_path, first)
        )
    else:
        transformation = optax.chain(clipping(config), config.transformation(schedule, by_path))
    labels = jax.tree.map(lambda t: "train" if t else "freeze", trainable_mask(config, params))
    parts = optax.partition({"train": transformation, "freeze": optax.set_to_zero()}, labels)

    def update(
        updates: Tree, state: Tree, params: Tree | None = None, *, obj_fn: Any = None
    ) -> tuple[Tree, Tree]:
        extra = {} if obj_fn is None else {"obj_fn": lambda trained: obj_fn(filled(trained, params))}
        return parts.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(parts.init, update)


def gradually(
    config: Optimizer, schedule: optax.Schedule, by_path: optax.GradientTransformation, first: dict[str, int]
) -> optax.GradientTransformation:
    """The optimizer, for each group of parameters that begin together; `first`: path -> updates before its first."""

    def labels(tree: Tree) -> Tree:
        return jax.tree_util.tree_map_with_path(lambda key_path, leaf: first[path_of(key_path)], tree)

    def group(step: int) -> optax.GradientTransformation:
        return begun(config.transformation(lambda count: schedule(count + step), by_path), step)

    return optax.partition({step: group(step) for step in sorted({*first.values()})}, labels)


def filled(partial: Tree, full: Tree) -> Tree:
    """`partial`, with leaves of `full` where optax has masked them away."""
    return jax.tree.map(lambda p, f: f if is_masked(p) else p, partial, full, is_leaf=is_masked)


def multiply(factors: dict[str, Any]) -> optax.GradientTransformation:
    """Multiplies each update by its factor (path -> scalar, or [L, 1, ...] for a stack)."""
    if all(isinstance(factor, np.ndarray) and np.all(factor == 1) for factor in factors.values()):
        return optax.identity()

    def scaled(key_path: Any, update: jax.Array) -> jax.Array:
        return update * jnp.asarray(factors[path_of(key_path)], update.dtype)

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scaled, updates))


def clipping(config: Optimizer) -> optax.GradientTransformation:
    """Clips entries, then the global norm, then units, each if the config says so."""
    parts = [optax.identity()]
    if config.clip_value is not None:
        parts.append(optax.clip(config.clip_value))
    if config.clip_norm is not None:
        parts.append(clip_norm(config.clip_norm))
    if (ratio := config.agc) is not None:
        parts.append(by_layer(lambda path, rank: clip_units(ratio, path, rank)))
    return optax.chain(*parts)


def clip_norm(limit: Any) -> optax.GradientTransformation:
    """Scales gradients whose global norm is larger than `limit`, by one factor (optax: number by number)."""

    def clipped(updates: Tree, params: Tree | None) -> Tree:
        norm = optax.tree.norm(updates)
        factor = jnp.where(norm < limit, 1.0, limit / norm)
        return jax.tree.map(lambda update: update * factor.astype(update.dtype), updates)

    return optax.stateless(clipped)


def clip_units(ratio: float, path: str, rank: int) -> optax.GradientTransformation:
    """Adaptive gradient clipping by the units that a parameter has.

    A kernel's units are its outputs, a token's or position table's its rows; a vector is one unit. (optax
    guesses from the rank: it takes a stack of dense kernels for attention, and [H, Dh, D] for [D, H, Dh].)
    """
    if matches("head", path):
        return optax.identity()
    axes = kernel_axes(path, rank)
    if axes is not None:
        return optax.adaptive_grad_clip(ratio, axis=axes[0])
    if any(matches(pattern, path) for pattern in EMBEDDINGS):
        return optax.adaptive_grad_clip(ratio, axis=-1)
    return optax.adaptive_grad_clip(ratio, axis=tuple(range(rank)))


def rule_problems(config: Optimizer, params: Tree, total_steps: int, to_steps: ToSteps) -> list[str]:
    """A line for every rule of the config that does not fit the model's parameters or, where all do, the training.

    Args:
      config: the optimizer, without problems of its own.
      params: a tree of arrays or ShapeDtypeStructs.
      total_steps: the length of the training.
      to_steps: a duration in steps.
    """
    found = list(optimizer_problems(config, params))
    return found or list(unfreezing_problems(config, params, total_steps, to_steps))


def optimizer_problems(config: Optimizer, params: Tree) -> Iterator[str]:
    """Yields a line for every rule of the config that does not fit the model's parameters.

    Args:
      config: the optimizer, without problems of its own.
      params: a tree of arrays or ShapeDtypeStructs.
    """
    shapes = {path: leaf.shape for path, leaf in leaves_by_path(params).items()}
    paths = {name for path, shape in shapes.items() for name in (path, *layer_paths(path, shape))}
    # Those of a field's default need not take any parameter.
    defaults: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(config)}
    for key, patterns in config.patterns().items():
        for pattern in (p for p in patterns if p not in defaults[key]):
            if not any(any(layers_taken((pattern,), *item)) for item in shapes.items()):
                yield f"{key}: {pattern!r} takes no parameter; {nearest(pattern, paths)}"
    together = {key: config.patterns()[key] for key in ("no_decay", "freeze", "train_only")}
    for key, patterns in (*together.items(), *(("unfreeze", (pattern,)) for pattern, _ in config.unfreeze)):
        taken = {path: layers_taken(patterns, path, shape) for path, shape in shapes.items()}
        partly = [path for path, layers in taken.items() if any(layers) and not all(layers)]
        if partly:
            stack = f"takes some layers of the stack {partly[0]} and leaves others"
            yield f"{key}: {stack}; take all of them, or set model.scan=False"
    if config.freezes and not any(jax.tree.leaves(trainable_mask(config, params))):
        besides = " that train_only leaves" if config.train_only else ""
        yield f"freeze={config.freeze!r}: takes every parameter{besides}, nothing is left to train; freeze less"
    if config.layer_decay is not None and not layer_indices(params)[0]:
        without = "the model has no blocks (encoder/block_0, ...) to go by"
        yield f"layer_decay={config.layer_decay}: {without}; set layer_decay=None"


def nearest(pattern: str, paths: Iterable[str]) -> str:
    """The names most like a pattern that takes nothing."""
    parts = [path.split("/") for path in paths]
    names = {"/".join(names[i:j]) for names in parts for i, j in combinations(range(len(names) + 1), 2)}
    found = difflib.get_close_matches(pattern, sorted(names), n=3, cutoff=0.5)
    tops = sorted({names[0] for names in parts})
    return f"nearest: {', '.join(found)}" if found else f"there are: {', '.join(tops)}"
