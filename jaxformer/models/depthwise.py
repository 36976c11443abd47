"""Depthwise convolutions for CPUs: every channel has a kernel of its own.

XLA's own took 5 to 20 times as long there, forwards and backwards, for kernels of 3x3 and 7x7.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_by_shifts(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves each channel with its kernel, as a sum of shifted products, added up in float32.

    Args:
      x: [B, H, W, C], padded.
      kernel: [h, w, C].
      stride: of both directions.

    Returns:
      [B, (H - h) // stride + 1, (W - w) // stride + 1, C] in the dtype of `x`.
    """
    return shifted_products(x, kernel, stride)


@partial(jax.jit, static_argnums=2)
def shifted_products(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """What `depthwise_by_shifts` gives; under jit for its name, by which `flops.py` counts it as a convolution."""
    (height, width), (h, w, channels) = result_size(x, kernel, stride), kernel.shape
    x32, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    y = jnp.zeros((x.shape[0], height, width, channels), jnp.float32)
    for i in range(h):
        for j in range(w):
            seen = x32[
                :, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride
            ]
            y = y + seen * jnp.broadcast_to(kernel[i, j], y.shape)
    return y.astype(x.dtype)


def depthwise_forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, Any]:
    """The result, and what the backward pass needs."""
    return shifted_products(x, kernel, stride), (x, kernel)


def depthwise_backward(stride: int, saved: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gradients of x and kernel from the result's."""
    x, kernel = saved
    (height, width), (h, w, _) = result_size(x, kernel, stride), kernel.shape
    # Of x: the gradients, apart by the stride, under the kernel turned round.
    zero = jnp.zeros((), gradient.dtype)
    rest = [x.shape[1] - (height - 1) * stride - 1, x.shape[2] - (width - 1) * stride - 1]
    spread = ((0, 0, 0), (h - 1, rest[0], stride - 1), (w - 1, rest[1], stride - 1), (0, 0, 0))
    of_x = shifted_products(jax.lax.pad(gradient, zero, spread), kernel[::-1, ::-1], 1)
    return of_x.astype(x.dtype), of_kernel(x, gradient, kernel.shape, stride).astype(kernel.dtype)


def of_kernel(x: jax.Array, gradient: jax.Array, shape: tuple[int, ...], stride: int) -> jax.Array:
    """The kernel's gradient [h, w, C], float32: row by row, so that what is read h w times stays in the cache."""
    h, w, _ = shape
    _, height, width, _ = gradient.shape

    def with_row(row: jax.Array, total: jax.Array) -> jax.Array:
        of_row = jax.lax.dynamic_slice_in_dim(gradient, row, 1, 1).astype(jnp.float32)  # [B, 1, width, C]
        seen = jax.lax.dynamic_slice_in_dim(x, row * stride, h, 1).astype(jnp.float32)  # [B, h, W, C]
        columns = []
        for j in range(w):
            here = seen[:, :, j : j + (width - 1) * stride + 1 : stride]  # [B, h, width, C]
            columns.append(jnp.sum(here * jnp.broadcast_to(of_row, here.shape), axis=(0, 2)))
        return total + jnp.stack(columns, 1)

    return jax.lax.fori_loop(0, height, with_row, jnp.zeros(shape, jnp.float32))


def result_size(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[int, int]:
    """Height and width of the result."""
    return (x.shape[1] - kernel.shape[0]) // stride + 1, (x.shape[2] - kernel.shape[1]) // stride + 1


depthwise_by_shifts.defvjp(depthwise_forward, depthwise_backward)
