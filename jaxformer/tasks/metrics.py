"""Metrics of classes: sums on the device that add up over batches, and what they mean on the host.

In the sums `logits` are [B, K], `labels` int [B] and `mask` bool [B], False on padding rows. A confusion matrix is
[K, K]: how many examples, or pixels, of each class (rows) were taken for each class (columns).
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


def pixel_confusion(predicted: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 [K, K] of all pixels that have a class.

    Args:
      predicted: int [...], the predicted class of each pixel, 0 to K - 1; -1 where there is none.
      classes: int [...], its class; pixels whose class is none of 0 to K - 1 do not count.
      num_classes: K.
    """
    counts = (classes >= 0) & (classes < num_classes) & (predicted >= 0)
    pairs = classes[counts].astype(np.int64) * num_classes + predicted[counts]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


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


def commonest_share(of_class: np.ndarray) -> float:
    """The share of the commonest class, of the number of examples of each, [K]; 0 of nothing."""
    return float(of_class.max() / max(of_class.sum(), 1))


def per_class(confusion: np.ndarray, missed: np.ndarray | int = 0) -> dict[str, np.ndarray]:
    """What a confusion matrix says of each class, [K] each.

    Args:
      confusion: [K, K], of the examples that were shown.
      missed: [K], how many more examples there are of each class.

    Returns:
      "precision", "recall", "f1" and "iou" (intersection over union, Everingham et al. 2010), float64, NaN where they
      would be 0 / 0; and "support", int, the number of examples that are of the class.
    """
    right, predicted = np.diag(confusion).astype(np.float64), confusion.sum(0)
    support = confusion.sum(1) + missed

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)

    return {
        "precision": share(right, predicted),
        "recall": share(right, support),
        "f1": share(2 * right, predicted + support),
        "iou": share(right, predicted + support - right),
        "support": np.rint(support).astype(int),
    }


def mean(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; 0 if all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else 0.0


def accuracy(confusion: np.ndarray, missed: np.ndarray | int = 0) -> float:
    """The share of examples whose class was found, of those `missed` too (see `per_class`); 0 without any."""
    return float(np.trace(confusion) / max(confusion.sum() + np.sum(missed), 1))


def class_rows(names: Sequence[str], columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The table "per_class": for each of K classes its "name" and the columns' values [K], None for NaN."""
    return [
        {"name": name, **{key: None if np.isnan(x[k]) else x[k].item() for key, x in columns.items()}}
        for k, name in enumerate(names)
    ]


def check_labels(num_classes: int, labels: np.ndarray) -> None:
    """Refuses labels that are not classes of the model: on the device they give garbage without an error.

    Args:
      num_classes: K of the model.
      labels: int [B], a batch's; there may be none.

    Raises:
      UserError: a label is not in 0 to K - 1.
    """
    if num_classes == 0:
        raise UserError(
            "model.num_classes=0: this model has no head, and so gives no classes",
            "train it with `model.pretrained`, or learn from its features with `jaxformer probe`",
        )
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        remedy = "leave examples without a label out of the split (TFDS marks them -1)"
        if labels.min() >= 0:
            remedy = f"set model.num_classes={labels.max() + 1} or more"
        wanted, found = f"the labels must be 0 to {num_classes - 1}", f"{labels.min()} to {labels.max()}"
        raise UserError(f"model.num_classes={num_classes}: {wanted}, a batch has {found}; {remedy}")
