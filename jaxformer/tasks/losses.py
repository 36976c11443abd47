"""Classification losses: a number an example or a token, in float32 and in nats, whatever the dtype of the logits."""

import jax
import jax.numpy as jnp
import optax


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


def softmax_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """The cross-entropy of the softmax of logits [B, K] with targets [B, K]: float32 [B]."""
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def sigmoid_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """The binary cross-entropy of every class, summed over classes: float32 [B].

    Beyer et al. 2020, "Are we done with ImageNet?". A head that is zero has a loss of K log 2, which its bias
    lowers first of all; big_vision therefore starts the bias at -10 (`init_head_bias`).

    Args:
      logits: [B, K].
      targets: [B, K], each class's own probability.
    """
    return jnp.sum(optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets), axis=-1)


def softmax_focal(logits: jax.Array, targets: jax.Array, gamma: float) -> jax.Array:
    """The softmax cross-entropy with each class's term weighted by (1 - p)^gamma: float32 [B].

    Lin et al. 2017, equation 4, with a softmax for p instead of sigmoids. Gamma 0 is the cross-entropy.

    Args:
      logits: [B, K].
      targets: [B, K].
      gamma: 0 or more; how much less easy examples count. 2 in the paper.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    # 1 - p without cancellation, and not 0, where the gradient of a power under 1 is infinite.
    not_p = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(jnp.float32).tiny)
    return -jnp.sum(targets * not_p**gamma * log_p, axis=-1)


def sigmoid_focal(logits: jax.Array, targets: jax.Array, gamma: float) -> jax.Array:
    """The binary focal loss of every class, summed over classes: float32 [B] (Lin et al. 2017, equation 4).

    Without the balance alpha of equation 5.

    Args:
      logits: [B, K].
      targets: [B, K], each class's own probability.
      gamma: 0 or more. 2 in the paper.
    """
    losses = optax.sigmoid_focal_loss(logits.astype(jnp.float32), targets, alpha=None, gamma=gamma)
    return jnp.sum(losses, axis=-1)


def token_cross_entropy(logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """The cross-entropy of each token, float32 [B, T]; 0 where there is no target.

    No array of targets as distributions is made, and none is looked up: comparing with every number fuses with the
    softmax, forwards and backwards.

    Args:
      logits: float32 [B, T, V].
      targets: int [B, T]; negative where there is none.
      label_smoothing: the share of a target that is spread over all V tokens (Szegedy et al. 2016, section 7).
    """
    logits = logits.astype(jnp.float32)
    numbers = jnp.arange(logits.shape[-1])[None, None, :]
    own = jnp.sum(jnp.where(numbers == targets[..., None], logits, 0), axis=-1)
    if label_smoothing:
        own = (1 - label_smoothing) * own + label_smoothing * jnp.mean(logits, axis=-1)
    return jnp.where(targets >= 0, jax.nn.logsumexp(logits, axis=-1) - own, 0)
