"""Losses of segmentation, float32, from logits [B, H, W, K] and classes int [B, H, W]; negative ones are ignored.

Of the losses of regions (Dice, Lovasz) each image has its own, the mean over the classes that are in it, so that they
are sums over images: neither a batch's size nor its split changes them.
"""

import jax
import jax.numpy as jnp

from jaxformer.tasks.losses import token_cross_entropy

SMOOTH = 1.0  # pixels that Dice adds to the intersection and to both areas


def pixel_cross_entropy(
    logits: jax.Array, classes: jax.Array, class_weights: tuple[float, ...] | None = None
) -> jax.Array:
    """The cross-entropy of each pixel, [B, H, W], times its class's weight; 0 where the class is ignored."""
    batch, height, width, num_classes = logits.shape
    flat = classes.reshape(batch, height * width)
    losses = token_cross_entropy(logits.reshape(batch, height * width, num_classes), flat)
    return losses.reshape(classes.shape) * pixel_weights(classes, class_weights)


def pixel_weights(classes: jax.Array, class_weights: tuple[float, ...] | None = None) -> jax.Array:
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
    errors, members = (
        x.reshape(batch, height * width, num_classes).swapaxes(1, 2) for x in (errors, true)
    )  # [B, K, P]
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
