"""Set prediction (Carion et al. 2020, section 3.1): each true object gets a prediction of its own, and its losses.

Predictions are given by layer and image: logits are float32 [L, B, Q, C] and boxes float32 [L, B, Q, 4]. True labels
are int32 [B, N], -1 where there is no object, and true boxes float32 [B, N, 4]. A box is "cxcywh", its centre, width
and height, or "xyxy", its corners with the least and the greatest coordinates. Boxes without an area are legal
everywhere: they give neither a NaN nor an infinite gradient.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxformer.config.fields import Fraction, Input, InputOrZero, NonNegativeFloat
from jaxformer.models.outputs import Denoised
from jaxformer.tasks.assignment import linear_assignment
from jaxformer.tasks.base import Arrays


@dataclass(frozen=True)
class SetLosses:
    """The losses "class", "l1" and "giou" of a set of predictions, and the costs by which they are matched."""

    class_loss: Literal["softmax", "focal"] = "softmax"
    """ "softmax" is the cross-entropy with one more class, the last, for no object (Carion et al. 2020; the model needs
    no_object). "focal" is a sigmoid for each class, and all are false where there is no object (Lin et al. 2017; Zhu et
    al. 2021)."""
    class_weight: Input[NonNegativeFloat] | None = None
    """Weight of the class's loss and cost; None: 1 with "softmax" (Carion et al. 2020), 2 with "focal" (Zhu et al.
    2021)."""
    l1_weight: Input[NonNegativeFloat] = 5.0
    """Weight of the loss and cost of the distances of the boxes' four numbers."""
    giou_weight: Input[NonNegativeFloat] = 2.0
    """Weight of the loss and cost of generalised IoU."""
    no_object_weight: InputOrZero[NonNegativeFloat] = 0.1
    """Weight of the class for no object in the softmax's loss."""
    focal_alpha: InputOrZero[Fraction] = 0.25
    """Weight of a true class in the focal loss; a false one weighs 1 - alpha."""
    focal_gamma: NonNegativeFloat = 2.0
    """How much less predictions that are right already count in the focal loss."""

    @property
    def softmax(self) -> bool:
        """Whether the classes are learnt by "softmax"."""
        return self.class_loss == "softmax"

    @property
    def weights(self) -> dict[str, float]:
        """The weights of the losses and of the costs."""
        usual = 1.0 if self.softmax else 2.0
        of_class = usual if self.class_weight is None else self.class_weight
        return {"class": of_class, "l1": self.l1_weight, "giou": self.giou_weight}

    def weighted(self, losses: Arrays) -> Arrays:
        """The losses times their weights."""
        return {name: self.weights[name] * value for name, value in losses.items()}

    def set_losses(self, logits: Array, boxes: Array, labels: Array, true_boxes: Array) -> Arrays:
        """The weighted losses, float32 [L, B], summed over an image's predictions, or over those with an object."""
        own = self.matched(logits, boxes, labels, true_boxes)
        targets = jnp.sum(jnp.where(own, labels[None, :, :, None] + 1, 0), axis=2) - 1  # [L, B, Q]
        # As a product with ones: the gradient of a lookup adds up row by row, which is slow.
        chosen = jnp.einsum("lbnq,lbqc->lbnc", own.astype(jnp.float32), boxes, precision="highest")
        of_class = jnp.sum(self.class_losses(logits, targets), axis=-1)
        return self.weighted({"class": of_class, **box_losses(chosen, labels[None], true_boxes[None])})

    def denoising_losses(self, given: Denoised, labels: Array, true_boxes: Array) -> Arrays:
        """The weighted losses of noised objects, float32 [L, B], as means over G groups.

        Of the two queries of each object the first is near its box and is to be found; the second is to be no object.
        """
        groups, there = given.logits.shape[2], labels[None, :, None, None] >= 0
        wanted = jnp.stack([labels, jnp.full_like(labels, -1)], axis=1)[None, :, None]  # [1, B, 1, 2, N]
        of_class = self.class_losses(given.logits, jnp.broadcast_to(wanted, given.logits.shape[:-1]))
        of_class = jnp.sum(jnp.where(there, of_class, 0), axis=(2, 3, 4))
        close = given.boxes[:, :, :, 0]
        near = box_losses(close, labels[None, :, None], true_boxes[None, :, None])  # [L, B, G]
        found = {"class": of_class, **{name: jnp.sum(value, axis=2) for name, value in near.items()}}
        return self.weighted({name: value / groups for name, value in found.items()})

    def class_losses(self, logits: Array, labels: Array) -> Array:
        """The loss of each prediction, float32 [...], from logits [..., C] and labels int32 [...]."""
        logits, outputs = logits.astype(jnp.float32), logits.shape[-1]
        if not self.softmax:
            return jnp.sum(self.focal(logits, jax.nn.one_hot(labels, outputs, dtype=jnp.float32)), axis=-1)
        true = jax.nn.one_hot(jnp.where(labels < 0, outputs - 1, labels), outputs, dtype=jnp.float32)
        return jnp.where(labels < 0, self.no_object_weight, 1.0) * optax.softmax_cross_entropy(logits, true)

    def focal(self, logits: Array, true: Array) -> Array:
        """The focal loss of each sigmoid, float32, from logits and from what is true, 0 or 1, of the same shape."""
        settings = {"alpha": self.focal_alpha, "gamma": self.focal_gamma}
        return optax.sigmoid_focal_loss(logits.astype(jnp.float32), true, **settings)

    def class_probabilities(self, logits: Array) -> Array:
        """The probabilities of the classes, float32 [..., K], without the class for no object."""
        logits = logits.astype(jnp.float32)
        return jax.nn.softmax(logits, axis=-1)[..., :-1] if self.softmax else jax.nn.sigmoid(logits)

    def matched(self, logits: Array, boxes: Array, labels: Array, true_boxes: Array) -> Array:
        """Which prediction each object gets, so that the sum of the costs is the least: bool [L, B, N, Q]."""
        costs = self.costs(logits, boxes, labels, true_boxes)
        *leading, queries, objects = costs.shape
        valid = jnp.broadcast_to(labels >= 0, (*leading, objects)).reshape(-1, objects)
        query = linear_assignment(costs.reshape(-1, queries, objects), valid).reshape(*leading, objects, 1)
        return query == jnp.arange(queries)[None, None, None, :]

    def costs(self, logits: Array, boxes: Array, labels: Array, true_boxes: Array) -> Array:
        """The cost of each prediction for each object, float32 [L, B, Q, N] (Carion et al. 2020, appendix A.4)."""
        boxes, true_boxes = boxes.astype(jnp.float32), true_boxes.astype(jnp.float32)
        distance = jnp.sum(jnp.abs(jnp.subtract(*pairs(boxes, true_boxes))), axis=-1)
        overlap = giou(*pairs(to_xyxy(boxes), to_xyxy(true_boxes)))
        one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
        if self.softmax:
            of_class = -jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
        else:  # what the loss would grow by (the code of Zhu et al. 2021)
            of_class = self.focal(logits, jnp.ones_like(logits)) - self.focal(logits, jnp.zeros_like(logits))
        of_class = jnp.einsum("lbqc,bnc->lbqn", of_class, one_hot, precision="highest")
        return self.l1_weight * distance - self.giou_weight * overlap + self.weights["class"] * of_class


def box_losses(boxes: Array, labels: Array, true_boxes: Array) -> Arrays:
    """The losses "l1" and "giou", float32 [...], of boxes [..., N, 4] for the objects [..., N]."""
    true_boxes, there = jnp.broadcast_to(true_boxes, boxes.shape), labels >= 0
    far = jnp.sum(jnp.abs(boxes - true_boxes), axis=-1)
    apart = 1 - giou(to_xyxy(boxes), to_xyxy(true_boxes))
    return {name: jnp.sum(jnp.where(there, x, 0), axis=-1) for name, x in (("l1", far), ("giou", apart))}


def to_xyxy(boxes: Array) -> Array:
    """Corners [..., 4] of boxes in cxcywh."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def giou(a: Array, b: Array) -> Array:
    """Generalised IoU [...] of boxes in xyxy, one by one (Rezatofighi et al. 2019, algorithm 1): from -1 to 1.

    It is the intersection over the union less the share of the smallest box around both that is in neither. Both are 0
    where they would be 0 / 0.
    """
    low, high = jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])
    inner_low, inner_high = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    shared, hull = area(inner_low, inner_high), area(low, high)
    union = area(a[..., :2], a[..., 2:]) + area(b[..., :2], b[..., 2:]) - shared
    return ratio(shared, union) - ratio(hull - union, hull)


def area(low: Array, high: Array) -> Array:
    """The area [...] between corners [..., 2]; 0 where they are the wrong way round."""
    return jnp.prod(jnp.maximum(high - low, 0), axis=-1)


def ratio(part: Array, whole: Array) -> Array:
    """part / whole; 0, with a gradient of 0, where the whole is 0 (or so small that the gradient would overflow)."""
    some = whole > 1e-18
    return jnp.where(some, part / jnp.where(some, whole, 1), 0)


def pairs(a: Array, b: Array) -> tuple[Array, Array]:
    """Every box of a [..., Q, 4] beside every one of b [..., N, 4]: both as [..., Q, N, 4]."""
    shape = (*a.shape[:-1], b.shape[-2], 4)
    return jnp.broadcast_to(a[..., :, None, :], shape), jnp.broadcast_to(b[..., None, :, :], shape)
