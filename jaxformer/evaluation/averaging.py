"""One answer of several: means of probabilities or of logits, and votes."""

import jax
import jax.numpy as jnp

HOWS = ("mean", "logits", "vote")


def combined(logits: jax.Array, how: str, sigmoid: bool) -> jax.Array:
    """Logits whose probabilities are those of several models together.

    Args:
      logits: float32 [M, ..., K], of M models.
      how: "mean", of the probabilities; "logits", of the logits; or "vote", see `Ensemble`.
      sigmoid: whether each class has a probability of its own; else they are a softmax.

    Returns:
      float32 [..., K].
    """
    if how == "logits":
        return jnp.mean(logits, axis=0)
    own = jax.nn.log_sigmoid(logits) if sigmoid else jax.nn.log_softmax(logits)
    other = jax.nn.log_sigmoid(-logits) if sigmoid else jnp.zeros(())
    if how == "mean":
        return log_mean(own) - (log_mean(other) if sigmoid else 0.0)
    chosen = logits > 0 if sigmoid else jnp.argmax(logits, axis=-1, keepdims=True) == class_numbers(logits)
    count, votes = len(logits), jnp.sum(chosen, axis=0, dtype=jnp.float32)
    share = jnp.log(votes + jnp.exp(log_mean(own)))
    return (
        share - jnp.log(count - votes + jnp.exp(log_mean(other))) if sigmoid else share - jnp.log(count + 1.0)
    )


def class_numbers(logits: jax.Array) -> jax.Array:
    """int32, 0 to K - 1 on the last axis, with as many axes as `logits`."""
    return jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)


def log_mean(logs: jax.Array) -> jax.Array:
    """The logarithm of the mean over the first axis of what has these logarithms."""
    return jax.nn.logsumexp(logs, axis=0) - jnp.log(len(logs))
