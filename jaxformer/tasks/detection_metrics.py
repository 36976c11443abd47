"""Average precision of boxes as COCO defines it (Lin et al. 2014), by pycocotools, over a whole split.

Boxes are x0, y0, x1, y1 in pixels; sizes of objects are areas in these pixels, which should be the original image's.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

METRIC_NAMES = (  # in the order of pycocotools
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)
BoxScores = tuple[dict[str, float], dict[str, np.ndarray]]
BY_SIZE = tuple(name for name in METRIC_NAMES if name.endswith(("small", "medium", "large")))


@dataclass(frozen=True)
class Objects:
    """An image's objects, true or detected."""

    boxes: np.ndarray
    """[N, 4], x0, y0, x1, y1 in pixels."""
    labels: np.ndarray
    """The classes, int [N]."""
    scores: np.ndarray | None = None
    """The confidence of each detection, [N]; None for true objects."""
    crowds: np.ndarray | None = None
    """Which true boxes hold many objects, bool [N]: what is found in them counts neither as right nor as wrong; None:
    no box does."""


def score_boxes(predicted: Sequence[Objects], true: Sequence[Objects], num_classes: int) -> BoxScores:
    """Compares the detections of each image with its true objects.

    Args:
      predicted: the detections of each image, with scores; the 100 surest of each class count.
      true: the true objects of each image.
      num_classes: K.

    Returns:
      COCO's twelve figures, METRIC_NAMES, 0 to 1, without those of sizes that no true object has; and `ap`, `ap50`,
      `ap75`, `recall` (at 100 detections) and `support` (true objects, without crowds) of each class, [K], NaN
      without true objects.
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
        evaluation.summarize()
    stats = dict(zip(METRIC_NAMES, evaluation.stats.tolist()))  # -1 where there is no true object
    found = {name: max(value, 0.0) for name, value in stats.items() if value >= 0 or name not in BY_SIZE}
    # Over thresholds of IoU, 0.5 to 0.95, and recalls 0 to 1, for objects of all sizes and 100 detections.
    precision = np.where(evaluation.eval["precision"] < 0, np.nan, evaluation.eval["precision"])[..., 0, -1]
    recall = np.where(evaluation.eval["recall"] < 0, np.nan, evaluation.eval["recall"])[..., 0, -1]
    single = (image.labels if image.crowds is None else image.labels[~image.crowds] for image in true)
    labels = np.concatenate([np.zeros(0, int), *single])
    return found, {
        "ap": precision.mean((0, 1)),
        "ap50": precision[0].mean(0),
        "ap75": precision[5].mean(0),
        "recall": recall.mean(0),
        "support": np.bincount(labels, minlength=num_classes),
    }


def annotations(images: Sequence[Objects]) -> list[dict[str, Any]]:
    """COCO's annotations of all images' objects, numbered from 1: pycocotools takes 0 for none."""
    found: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        scores = np.ones(len(image.labels)) if image.scores is None else image.scores
        crowds = np.zeros(len(image.labels)) if image.crowds is None else image.crowds
        for (x0, y0, x1, y1), label, score, crowd in zip(image.boxes.tolist(), image.labels, scores, crowds):
            box = [x0, y0, x1 - x0, y1 - y0]
            one = {"id": len(found) + 1, "image_id": number, "category_id": int(label), "bbox": box}
            found.append({**one, "area": box[2] * box[3], "score": float(score), "iscrowd": int(crowd)})
    return found
