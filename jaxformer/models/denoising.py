"""Denoising queries: true boxes, moved a little, which a decoder learns to put right (Li et al. 2022, DN-DETR).

They are contrastive (Zhang et al. 2023, DINO, section 3.3): of every object there is one query near its box, which is
to find it, and another one farther off, which is to say that there is nothing.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

SMALLEST = 1e-3  # least side of a noised box, as a share of the image


@struct.dataclass
class Noised:
    """Noised objects; T = 2 N groups: group by group, first the near ones, then the far ones."""

    boxes: Array
    """Float32 [B, T, 4] in cxcywh."""
    labels: Array
    """Int32 [B, T], some of them wrong; -1 where there is no object."""
    group: Array
    """Int32 [T], the group of each."""


def noised(
    key: Array, boxes: Array, labels: Array, classes: int, groups: int, box_noise: float, label_noise: float
) -> Noised:
    """Draws noised objects.

    Args:
      key: a random key.
      boxes: float32 [B, N, 4] in cxcywh.
      labels: int32 [B, N], -1 where there is no object.
      classes: K.
      groups: how often each object is taken.
      box_noise: by how much each edge of a near box moves at most, as a share of half its side. Those of a far one
        move by 1 to 2 times as much. DINO's lambda: 1.
      label_noise: the share of labels that are drawn anew (DINO: 0.5 of which half are taken).
    """
    batch, objects = labels.shape
    keys = jax.random.split(key, 4)
    shape, total = (batch, groups, 2, objects), groups * 2 * objects
    half = boxes[..., 2:] / 2
    corners = jnp.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)[:, None, None]
    amount = jax.random.uniform(keys[0], (*shape, 4))
    far = jnp.arange(2, dtype=jnp.float32)[None, None, :, None, None]
    sign = jnp.where(jax.random.bernoulli(keys[1], 0.5, (*shape, 4)), 1.0, -1.0)
    moved = (amount + far) * sign * box_noise
    corners = jnp.clip(corners + moved * jnp.tile(half, (1, 1, 2))[:, None, None], 0, 1)
    pairs = jnp.split(corners, 2, axis=-1)
    low, high = jnp.minimum(*pairs), jnp.maximum(*pairs)
    made = jnp.concatenate([(low + high) / 2, jnp.maximum(high - low, SMALLEST)], axis=-1)
    own = jnp.broadcast_to(labels[:, None, None], shape)
    drawn = jax.random.randint(keys[2], shape, 0, classes)
    wrong = jax.random.bernoulli(keys[3], label_noise, shape) & (own >= 0)
    chosen = jnp.where(wrong, drawn, own).reshape(batch, total)
    return Noised(made.reshape(batch, total, 4), chosen, jnp.arange(total, dtype=jnp.int32) // (2 * objects))


def seen_by(noise: Noised, queries: int) -> Array:
    """Which queries see which in self-attention, bool [B, 1, T + Q, T + Q]; the noised ones are in front.

    Noised ones see their own group and the queries; the queries see none of the noised ones, which hold the answers.
    Where there is no object nothing is to be seen.
    """
    group = jnp.concatenate([noise.group, jnp.full(queries, -1, jnp.int32)])
    there = jnp.pad(noise.labels >= 0, [(0, 0), (0, queries)], constant_values=True)
    allowed = (group < 0)[None, :] | (group[:, None] == group[None, :])
    return allowed[None, None] & there[:, None, None, :]
