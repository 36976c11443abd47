"""Classification losses, one number an example, in float32."""

import jax
import jax.numpy as jnp
import optax


def targets(labels: jax.Array, num_classes: int, label_smoothing: float = 0.0) -> jax.Array:
    """Labels [B] as smoothed one-hot rows, float32 [B, K] (Szegedy et al. 2016, section 7)."""
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes, dtype=jnp.float32), label_smoothing)


def softmax_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy of the softmax of logits [B, K] with target distributions [B, K]: float32 [B], in nats."""
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def sigmoid_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Binary cross-entropies summed over classes: float32 [B] (Beyer et al. 2020, "Are we done with ImageNet?")."""
    return jnp.sum(optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets), axis=-1)


def softmax_focal(logits: jax.Array, targets: jax.Array, gamma: float) -> jax.Array:
    """Cross-entropy with each class's term weighted by (1 - p)^gamma: float32 [B] (Lin et al. 2017, equation 4)."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.sum(targets * (1 - jnp.exp(log_p)) ** gamma * log_p, axis=-1)


def sigmoid_focal(logits: jax.Array, targets: jax.Array, gamma: float) -> jax.Array:
    """Binary focal losses summed over classes: float32 [B] (Lin et al. 2017, equation 4, without alpha)."""
    return jnp.sum(optax.sigmoid_focal_loss(logits.astype(jnp.float32), targets, gamma=gamma), axis=-1)
