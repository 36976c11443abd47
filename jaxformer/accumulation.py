"""Gradients of a batch that is split into microbatches, because all of it at once does not fit in memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def accumulated_gradients(
    loss_of: Callable, params: Tree, model_state: Tree, batch: Tree, key: jax.Array, accumulate: int
) -> tuple[Tree, Tree, Tree]:
    """Adds gradients and sums over microbatches.

    Args:
      loss_of: (params, model_state, microbatch, key) -> (loss, (model_state, sums)).
      params: what the gradients are taken with respect to.
      accumulate: the number of microbatches.

    Returns:
      (gradients, the model state after the last microbatch, sums).
    """
    gradient = jax.grad(loss_of, has_aux=True)
    if accumulate == 1:
        gradients, (model_state, sums) = gradient(params, model_state, batch, key)
        return gradients, model_state, sums

    def add_microbatch(carry: Tree, scanned: Tree) -> tuple[Tree, None]:
        totals, model_state = carry
        microbatch, key = scanned
        gradients, (model_state, sums) = gradient(params, model_state, microbatch, key)
        return (jax.tree.map(jnp.add, totals, (gradients, sums)), model_state), None

    microbatches, keys = in_parts(batch, accumulate), jax.random.split(key, accumulate)
    first = jax.tree.map(lambda x: x[0], (microbatches, keys))
    shapes = jax.eval_shape(gradient, params, model_state, *first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (shapes[0], shapes[1][1]))
    ((gradients, sums), model_state), _ = jax.lax.scan(
        add_microbatch, (zeros, model_state), (microbatches, keys)
    )
    return gradients, model_state, sums


def cached_gradients(
    forward: Callable,
    loss_from: Callable,
    params: Tree,
    model_state: Tree,
    batch: Tree,
    key: jax.Array,
    accumulate: int,
) -> tuple[Tree, Tree, Tree]:
    """The same for a loss that compares all examples of the batch: cached gradients (Gao et al. 2021, GradCache).

    All microbatches go forward once, and nothing of that is kept but the outputs, which are small. The loss of all of
    them gives its gradient by the outputs. Then each goes forward again, with the same dropout, and backward from that.
    Statistics (BatchNorm's) are of a microbatch, as in `accumulated_gradients`, and the second pass alone moves them.

    Args:
      forward: (params, model_state, microbatch, key) -> (outputs, model_state); every array of outputs has rows.
      loss_from: (outputs, batch) -> (loss, sums).
      params: what the gradients are taken with respect to.
      accumulate: the number of microbatches.

    Returns:
      (gradients, the model state after the last microbatch, sums).
    """
    scanned = in_parts(batch, accumulate), jax.random.split(key, accumulate)
    _, parts = jax.lax.scan(lambda _, each: (None, forward(params, model_state, *each)[0]), None, scanned)
    of_outputs, sums = jax.grad(loss_from, has_aux=True)(joined(parts), batch)

    share = jax.tree.map(lambda x: x / accumulate, sums)

    def add_microbatch(carry: Tree, each: Tree) -> tuple[Tree, None]:
        totals, model_state = carry
        inputs, of_outputs = each
        _, backward, model_state = jax.vjp(
            lambda params: forward(params, model_state, *inputs), params, has_aux=True
        )
        return (jax.tree.map(jnp.add, totals, (*backward(of_outputs), share)), model_state), None

    # The sums are added up here, too, so that what made them is done before: on several CPU devices collectives in a
    # loop hang now and then where others do not wait for it.
    start = jax.tree.map(jnp.zeros_like, (params, sums)), model_state
    parts = scanned, in_parts(of_outputs, accumulate)
    ((gradients, sums), model_state), _ = jax.lax.scan(add_microbatch, start, parts)
    return gradients, model_state, sums


def in_parts(batch: Tree, count: int) -> Tree:
    """Arrays [B, ...] as [count, B / count, ...]. Part i has the rows i, i + count, ..., so that the rows of
    a batch that is sharded over devices stay where they are."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1), batch)


def joined(parts: Tree) -> Tree:
    """The opposite of `in_parts`."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), parts)
