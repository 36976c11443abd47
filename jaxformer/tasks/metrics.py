"""Classification metrics: sums on the device, tables on the host."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CALIBRATION_BINS = 15  # Guo et al. 2017, section 3


def correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """float32 [B]: whether the highest of logits [B, K] is the label's."""
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def in_top(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """float32 [B]: whether the label is among the `k` highest of logits [B, K]."""
    _, highest = jax.lax.top_k(logits, min(k, logits.shape[-1]))
    return jnp.any(highest == labels[:, None], axis=-1).astype(jnp.float32)


def confusion(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """float32 [K, K]: examples by true class (rows) and predicted class."""
    classes = logits.shape[-1]
    true = jax.nn.one_hot(labels, classes) * mask[:, None]
    return true.T @ jax.nn.one_hot(jnp.argmax(logits, axis=-1), classes)


def calibration_sums(probabilities: jax.Array, labels: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Sums of confidence, correctness and count in bins of the confidence, float32 [CALIBRATION_BINS] each."""
    confidence = jnp.max(probabilities, axis=-1)
    number = jnp.clip(jnp.ceil(confidence * CALIBRATION_BINS) - 1, 0, CALIBRATION_BINS - 1).astype(jnp.int32)
    members = jax.nn.one_hot(number, CALIBRATION_BINS) * mask[:, None]  # [B, bins]
    return {
        "confidence": confidence @ members,
        "correct": correct(probabilities, labels) @ members,
        "count": jnp.sum(members, axis=0),
    }


def calibration_error(sums: dict[str, np.ndarray]) -> float:
    """Expected calibration error (Guo et al. 2017, equation 3), a share of 1."""
    gap = np.abs(sums["correct"] - sums["confidence"])
    return float(gap.sum() / max(sums["count"].sum(), 1))


def calibration_table(sums: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Mean confidence, accuracy and count of every bin that has examples."""
    return [
        {"confidence": float(confidence / count), "accuracy": float(right / count), "count": int(count)}
        for confidence, right, count in zip(sums["confidence"], sums["correct"], sums["count"])
        if count
    ]


def per_class_table(confusion: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of each class; 0 where nothing was predicted or nothing is there."""
    right, predicted, true = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)

    columns = (share(right, predicted), share(right, true), share(2 * right, predicted + true), true)
    return [
        {"name": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(support)}
        for name, p, r, f, support in zip(class_names, *columns)
    ]
