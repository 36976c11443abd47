"""Max-pooling with a backward pass that is quick on CPUs."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


def max_pool(x: jax.Array) -> jax.Array:
    """The maximum of every 3x3 at a stride of 2, the border padded by one.

    On a CPU XLA's own backward pass takes more than 4 times as long: 740 ms against 160 ms for [64, 32, 32, 128].

    Args:
      x: [B, H, W, C].

    Returns:
      [B, ceil(H / 2), ceil(W / 2), C].
    """
    return pooled(pooled(x, 1), 2)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def pooled(x: jax.Array, axis: int) -> jax.Array:
    """The maximum of every three neighbours along one axis at a stride of 2; at the ends there are two."""
    return pooled_forward(x, axis)[0]


def pooled_forward(x: jax.Array, axis: int) -> tuple[jax.Array, Any]:
    """The result, and which of the three it is: 0, 1 or 2, the first of equals."""
    lowest = -jnp.inf
    at = jax.lax.slice_in_dim(x, 0, None, 2, axis)
    after = jax.lax.slice_in_dim(x, 1, None, 2, axis)
    after = padded(after, axis, 0, at.shape[axis] - after.shape[axis], lowest)
    before = padded(jax.lax.slice_in_dim(after, 0, -1, 1, axis), axis, 1, 0, lowest)
    best = jnp.maximum(jnp.maximum(before, at), after)
    # By order, not by equality with the best: XLA may compute x twice, by instructions that round differently.
    which = jnp.where(before >= jnp.maximum(at, after), 0, jnp.where(at >= after, 1, 2)).astype(jnp.uint8)
    return best, (which, jnp.zeros((x.shape[axis], 0), x.dtype))


def pooled_backward(axis: int, saved: Any, gradient: jax.Array) -> tuple[jax.Array]:
    """The gradient of x: each result's goes to the one neighbour that it is."""
    which, length = saved[0], len(saved[1])
    zero = jnp.zeros((), gradient.dtype)
    of_before, of_at, of_after = (jnp.where(which == n, gradient, zero) for n in range(3))
    of_after = of_after + padded(jax.lax.slice_in_dim(of_before, 1, None, 1, axis), axis, 0, 1, 0)
    both = jnp.stack([of_at, of_after], axis + 1)
    both = both.reshape(*gradient.shape[:axis], -1, *gradient.shape[axis + 1 :])
    return (jax.lax.slice_in_dim(both, 0, length, 1, axis),)


pooled.defvjp(pooled_forward, pooled_backward)


def padded(x: jax.Array, axis: int, before: int, after: int, value: float) -> jax.Array:
    """`x` with `value` in front of it and behind it along one axis."""
    widths = [(before, after) if i == axis else (0, 0) for i in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=value)
