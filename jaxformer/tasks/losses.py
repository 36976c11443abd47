"""Losses of classes, in float32 and in nats, whatever the dtype of the logits.

Of examples there is one number each, [B]; of tokens [B, T]; of pixels [B, H, W], from logits [B, H, W, K] and classes
int [B, H, W], of which negative ones are ignored. The losses of regions (Dice, Lovasz) have one number for each image,
the mean over the classes that are in it: they are sums over images, so that neither a batch's size nor its split
changes them.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxformer.config.fields import FOLDER, Constraint, Input, above, left_out

Weights: TypeAlias = tuple[float, ...] | None  # one for each class, or all alike

SHARE = Constraint("a share above 0 and up to 1, such as 0.5", lambda value: 0 < value <= 1)
SMOOTH = 1.0  # the pixels that Dice adds to the intersection and to both areas


def targets(labels: jax.Array, num_classes: int, label_smoothing: float = 0.0) -> jax.Array:
    """Labels as distributions over the classes.

    Args:
      labels: int [B], 0 to K - 1.
      num_classes: K.
      label_smoothing: the share that is spread evenly over all K classes, the label's among them (Szegedy et
        al. 2016, section 7; so PyTorch and timm have it, timm for the sigmoid loss, too).

    Returns:
      float32 [B, K].
    """
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes, dtype=jnp.float32), label_smoothing)


def softmax_loss(logits: jax.Array, targets: jax.Array, gamma: float | None = None) -> jax.Array:
    """The cross-entropy of the softmax, or its focal loss: float32 [B].

    The focal loss weighs each class's term by (1 - p)^gamma: Lin et al. 2017, equation 4, with a softmax for p instead
    of sigmoids. Gamma 0 is the cross-entropy.

    Args:
      logits: [B, K].
      targets: [B, K].
      gamma: of the focal loss, 0 or more: how much less easy examples count. 2 in the paper; None is off.
    """
    logits = logits.astype(jnp.float32)
    if gamma is None:
        return optax.softmax_cross_entropy(logits, targets)
    log_p = jax.nn.log_softmax(logits)
    # 1 - p without cancellation, and not 0, where the gradient of a power under 1 is infinite.
    not_p = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(jnp.float32).tiny)
    return -jnp.sum(targets * not_p**gamma * log_p, axis=-1)


def sigmoid_loss(logits: jax.Array, targets: jax.Array, gamma: float | None = None) -> jax.Array:
    """The binary cross-entropy of every class, or its focal loss, summed over classes: float32 [B].

    Beyer et al. 2020, "Are we done with ImageNet?". A head that is zero has a loss of K log 2, and its bias learns
    first to lower that; big_vision therefore starts the bias at -10 (`init_head_bias`).

    Args:
      logits: [B, K].
      targets: [B, K], each class's own probability.
      gamma: of the focal loss (Lin et al. 2017, equation 4, without the balance alpha of equation 5); None is off.
    """
    logits = logits.astype(jnp.float32)
    if gamma is None:
        return jnp.sum(optax.sigmoid_binary_cross_entropy(logits, targets), axis=-1)
    return jnp.sum(optax.sigmoid_focal_loss(logits, targets, alpha=None, gamma=gamma), axis=-1)


def token_cross_entropy(logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """The cross-entropy of each token, or pixel, float32 [...]; 0 where there is no target.

    No array of targets as distributions is made, and none is looked up: comparing with every number fuses with the
    softmax, forwards and backwards.

    Args:
      logits: float32 [..., V].
      targets: int [...]; negative where there is none.
      label_smoothing: the share of a target that is spread over all V tokens (Szegedy et al. 2016, section 7).
    """
    logits = logits.astype(jnp.float32)
    numbers = jnp.arange(logits.shape[-1]).reshape((1,) * targets.ndim + (-1,))
    own = jnp.sum(jnp.where(numbers == targets[..., None], logits, 0), axis=-1)
    if not left_out(label_smoothing):
        own = (1 - label_smoothing) * own + label_smoothing * jnp.mean(logits, axis=-1)
    return jnp.where(targets >= 0, jax.nn.logsumexp(logits, axis=-1) - own, 0)


# Of a teacher


@dataclass(frozen=True)
class Distillation:
    """Learning from a teacher's logits beside the labels (Hinton et al. 2015; DeiT, Touvron et al. 2021, section 4).

    The teacher sees the same augmented examples.
    """

    run: Annotated[str, FOLDER]
    """The folder of the teacher's run, of any model of the same classes and examples of the same shape."""
    checkpoint: str = "best"
    """ "best", "latest" or a step."""
    kind: Literal["hard", "soft"] = "hard"
    """ "hard" takes the teacher's most likely class for a label (DeiT, equation 3); "soft" its whole
    distribution, as the divergence KL(teacher, student) (equation 2)."""
    weight: Input[Annotated[float, SHARE]] = 0.5
    """The share of the loss that is the teacher's; the labels have the rest."""
    temperature: Input[Annotated[float, above(0, "more than 0, such as 3.0")]] = 3.0
    """With "soft", both sides' logits are divided by it, and the loss is multiplied by its square."""

    def per_example(self, logits: jax.Array, teacher: jax.Array) -> jax.Array:
        """The loss of each example, float32 [B], from the student's logits and the teacher's, both [B, K]."""
        logits, teacher = logits.astype(jnp.float32), teacher.astype(jnp.float32)
        if self.kind == "hard":
            chosen = jnp.argmax(teacher, axis=-1, keepdims=True)
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), chosen, axis=-1)[:, 0]
        ours = jax.nn.log_softmax(logits / self.temperature)
        theirs = jax.nn.log_softmax(teacher / self.temperature)
        return self.temperature**2 * jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)


# Of pixels


def pixel_cross_entropy(logits: jax.Array, classes: jax.Array, class_weights: Weights = None) -> jax.Array:
    """The cross-entropy of each pixel, [B, H, W], times its class's weight; 0 where the class is ignored."""
    return token_cross_entropy(logits, classes) * pixel_weights(classes, class_weights)


def pixel_weights(classes: jax.Array, class_weights: Weights = None) -> jax.Array:
    """What each pixel counts, float32 [B, H, W]: its class's weight, or 1; 0 where the class is ignored."""
    if class_weights is None:
        return (classes >= 0).astype(jnp.float32)
    weights = jnp.asarray(class_weights, jnp.float32)[None, None, None, :]
    return jnp.sum(jnp.where(one_hot(classes, len(class_weights)), weights, 0), axis=-1)


def dice(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """1 less the soft Dice coefficient of each image, [B] (Milletari et al. 2016, section 3).

    Of a class it is 2 |P T| / (|P| + |T|), with areas as sums of probabilities (not of their squares, as in Sudre et
    al. 2017), and SMOOTH added above and below. 0 for an image without any class.
    """
    true = one_hot(classes, logits.shape[-1])
    probabilities = known_probabilities(logits, classes)
    shared = jnp.sum(jnp.where(true, probabilities, 0), axis=(1, 2))  # [B, K]
    areas = jnp.sum(probabilities, axis=(1, 2)) + jnp.sum(true, axis=(1, 2), dtype=jnp.float32)
    coefficients = (2 * shared + SMOOTH) / (areas + SMOOTH)
    return mean_of_present(1 - coefficients, true)


def lovasz_softmax(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """The Lovasz-softmax loss of each image, [B]: a surrogate of 1 - IoU (Berman et al. 2018, section 3).

    As the authors' code with per_image=True and classes="present". 0 for an image without any class.
    """
    batch, height, width, num_classes = logits.shape
    true = one_hot(classes, num_classes)
    # An ignored pixel has no error and is of no class, so that it is sorted last and adds nothing.
    errors = jnp.abs(true - known_probabilities(logits, classes))
    shape = (batch, height * width, num_classes)
    errors, members = (x.reshape(shape).swapaxes(1, 2) for x in (errors, true))  # [B, K, P]
    order = jnp.argsort(-jax.lax.stop_gradient(errors), axis=-1)
    errors = jnp.take_along_axis(errors, order, axis=-1)
    members = jnp.take_along_axis(members, order, axis=-1)
    return mean_of_present(jnp.sum(errors * jaccard_steps(members), axis=-1), true)


def jaccard_steps(members: jax.Array) -> jax.Array:
    """By how much 1 - IoU grows with each further pixel that is wrong, float32 [..., P] (Berman et al., algorithm 1).

    Args:
      members: bool [..., P]: whether a pixel is of the class; the worst error first.
    """
    of_class = members.astype(jnp.float32)
    total = jnp.sum(of_class, axis=-1, keepdims=True)
    found = jnp.cumsum(of_class, axis=-1)
    union = total + jnp.cumsum(1 - of_class, axis=-1)
    lost = 1 - (total - found) / jnp.maximum(union, 1)
    return lost - jnp.pad(lost[..., :-1], [(0, 0)] * (lost.ndim - 1) + [(1, 0)])


def mean_of_present(losses: jax.Array, true: jax.Array) -> jax.Array:
    """The mean [B] of losses [B, K] over the classes that each image has, by `true`, bool [B, H, W, K]."""
    present = jnp.any(true, axis=(1, 2))
    return jnp.sum(jnp.where(present, losses, 0), axis=-1) / jnp.maximum(jnp.sum(present, axis=-1), 1)


def known_probabilities(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """The softmax, float32 [B, H, W, K]; 0 where the class is ignored."""
    return jnp.where((classes >= 0)[..., None], jax.nn.softmax(logits.astype(jnp.float32)), 0)


def one_hot(classes: jax.Array, num_classes: int) -> jax.Array:
    """bool [B, H, W, K]: which class each pixel has; none where it is ignored."""
    return classes[..., None] == jnp.arange(num_classes)[None, None, None, :]
