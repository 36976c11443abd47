"""Denoising queries: true boxes, moved a little, which a decoder learns to put right (Li et al. 2022, DN-DETR).

They are contrastive (Zhang et al. 2023, DINO, section 3.3): of every object there is one query near its box, which is
to find it, and another one farther off, which is to say that there is nothing.
"""

import jax
import jax.numpy as jnp
from flax import struct

SMALLEST = 1e-3  # of a noised box's sides, as a share of the picture


@struct.dataclass
class Noised:
    """Noised objects; T = 2 N groups: group by group, first the near ones, then the far ones."""

    boxes: jax.Array
    """Float32 [B, T, 4] in cxcywh."""
    labels: jax.Array
    """Int32 [B, T], some of them wrong; -1 where there is no object."""
    group: jax.Array
    """Int32 [T]."""


def noised(
    key: jax.Array,
    boxes: jax.Array,
    labels: jax.Array,
    num_classes: int,
    groups: int,
    box_noise: float = 1.0,
    label_noise: float = 0.25,
) -> Noised:
    """Draws noised objects.

    Args:
      key: of randomness.
      boxes: float32 [B, N, 4] in cxcywh.
      labels: int32 [B, N], -1 where there is no object.
      num_classes: K.
      groups: how often each object is taken.
      box_noise: by how much each edge of a near box moves at most, as a share of half its side. Those of a far one
        move by 1 to 2 times as much. DINO's lambda: 1.
      label_noise: the share of labels that are drawn anew (DINO: 0.5 of which half are taken).

    Returns:
      What the decoder gets.
    """
    batch, objects = labels.shape
    keys = jax.random.split(key, 4)
    shape = (batch, groups, 2, objects)
    half = boxes[:, None, None, :, 2:] / 2
    corners = jnp.concatenate(
        [boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], axis=-1
    )
    amount = jax.random.uniform(keys[0], (*shape, 4))
    far = jnp.arange(2, dtype=jnp.float32)[None, None, :, None, None]
    sign = jnp.where(jax.random.bernoulli(keys[1], 0.5, (*shape, 4)), 1.0, -1.0)
    moved = (amount + far) * sign * box_noise
    corners = corners[:, None, None] + moved * jnp.concatenate([half, half], axis=-1)
    corners = jnp.clip(corners, 0, 1)
    low, high = (
        jnp.minimum(corners[..., :2], corners[..., 2:]),
        jnp.maximum(corners[..., :2], corners[..., 2:]),
    )
    made = jnp.concatenate([(low + high) / 2, jnp.maximum(high - low, SMALLEST)], axis=-1)
    own = jnp.broadcast_to(labels[:, None, None], shape)
    drawn = jax.random.randint(keys[2], shape, 0, num_classes)
    wrong = jax.random.bernoulli(keys[3], label_noise, shape) & (own >= 0)
    total = groups * 2 * objects
    return Noised(
        made.reshape(batch, total, 4),
        jnp.where(wrong, drawn, own).reshape(batch, total),
        jnp.arange(total, dtype=jnp.int32) // (2 * objects),
    )


def seen_by(noise: Noised, queries: int) -> jax.Array:
    """Which queries see which in self-attention, bool [B, 1, T + Q, T + Q]; the noised ones are in front.

    Noised ones see their own group and the queries; the queries see none of the noised ones, which hold the answers.
    Where there is no object nothing is to be seen.
    """
    batch = len(noise.labels)
    group = jnp.concatenate([noise.group, jnp.full(queries, -1, jnp.int32)])
    there = jnp.concatenate([noise.labels >= 0, jnp.ones((batch, queries), bool)], axis=1)
    is_query = group < 0
    allowed = is_query[None, :] | (group[:, None] == group[None, :])
    return allowed[None, None] & there[:, None, None, :]
