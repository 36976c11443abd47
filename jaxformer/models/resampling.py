"""Feature maps at other sizes: max-pooling, halving, means and bilinear interpolation.

The backward passes are written so that they are quick on CPUs, and right where XLA computes a map twice.
"""

from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

PoolName: TypeAlias = Literal["mean", "max"]


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
    at = jax.lax.slice_in_dim(x, 0, None, 2, axis)
    after = jax.lax.slice_in_dim(x, 1, None, 2, axis)
    after = padded(after, axis, 0, at.shape[axis] - after.shape[axis], -jnp.inf)
    before = padded(jax.lax.slice_in_dim(after, 0, -1, 1, axis), axis, 1, 0, -jnp.inf)
    best = jnp.maximum(jnp.maximum(before, at), after)
    # Comparisons would do, but XLA may compute these, and x, anew for each of the three gradients, by instructions that
    # round differently. Of equal neighbours, in flat parts of an image, two or none would then be the best. A reduction
    # it computes once.
    which = jax.lax.argmax(jnp.stack([before, at, after]), 0, jnp.uint8)
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


@jax.custom_vjp
def largest(x: jax.Array) -> jax.Array:
    """The maximum along the first axis; its gradient goes to the first of equals, which is chosen once (see above)."""
    return jnp.max(x, axis=0)


def largest_forward(x: jax.Array) -> tuple[jax.Array, Any]:
    """The result, and an array of as many entries as the first axis has beside which one it is."""
    return largest(x), (jnp.arange(len(x), dtype=jnp.uint8), jax.lax.argmax(x, 0, jnp.uint8))


def largest_backward(saved: Any, gradient: jax.Array) -> tuple[jax.Array]:
    """The gradient of x."""
    numbers, which = saved
    own = numbers.reshape(-1, *(1 for _ in which.shape)) == which[None]
    return (jnp.where(own, gradient[None], jnp.zeros((), gradient.dtype)),)


largest.defvjp(largest_forward, largest_backward)


def padded(x: jax.Array, axis: int, before: int, after: int, value: float) -> jax.Array:
    """`x` with `value` in front of it and behind it along one axis."""
    widths = [(before, after) if i == axis else (0, 0) for i in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=value)


def max_pool_same(x: jax.Array) -> jax.Array:
    """`max_pool`, padded as TensorFlow does: of an even height or width at the end alone."""
    down, right = (1 - n % 2 for n in x.shape[1:3])
    moved = jnp.pad(x, [(0, 0), (down, 0), (right, 0), (0, 0)], constant_values=-jnp.inf)
    return max_pool(moved)[:, down:, right:]


def max_pool_of_zeros(x: jax.Array) -> jax.Array:
    """The maximum of every 3x3 at a stride of 2, the border padded by a zero, and windows from its first place on."""
    height, width = (-(-n // 2) for n in x.shape[1:3])
    bordered = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    moved = jnp.pad(bordered, [(0, 0), (1, 0), (1, 0), (0, 0)], constant_values=-jnp.inf)
    return max_pool(moved)[:, 1 : 1 + height, 1 : 1 + width]


def halved(x: jax.Array, pool: PoolName) -> jax.Array:
    """The mean or the maximum of each 2x2 of [B, H, W, C]: [B, ceil(H / 2), ceil(W / 2), C]; borders repeat."""
    batch, height, width, channels = x.shape
    if height % 2 or width % 2:
        x = jnp.pad(x, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)], mode="edge")
    fours = x.reshape(batch, x.shape[1] // 2, 2, x.shape[2] // 2, 2, channels)
    if pool == "max":
        return largest(jnp.stack([fours[:, :, row, :, column] for row in (0, 1) for column in (0, 1)]))
    return jnp.mean(fours, axis=(2, 4), dtype=jnp.float32).astype(x.dtype)


def mean_of(x: jax.Array) -> jax.Array:
    """The mean, taken in float32, over the places of [B, H, W, C] or the tokens of [B, T, D]: [B, C] or [B, D]."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim - 1)), dtype=jnp.float32).astype(x.dtype)


def interpolation_matrix(old: int, new: int) -> np.ndarray:
    """float32 [new, old]: what each of `new` places takes of `old` ones that cover the same length.

    A place's middle is what counts, and beyond the first and the last middle their values hold: PyTorch's
    F.interpolate(mode="bilinear", align_corners=False). Nothing is averaged where there are fewer new places.
    """
    middles = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    distances = np.abs(middles[:, None] - np.arange(old)[None, :])
    return np.maximum(1 - distances, 0).astype(np.float32)


def resized_maps(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Feature maps [B, h, w, C], interpolated bilinearly to [B, H, W, C] of height and width `size`, in their dtype.

    Along the width first, where the other axis is still short, then along the height, where rows are long.
    """
    batch, height, width, channels = x.shape
    if width != size[1]:
        across = jnp.asarray(interpolation_matrix(width, size[1]), x.dtype)
        across = jnp.broadcast_to(across, (batch * height, *across.shape))
        x = jnp.matmul(across, x.reshape(batch * height, width, channels), precision="highest")
    if height != size[0]:
        down = jnp.asarray(interpolation_matrix(height, size[0]), x.dtype)
        down = jnp.broadcast_to(down, (batch, *down.shape))
        x = jnp.matmul(down, x.reshape(batch, height, size[1] * channels), precision="highest")
    return x.reshape(batch, *size, channels)
