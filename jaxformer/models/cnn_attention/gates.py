"""What gates of feature maps have in common."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def gated(x: jax.Array, logits: jax.Array) -> jax.Array:
    """`x` [B, H, W, C] times the sigmoids of `logits`, which have one where all places or channels share a gate."""
    gates = nn.sigmoid(logits.astype(jnp.float32)).astype(x.dtype)
    return x * jnp.broadcast_to(gates, x.shape)


def squeezed(x: jax.Array, axis: int | tuple[int, ...], dtype: Any) -> jax.Array:
    """The mean of [B, H, W, C] over some axes, in float32, then in `dtype`; the axes stay, of size 1."""
    return jnp.mean(x, axis=axis, keepdims=True, dtype=jnp.float32).astype(dtype)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def largest(x: jax.Array, axis: int) -> jax.Array:
    """The maximum of `x` over one axis, which stays, of size 1.

    The gradient goes to the place of the maximum. jnp.max's asks which numbers equal it, and where XLA computes `x`
    twice and rounds differently there may be none: 0 / 0.
    """
    return jnp.max(x, axis=axis, keepdims=True)


def largest_forward(x: jax.Array, axis: int) -> tuple[jax.Array, Any]:
    """The result, and what the backward pass needs."""
    place = jnp.argmax(x, axis=axis, keepdims=True)
    places = jax.lax.broadcasted_iota(place.dtype, x.shape, axis)
    return jnp.max(x, axis=axis, keepdims=True), places == jnp.broadcast_to(place, x.shape)


def largest_backward(axis: int, chosen: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    """The gradient of x from the result's."""
    return (jnp.where(chosen, jnp.broadcast_to(gradient, chosen.shape), jnp.zeros((), gradient.dtype)),)


largest.defvjp(largest_forward, largest_backward)
