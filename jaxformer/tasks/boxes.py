"""Boxes: their two forms, their overlap, and the costs of assigning predicted boxes to targets.

Boxes are float [..., 4]: "cxcywh" is centre, width and height, "xyxy" the corners with the least and the greatest
coordinates. Areas of zero are legal everywhere, and give neither a NaN nor an infinite gradient.
"""

import jax
import jax.numpy as jnp


def to_xyxy(boxes: jax.Array) -> jax.Array:
    """Corners [..., 4] of boxes in cxcywh."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


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


def pairwise_giou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Generalised IoU [..., Q, N] of every box of a [..., Q, 4] with every one of b [..., N, 4]; both in xyxy."""
    return giou(*pairs(a, b))


def box_costs(boxes: jax.Array, target_boxes: jax.Array, l1_weight: float, giou_weight: float) -> jax.Array:
    """The cost of assigning each predicted box to each target, without its class's (Carion et al. 2020, appendix A.4).

    Args:
      boxes: predicted boxes in cxcywh, [B, Q, 4].
      target_boxes: boxes in cxcywh, [B, N, 4].
      l1_weight: weight of the sum of the four coordinates' distances.
      giou_weight: weight of generalised IoU, which lowers the cost.

    Returns:
      float32 [B, Q, N].
    """
    boxes, target_boxes = boxes.astype(jnp.float32), target_boxes.astype(jnp.float32)
    distance = jnp.sum(jnp.abs(jnp.subtract(*pairs(boxes, target_boxes))), axis=-1)
    return l1_weight * distance - giou_weight * pairwise_giou(to_xyxy(boxes), to_xyxy(target_boxes))


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
