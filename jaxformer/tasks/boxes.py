"""Boxes: their two forms, how far they overlap, and what it costs to take one for another.

Boxes are float [..., 4]: "cxcywh" is centre, width and height, "xyxy" the corners with the least and the greatest
coordinates. Areas of zero are legal everywhere, and give neither a NaN nor an infinite gradient.
"""

import jax
import jax.numpy as jnp


def to_xyxy(boxes: jax.Array) -> jax.Array:
    """Corners [..., 4] of boxes in cxcywh."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def to_cxcywh(boxes: jax.Array) -> jax.Array:
    """Centre, width and height [..., 4] of boxes in xyxy."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def area(boxes: jax.Array) -> jax.Array:
    """The area [...] of boxes in xyxy; 0 where corners are the wrong way round."""
    return jnp.prod(jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)


def iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Intersection over union [...] of boxes in xyxy, one by one; 0 where both have no area."""
    shared, union = overlap(a, b)
    return ratio(shared, union)


def giou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Generalised IoU [...] of boxes in xyxy, one by one (Rezatofighi et al. 2019, algorithm 1): from -1 to 1.

    It is IoU less the share of the smallest box around both that is in neither. Where that box has no area the share
    is 0.
    """
    shared, union = overlap(a, b)
    low = jnp.minimum(a[..., :2], b[..., :2])
    high = jnp.maximum(a[..., 2:], b[..., 2:])
    hull = area(jnp.concatenate([low, high], axis=-1))
    return ratio(shared, union) - ratio(hull - union, hull)


def pairwise_iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """IoU [..., Q, N] of every box of a [..., Q, 4] with every one of b [..., N, 4]; both in xyxy."""
    return iou(*pairs(a, b))


def pairwise_giou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Generalised IoU [..., Q, N] of every box of a [..., Q, 4] with every one of b [..., N, 4]; both in xyxy."""
    return giou(*pairs(a, b))


def matching_costs(
    logits: jax.Array,
    boxes: jax.Array,
    target_labels: jax.Array,
    target_boxes: jax.Array,
    *,
    class_cost: float = 1.0,
    l1_cost: float = 5.0,
    giou_cost: float = 2.0,
) -> jax.Array:
    """What it costs to take each prediction for each target (Carion et al. 2020, DETR, section 3.1 and appendix A.4).

    Args:
      logits: of classes, "no object" among them, [B, Q, K + 1].
      boxes: predicted ones in cxcywh, [B, Q, 4].
      target_labels: int32 [B, N] in 0..K - 1; what is negative is padding, and its costs mean nothing.
      target_boxes: in cxcywh, [B, N, 4].
      class_cost: of the probability of the target's class, which is taken off.
      l1_cost: of the sum of the four coordinates' distances.
      giou_cost: of generalised IoU, which is taken off.

    Returns:
      float32 [B, Q, N].
    """
    probabilities = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    # As a product with ones: exact, and quicker than a lookup.
    one_hot = jax.nn.one_hot(target_labels, logits.shape[-1], dtype=jnp.float32)  # [B, N, K + 1]
    of_class = jnp.einsum("bqk,bnk->bqn", probabilities, one_hot, precision="highest")
    boxes, target_boxes = boxes.astype(jnp.float32), target_boxes.astype(jnp.float32)
    distance = jnp.sum(jnp.abs(jnp.subtract(*pairs(boxes, target_boxes))), axis=-1)
    overlapping = pairwise_giou(to_xyxy(boxes), to_xyxy(target_boxes))
    return l1_cost * distance - class_cost * of_class - giou_cost * overlapping


def overlap(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Areas [...] of intersection and union of boxes in xyxy."""
    low = jnp.maximum(a[..., :2], b[..., :2])
    high = jnp.minimum(a[..., 2:], b[..., 2:])
    shared = area(jnp.concatenate([low, high], axis=-1))
    return shared, area(a) + area(b) - shared


def ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """part / whole; 0, with a gradient of 0, where the whole is 0 (or so small that the gradient would overflow)."""
    some = whole > 1e-18
    return jnp.where(some, part / jnp.where(some, whole, 1), 0)


def pairs(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Every box of a [..., Q, 4] beside every one of b [..., N, 4]: both as [..., Q, N, 4]."""
    shape = (*a.shape[:-1], b.shape[-2], 4)
    return jnp.broadcast_to(a[..., :, None, :], shape), jnp.broadcast_to(b[..., None, :, :], shape)
