"""Classification metrics: sums on the device that add up over batches, and what they mean on the host.

In the sums `logits` are [B, K], `labels` int [B] and `mask` bool [B], False on padding rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.errors import UserError
from jaxformer.tasks.base import masked_sum

CALIBRATION_BINS = 15  # Guo et al. 2017, section 5


def correct(logits: jax.Array, labels: jax.Array, k: int = 1) -> jax.Array:
    """bool [B]: whether the label's logit is among the `k` highest.

    Of equal logits the first is the higher, as for `argmax`. A row with a NaN is wrong. Counting the higher
    logits needs no sort.
    """
    classes, labels = jnp.arange(logits.shape[-1])[None, :], labels[:, None]
    own = jnp.max(jnp.where(classes == labels, logits, -jnp.inf), axis=-1, keepdims=True)  # [B, 1]
    higher = (logits > own) | ((logits == own) & (classes < labels))
    return (jnp.sum(higher, axis=-1) < k) & ~jnp.any(jnp.isnan(logits), axis=-1)


def confusion_matrix(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """float32 [K, K]: how many examples of each class (rows) were taken for each class (columns)."""
    num_classes = logits.shape[-1]
    true = jax.nn.one_hot(labels, num_classes) * mask[:, None]
    predicted = jax.nn.one_hot(jnp.argmax(logits, axis=-1), num_classes)
    return true.T @ predicted  # zeros and ones: exact in any matmul precision


def calibration_sums(probabilities: jax.Array, labels: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Sums over bins of the confidence, which is the highest probability (Guo et al. 2017, section 2).

    Bin m of M holds confidences in ((m - 1) / M, m / M].

    Returns:
      "confidence", "correct" and "count", float32 [CALIBRATION_BINS] each.
    """
    confidence = jnp.where(mask, jnp.max(probabilities, axis=-1), 0)
    bins = jnp.clip(jnp.ceil(confidence * CALIBRATION_BINS) - 1, 0, CALIBRATION_BINS - 1)
    members = jax.nn.one_hot(bins.astype(jnp.int32), CALIBRATION_BINS)  # [B, bins]
    right = correct(probabilities, labels).astype(jnp.float32)
    return {
        "confidence": masked_sum(members * confidence[:, None], mask),
        "correct": masked_sum(members * right[:, None], mask),
        "count": masked_sum(members, mask),
    }


def calibration_error(sums: Mapping[str, np.ndarray]) -> float:
    """The expected calibration error, 0 to 1 (Guo et al. 2017, equation 3), from `calibration_sums`."""
    gaps = np.abs(sums["correct"] - sums["confidence"])
    return float(gaps.sum() / max(sums["count"].sum(), 1))


def calibration_table(sums: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Mean "confidence", "accuracy" and "count" of every bin that has examples, from `calibration_sums`."""
    return [
        {"confidence": float(confidence / count), "accuracy": float(right / count), "count": int(count)}
        for confidence, right, count in zip(sums["confidence"], sums["correct"], sums["count"])
        if count
    ]


def per_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall, F1 and support of each class, 0 where they would be 0 / 0.

    Args:
      confusion: [K, K], rows are true classes.

    Returns:
      "precision", "recall", "f1" and "support" (examples that are of the class), float64 [K] each.
    """
    right, predicted, support = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)

    return {
        "precision": share(right, predicted),
        "recall": share(right, support),
        "f1": share(2 * right, predicted + support),
        "support": support.astype(np.float64),
    }


def class_rows(names: Sequence[str], columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The table "per_class": for each class a "name", the columns' values (None for NaN) and "support".

    Args:
      names: K names.
      columns: "support" and others, [K].
    """
    return [
        {
            "name": name,
            **{
                key: None if np.isnan(column[k]) else float(column[k])
                for key, column in columns.items()
                if key != "support"
            },
            "support": int(columns["support"][k]),
        }
        for k, name in enumerate(names)
    ]


def macro_f1(confusion: np.ndarray) -> float:
    """The mean F1 over the classes that occur as a label or a prediction (scikit-learn's average="macro")."""
    occurs = (confusion.sum(axis=0) + confusion.sum(axis=1)) > 0
    return float(per_class(confusion)["f1"][occurs].mean()) if occurs.any() else 0.0


def balanced_accuracy(confusion: np.ndarray) -> float:
    """The mean recall over the classes that have examples (Brodersen et al. 2010; as scikit-learn's)."""
    classes = per_class(confusion)
    there = classes["support"] > 0
    return float(classes["recall"][there].mean()) if there.any() else 0.0


def check_labels(num_classes: int, labels: np.ndarray) -> None:
    """Refuses labels that are not classes of the model: on the device they give garbage without an error.

    Args:
      num_classes: K of the model.
      labels: int [B], a batch's; there may be none.

    Raises:
      UserError: a label is not in 0 to K - 1.
    """
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        remedy = (
            f"set model.num_classes={labels.max() + 1} or more"
            if labels.min() >= 0
            else "leave examples without a label out of the split (TFDS marks them -1)"
        )
        raise UserError(
            f"model.num_classes={num_classes}: the labels must be 0 to {num_classes - 1}, "
            f"a batch has {labels.min()} to {labels.max()}; {remedy}"
        )
