"""Metrics of segmentation: a confusion matrix on the device that adds up over batches, and what it means on the host.

A confusion matrix is [K, K]: how many pixels of each class (rows) were taken for each class (columns).
"""

import jax
import jax.numpy as jnp
import numpy as np

METRIC_NAMES = ("mean_iou", "pixel_accuracy", "mean_accuracy")


def pixel_confusion(predicted: jax.Array, classes: jax.Array, num_classes: int) -> jax.Array:
    """int32 [K, K] of all pixels that have a class.

    Args:
      predicted: int [...], the predicted class of each pixel, 0 to K - 1.
      classes: int [...], its class; pixels whose class is none of 0 to K - 1 do not count.
      num_classes: K.
    """
    counts = (classes >= 0) & (classes < num_classes)
    pairs = jnp.where(counts, classes * num_classes + predicted, num_classes**2)  # the others beyond the end
    table = jnp.zeros(num_classes**2 + 1, jnp.int32).at[pairs.reshape(-1)].add(1)
    return table[:-1].reshape(num_classes, num_classes)


def iou_per_class(confusion: np.ndarray) -> np.ndarray:
    """float64 [K]: intersection over union (Everingham et al. 2010); NaN for a class neither there nor predicted."""
    right = np.diag(confusion).astype(np.float64)
    return ratio(right, confusion.sum(0) + confusion.sum(1) - right)


def mean_iou(confusion: np.ndarray) -> float:
    """The mean over the classes that are there or were predicted; 0 without any pixel."""
    return mean(iou_per_class(confusion))


def pixel_accuracy(confusion: np.ndarray) -> float:
    """The share of pixels whose class was found; 0 without any pixel."""
    return float(np.trace(confusion) / max(confusion.sum(), 1))


def mean_accuracy(confusion: np.ndarray) -> float:
    """The mean, over the classes that are there, of the share of their pixels that were found."""
    return mean(ratio(np.diag(confusion).astype(np.float64), confusion.sum(1)))


def segmentation_metrics(confusion: np.ndarray) -> dict[str, float]:
    """All METRIC_NAMES, 0 to 1."""
    return {
        "mean_iou": mean_iou(confusion),
        "pixel_accuracy": pixel_accuracy(confusion),
        "mean_accuracy": mean_accuracy(confusion),
    }


def segmentation_per_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """`iou`, `accuracy` (the share of its pixels that were found), `precision` and `support` (pixels), float64 [K]."""
    right = np.diag(confusion).astype(np.float64)
    return {
        "iou": iou_per_class(confusion),
        "accuracy": ratio(right, confusion.sum(1)),
        "precision": ratio(right, confusion.sum(0)),
        "support": confusion.sum(1).astype(np.float64),
    }


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where that is 0 / 0."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def mean(values: np.ndarray) -> float:
    """Of what is not NaN; 0 if all is."""
    there = ~np.isnan(values)
    return float(values[there].mean()) if there.any() else 0.0
