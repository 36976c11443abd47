"""What a set of predicted objects loses against the true ones, each with a prediction of its own.

All is by layer and picture (Carion et al. 2020, section 3.1): logits are float32 [L, B, Q, C], boxes float32
[L, B, Q, 4] in cxcywh; true labels are int32 [B, N], -1 where there is no object, true boxes float32 [B, N, 4].
Losses are float32 [L, B], sums over what is in a picture, without weights.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxformer.tasks.assignment import linear_assignment
from jaxformer.tasks.boxes import box_costs, giou, to_xyxy

ClassLossName: TypeAlias = Literal["softmax", "focal"]


@dataclass(frozen=True)
class ClassLoss:
    """How a prediction's class is learnt."""

    name: ClassLossName = "softmax"
    """ "softmax" cross-entropy with one class more, the last, for no object (Carion et al. 2020); or "focal":
    a sigmoid a class, none of which is true where there is no object (Lin et al. 2017; Zhu et al. 2021)."""
    no_object: float = 0.1
    """What the softmax's cross-entropy of no object counts."""
    alpha: float = 0.25
    """What a true class counts with "focal"; a false one counts 1 - alpha."""
    gamma: float = 2.0
    """How much less counts what is right already, with "focal"."""

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """The loss of each prediction, float32 [...], of logits [..., C] and labels int32 [...], -1 for no object."""
        logits, num_outputs = logits.astype(jnp.float32), logits.shape[-1]
        if self.name == "focal":
            true = jax.nn.one_hot(labels, num_outputs, dtype=jnp.float32)
            return jnp.sum(self.focal(logits, true), axis=-1)
        true = jax.nn.one_hot(jnp.where(labels < 0, num_outputs - 1, labels), num_outputs, dtype=jnp.float32)
        return jnp.where(labels < 0, self.no_object, 1.0) * optax.softmax_cross_entropy(logits, true)

    def costs(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """What a class costs in matching: float32 [B, Q, N] of logits [B, Q, C] and labels [B, N]."""
        one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
        if self.name == "softmax":
            of_class = -jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
        else:  # what the loss would grow by (Zhu et al. 2021's code)
            of_class = self.focal(logits, jnp.ones_like(logits)) - self.focal(logits, jnp.zeros_like(logits))
        return jnp.einsum("bqc,bnc->bqn", of_class, one_hot, precision="highest")

    def focal(self, logits: jax.Array, true: jax.Array) -> jax.Array:
        """The focal loss of each sigmoid, float32, of logits and of what is true, 0 or 1, of their shape."""
        return optax.sigmoid_focal_loss(logits.astype(jnp.float32), true, alpha=self.alpha, gamma=self.gamma)

    def probabilities(self, logits: jax.Array) -> jax.Array:
        """Of the classes, without no object; float32."""
        if self.name == "focal":
            return jax.nn.sigmoid(logits.astype(jnp.float32))
        return jax.nn.softmax(logits.astype(jnp.float32), axis=-1)[..., :-1]


@dataclass(frozen=True)
class Weights:
    """Of the three losses; the costs of matching have the same."""

    classes: float
    l1: float
    giou: float


def owners(
    logits: jax.Array,
    boxes: jax.Array,
    labels: jax.Array,
    true_boxes: jax.Array,
    loss: ClassLoss,
    weights: Weights,
) -> jax.Array:
    """Which prediction is given to which true object, so that all costs together are the least; bool [L, B, N, Q]."""
    layers, batch, queries = logits.shape[:3]
    flat = layers * batch

    def every(x: jax.Array) -> jax.Array:
        return jnp.broadcast_to(x[None], (layers, *x.shape)).reshape(flat, *x.shape[1:])

    logits, boxes = logits.reshape(flat, queries, -1), boxes.reshape(flat, queries, 4)
    costs = box_costs(boxes, every(true_boxes), weights.l1, weights.giou)
    costs = costs + weights.classes * loss.costs(logits, every(labels))
    query = linear_assignment(costs, every(labels >= 0)).reshape(layers, batch, -1, 1)
    return query == jnp.arange(queries)[None, None, None, :]


def set_losses(
    logits: jax.Array,
    boxes: jax.Array,
    labels: jax.Array,
    true_boxes: jax.Array,
    loss: ClassLoss,
    weights: Weights,
) -> dict[str, jax.Array]:
    """The losses "class" of all predictions, and "l1" and "giou" of those that are given an object."""
    own = owners(logits, boxes, labels, true_boxes, loss, weights)  # [L, B, N, Q]
    given = jnp.sum(jnp.where(own, labels[None, :, :, None] + 1, 0), axis=2) - 1  # [L, B, Q]
    # As a product with ones: the gradient of a lookup adds up row by row, which is slow.
    chosen = jnp.einsum("lbnq,lbqc->lbnc", own.astype(jnp.float32), boxes, precision="highest")
    return {
        "class": jnp.sum(loss(logits, given), axis=-1),
        **box_losses(chosen, labels[None], true_boxes[None]),
    }


def denoising_losses(
    logits: jax.Array, boxes: jax.Array, labels: jax.Array, true_boxes: jax.Array, loss: ClassLoss
) -> dict[str, jax.Array]:
    """The losses of noised objects, a mean over groups: those near their boxes are to be found, the others are none.

    Args:
      logits: float32 [L, B, G, 2, N, C].
      boxes: float32 [L, B, G, 2, N, 4].
      labels: int32 [B, N].
      true_boxes: float32 [B, N, 4].
      loss: of classes.
    """
    groups = logits.shape[2]
    there = labels[None, :, None, None] >= 0
    wanted = jnp.concatenate([labels[:, None], jnp.full_like(labels, -1)[:, None]], axis=1)[
        None, :, None
    ]  # [1, B, 1, 2, N]
    of_class = jnp.where(there, loss(logits, jnp.broadcast_to(wanted, logits.shape[:-1])), 0)
    found = box_losses(boxes[:, :, :, 0], labels[None, :, None], true_boxes[None, :, None])  # [L, B, G]
    return {
        "class": jnp.sum(of_class, axis=(2, 3, 4)) / groups,
        **{name: jnp.sum(value, axis=2) / groups for name, value in found.items()},
    }


def box_losses(boxes: jax.Array, labels: jax.Array, true_boxes: jax.Array) -> dict[str, jax.Array]:
    """The losses "l1" and "giou", float32 [...], of boxes [..., N, 4] that are given to objects [..., N]."""
    true_boxes = jnp.broadcast_to(true_boxes, boxes.shape)
    there = labels >= 0
    far = jnp.sum(jnp.abs(boxes - true_boxes), axis=-1)
    apart = 1 - giou(to_xyxy(boxes), to_xyxy(true_boxes))
    return {
        "l1": jnp.sum(jnp.where(there, far, 0), axis=-1),
        "giou": jnp.sum(jnp.where(there, apart, 0), axis=-1),
    }
