"""Average precision of boxes as COCO defines it (Lin et al. 2014), by pycocotools, over a whole split.

Boxes are x0, y0, x1, y1 in pixels; sizes of objects are areas in these pixels, which should be the original image's.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SIZES = (
    "all",
    "small",
    "medium",
    "large",
)  # of objects, as pycocotools orders them: up to 32 x 32, to 96 x 96 pixels
LIMITS = (1, 10, 100)  # detections of an image, for each class
METRIC_NAMES = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)


@dataclass(frozen=True)
class Objects:
    """An image's objects, true or detected."""

    boxes: np.ndarray
    """[N, 4], x0, y0, x1, y1 in pixels."""
    labels: np.ndarray
    """The classes, int [N]."""
    scores: np.ndarray | None = None
    """The confidence of each detection, [N]; None for true objects."""


@dataclass(frozen=True)
class BoxScores:
    """Precision and recall by IoU threshold (T: 0.5 to 0.95), class (K) and size of objects (A: SIZES).

    They are NaN for a class without true objects of a size.
    """

    precision: np.ndarray
    """[T, R, K, A], at each of 101 recalls, with 100 detections at most."""
    recall: np.ndarray
    """[T, K, A, L], the highest, for each of LIMITS."""
    support: np.ndarray
    """The number of true objects of each class, int [K]."""

    def metrics(self) -> dict[str, float]:
        """COCO's twelve figures, 0 to 1; those of sizes that no true object has are left out."""
        values = {
            "ap": self.precision[..., 0],
            "ap50": self.precision[0, ..., 0],
            "ap75": self.precision[5, ..., 0],
        }
        values |= {f"ar_{limit}": self.recall[:, :, 0, place] for place, limit in enumerate(LIMITS)}
        found = {name: float(np.nan_to_num(mean(value))) for name, value in values.items()}
        for place, size in enumerate(SIZES[1:], 1):
            found[f"ap_{size}"] = mean(self.precision[..., place])
            found[f"ar_{size}"] = mean(self.recall[:, :, place, -1])
        return {name: found[name] for name in METRIC_NAMES if not np.isnan(found[name])}

    def per_class(self) -> dict[str, np.ndarray]:
        """`ap`, `ap50`, `ap75`, `recall` (at 100 detections) and `support` of each class, [K]; NaN without objects."""
        whole = self.precision[..., 0]  # [T, R, K]
        return {
            "ap": whole.mean((0, 1)),
            "ap50": whole[0].mean(0),
            "ap75": whole[5].mean(0),
            "recall": self.recall[:, :, 0, -1].mean(0),
            "support": self.support,
        }


def score_boxes(predicted: Sequence[Objects], true: Sequence[Objects], num_classes: int) -> BoxScores:
    """Compares the detections of each image with its true objects.

    Args:
      predicted: the detections of each image, with scores; of each class the 100 surest count.
      true: the true objects of each image.
      num_classes: K.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    both = []
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        for images in (true, predicted):
            coco = COCO()
            coco.dataset = {
                "images": [{"id": image} for image in range(len(images))],
                "categories": [{"id": label} for label in range(num_classes)],
                "annotations": annotations(images),
            }
            coco.createIndex()
            both.append(coco)
        evaluation = COCOeval(*both, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = (
        np.where(evaluation.eval[name] < 0, np.nan, evaluation.eval[name]) for name in ("precision", "recall")
    )
    labels = np.concatenate([np.zeros(0, int), *(image.labels for image in true)])
    return BoxScores(precision[..., -1], recall, np.bincount(labels, minlength=num_classes))


def annotations(images: Sequence[Objects]) -> list[dict[str, Any]]:
    """COCO's annotations of all images' objects, numbered from 1: pycocotools takes 0 for none."""
    found: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        scores = np.ones(len(image.labels)) if image.scores is None else image.scores
        for (x0, y0, x1, y1), label, score in zip(image.boxes.tolist(), image.labels, scores):
            box = [x0, y0, x1 - x0, y1 - y0]
            one = {"id": len(found) + 1, "image_id": number, "category_id": int(label), "bbox": box}
            found.append({**one, "area": box[2] * box[3], "score": float(score), "iscrowd": 0})
    return found


def mean(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN if all are."""
    there = ~np.isnan(values)
    return float(values[there].mean()) if there.any() else float("nan")
