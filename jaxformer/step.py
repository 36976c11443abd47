"""THE train step: one for every model and task, on one device or on hundreds.

    state, metrics = train_step(state, batch)

It is a pure function. The same function runs under `jax.jit`, where the batch is one array over all devices
and XLA adds over them, and under `jax.pmap`, where each device holds its rows and `psum` adds over `axis`.
Losses are sums, divided once by a count that is taken over the whole batch first: neither accumulating over
microbatches nor unequal padding on devices changes the gradient. Where a task compares examples with each other, its
rows are this device's, and what they are compared with is the whole batch: see `accumulation.cached_gradients`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxformer.accumulation import accumulated_gradients, cached_gradients
from jaxformer.state import TrainState, all_finite
from jaxformer.tasks.base import Task

Tree = Any
Batch = Mapping[str, Any]
Scalars = dict[str, jax.Array]
Average = Callable[[Tree, Tree, Tree, jax.Array], Tree]
Teacher = Callable[[Tree, Batch], dict[str, jax.Array]]


def make_train_step(
    model: nn.Module,
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    seed: int | jax.Array,
    accumulate: int = 1,
    average: Average | None = None,
    trainable: Tree | None = None,
    applied: Callable[[Tree], Tree] | None = None,
    regularization: Callable[[Tree], Scalars] | None = None,
    schedule: optax.Schedule | None = None,
    teacher: Teacher | None = None,
    axis: str | None = None,
) -> Callable[..., tuple[TrainState, Scalars]]:
    """Builds the train step.

    Args:
      model: a linen module.
      task: losses and metrics; see `tasks/base.py`.
      optimizer: an optax transformation, clipping included.
      seed: augmentation and dropout are functions of (seed, step); an integer, or a traced uint32 [].
      accumulate: how many microbatches a batch is split into; must divide the rows on each device.
      average: (average so far, optimizer state, parameters, updates before this one) -> the averaged parameters;
        None for no average.
      trainable: a tree like the parameters of bools; those with False stay the same, bit for bit. None: all train.
      applied: parameters -> those that the model is applied with (`optim/lora.py`); None: the same.
      regularization: parameters -> losses that depend on them alone.
      schedule: only for the metric `learning_rate`.
      teacher: (its variables, augmented batch) -> arrays that the batch gets for the task's loss.
      axis: the name of pmap's axis; None under jit.

    Returns:
      (state, batch) -> (state, metrics); with a teacher (state, batch, its variables). Batch arrays are [B, ...];
      an update whose loss, gradient or statistics (BatchNorm's) are not finite is skipped: only counters move;
      metrics are float32 scalars, the same on all devices: "loss", its parts where there are several, the task's
      metrics, the global norms `gradient_norm`, `parameter_norm` and `update_norm`, `skipped` and
      `skipped_in_a_row`.
    """
    part = partial(trained_part, trainable=trainable)

    def over_devices(tree: Tree) -> Tree:
        return tree if axis is None else jax.lax.psum(tree, axis)

    def train_step(
        state: TrainState, batch: Batch, teacher_variables: Tree = None
    ) -> tuple[TrainState, Scalars]:
        augment_key, model_key = step_keys(seed, state.step, axis)
        with jax.named_scope("augmentation"):
            batch = task.augment(augment_key, batch)
        counts = jax.tree.map(lambda count: jnp.maximum(count, 1.0), over_devices(task.counts(batch)))
        scale = 1.0 if state.loss_scale is None else state.loss_scale.scale
        trained = part(state.params)

        forward, loss_from = halves_of_loss(model, task, state, counts, applied, axis)

        def loss_of(
            trained: Tree, model_state: Tree, microbatch: Batch, key: jax.Array
        ) -> tuple[jax.Array, Tree]:
            if teacher is not None:
                microbatch = {**microbatch, **jax.lax.stop_gradient(teacher(teacher_variables, microbatch))}
            outputs, model_state = forward(trained, model_state, microbatch, key)
            loss, sums = loss_from(outputs, microbatch)
            return loss, (model_state, sums)

        pieces = trained, state.model_state, batch, model_key, accumulate
        if task.compares and accumulate > 1:
            gradients, model_state, sums = cached_gradients(forward, loss_from, *pieces)
        else:
            gradients, model_state, sums = accumulated_gradients(loss_of, *pieces)
        gradients, (losses, pairs) = over_devices((gradients, sums))
        gradients = jax.tree.map(lambda g: g / scale, gradients)
        if regularization is not None:
            penalty, of_penalty = jax.grad(
                lambda p: with_sum(regularization(with_frozen(p, state.params))), has_aux=True
            )(trained)
            gradients = jax.tree.map(jnp.add, gradients, penalty)
            losses = {**losses, **of_penalty}

        gradient_norm = optax.tree.norm(gradients)
        total = sum(losses.values(), jnp.float32(0))
        finite = jnp.isfinite(gradient_norm) & all_finite((total, model_state))
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(
                with_zeros(gradients, state.params),
                state.opt_state,
                state.params,
                obj_fn=lambda params: loss_of(part(params), state.model_state, batch, model_key)[0] / scale,
            )
        params = with_frozen(part(optax.apply_updates(state.params, updates)), state.params)
        count = state.step - state.skipped
        averaged = None
        if average is not None:
            averaged = with_frozen(part(average(state.average, opt_state, params, count)), state.average)

        if_finite = partial(chosen, finite)
        new_state = TrainState(
            step=state.step + 1,
            params=if_finite(params, state.params),
            model_state=if_finite(model_state, state.model_state),
            opt_state=if_finite(opt_state, state.opt_state),
            average=if_finite(averaged, state.average),
            loss_scale=None if state.loss_scale is None else state.loss_scale.adjust(finite),
            skipped=state.skipped + ~finite,
            skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
        )
        metrics = {
            "loss": total,
            **(losses if len(losses) > 1 else {}),
            **{name: total / jnp.maximum(count, 1) for name, (total, count) in pairs.items()},
            "gradient_norm": gradient_norm,
            **changes(trained, part(new_state.params), new_state),
        }
        if schedule is not None:
            metrics["learning_rate"] = schedule(count)
        return new_state, {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}

    return train_step


def halves_of_loss(
    model: nn.Module,
    task: Task,
    state: TrainState,
    counts: Scalars,
    applied: Callable[[Tree], Tree] | None,
    axis: str | None,
) -> tuple[Callable[..., tuple[Any, Tree]], Callable[[Any, Batch], tuple[jax.Array, Tree]]]:
    """What gives a microbatch's outputs, and what makes its loss of them.

    Args:
      counts: what the sum of each loss is divided by, of the whole batch.

    Returns:
      (trained parameters, model state, microbatch, key) -> (outputs, model state), and
      (outputs, microbatch) -> (loss, times the loss scale, (losses, metrics)).
    """
    scale = 1.0 if state.loss_scale is None else state.loss_scale.scale

    def forward(trained: Tree, model_state: Tree, microbatch: Batch, key: jax.Array) -> tuple[Any, Tree]:
        params = with_frozen(trained, state.params)
        variables = {"params": params if applied is None else applied(params), **model_state}
        inputs: dict[str, Any] = {**task.inputs(microbatch), "deterministic": False}
        return model.apply(variables, rngs={"dropout": key}, mutable=list(model_state), **inputs)

    def loss_from(outputs: Any, microbatch: Batch) -> tuple[jax.Array, Tree]:
        outputs = over_all(task, outputs, axis)
        with jax.named_scope("loss"):
            losses = {name: total / counts[name] for name, total in task.loss(outputs, microbatch).items()}
            total = sum(losses.values(), jnp.float32(0))
        with jax.named_scope("metrics"):
            return scale * total, (losses, task.metrics(outputs, microbatch))

    return forward, loss_from


def step_keys(seed: int | jax.Array, step: jax.Array, axis: str | None) -> jax.Array:
    """Random keys [2] for augmentation and for the model; under pmap each device has its own."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    if axis is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis))
    return jax.random.split(key)


def over_all(task: Task, outputs: Any, axis: str | None) -> Any:
    """A model's outputs, told over which devices the rows lie that the task compares them with."""
    return outputs.replace(axis=axis) if task.compares else outputs


def chosen(which: jax.Array, new: Tree, old: Tree) -> Tree:
    """`new` where bool [] is True, else `old`; leaves that are the same in both stay as they are."""
    # A conditional would copy less, but its collectives hang now and then on several CPU devices.
    return jax.tree.map(lambda n, o: o if n is o else jnp.where(which, n, o), new, old)


def changes(before: Tree, after: Tree, state: TrainState) -> Scalars:
    """Metrics of what an update did, given the trained parameters before and after it, and the state after it."""
    # By the parameters and not by the updates, so that no pass but the optimizer's reads or writes either.
    moved = jax.tree.map(jnp.subtract, after, before)
    return {
        "parameter_norm": optax.tree.norm(state.params),
        "update_norm": optax.tree.norm(moved),
        "skipped": state.skipped,
        "skipped_in_a_row": state.skipped_in_a_row,
        **({} if state.loss_scale is None else {"loss_scale": state.loss_scale.scale}),
    }


def make_eval_step(
    model: nn.Module, task: Task, *, axis: str | None = None
) -> Callable[[Tree, Batch], tuple[Tree, dict[str, jax.Array]]]:
    """Builds the eval step: (variables, batch) -> (sums, collected).

    Sums are the task's over the whole batch, padding left out. What it collects has a row for
    every example of the whole batch [B, ...], padding included, and comes with "example_mask".
    Both are the same on all devices, so that every process can read them.
    """

    def eval_step(variables: Tree, batch: Batch) -> tuple[Tree, dict[str, jax.Array]]:
        inputs: dict[str, Any] = {**task.inputs(batch), "deterministic": True}
        outputs = over_all(task, model.apply(variables, **inputs), axis)
        sums, collected = task.eval_sums(outputs, batch), task.collect(outputs, batch, model, variables)
        collected = {**collected, "example_mask": batch["example_mask"]}
        if axis is None:
            return sums, collected
        return jax.lax.psum(sums, axis), jax.lax.all_gather(collected, axis, tiled=True)

    return eval_step


def moving_average(decay: Any, warmup: bool = True) -> Average:
    """The exponential moving average of the parameters (Polyak and Juditsky 1992): keeps `decay` a step.

    With `warmup` update t (from 0) keeps at most (1 + t) / (10 + t), as TensorFlow's ExponentialMovingAverage does with
    `num_updates`: the average follows a short training instead of staying near the initial parameters.
    """

    def average(averaged: Tree, opt_state: Tree, params: Tree, count: jax.Array) -> Tree:
        moved = jnp.maximum(1 - decay, 9 / (10 + count)) if warmup else 1 - decay
        found = optax.incremental_update(params, averaged, moved)
        return jax.tree.map(lambda new, old: new.astype(old.dtype), found, averaged)

    return average


def trained_part(params: Tree, trainable: Tree | None) -> Tree:
    """`params`, with None in the place of each leaf that is not trainable: what gradients are taken with respect to."""
    if trainable is None:
        return params
    return jax.tree.map(lambda p, t: p if t else None, params, trainable)


def with_frozen(trained: Tree, params: Tree) -> Tree:
    """What `trained_part` gave, with the leaves of `params` in the place of None."""
    return jax.tree.map(lambda t, p: p if t is None else t, trained, params, is_leaf=is_none)


def with_zeros(trained: Tree, params: Tree) -> Tree:
    """What `trained_part` gave, with zeros in the place of None, like the leaves of `params`."""
    return jax.tree.map(lambda t, p: jnp.zeros_like(p) if t is None else t, trained, params, is_leaf=is_none)


def is_none(leaf: Any) -> bool:
    """Whether a leaf stands for a frozen parameter."""
    return leaf is None


def with_sum(losses: Scalars) -> tuple[jax.Array, Scalars]:
    """The sum of some losses, beside them."""
    return sum(losses.values(), jnp.float32(0)), losses
