"""Average precision of boxes as COCO defines it (Lin et al. 2014; its evaluation code), in NumPy, over a whole split.

Boxes are x0, y0, x1, y1 in pixels; sizes of objects are areas in these pixels, which should be the original picture's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the IoU, [T]
RECALLS = np.linspace(0, 1, 101)  # at which the precision is averaged, [R]
AREAS = {  # smallest and largest, in pixels; both count
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
LIMITS = (1, 10, 100)  # detections in a picture, of each class
METRIC_NAMES = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)


@dataclass(frozen=True)
class Objects:
    """A picture's objects, true or detected."""

    boxes: np.ndarray
    """[N, 4], x0, y0, x1, y1 in pixels."""
    labels: np.ndarray
    """Int [N], their classes."""
    scores: np.ndarray | None = None
    """[N], how sure each detection is; None for true objects."""
    crowd: np.ndarray | None = None
    """Bool [N], true objects that are many in one box: what is found in them counts neither way; None is
    none."""
    area: np.ndarray | None = None
    """[N], sizes of true objects if they are not their boxes' (COCO's are their masks'); None takes the
    boxes'."""


@dataclass(frozen=True)
class BoxScores:
    """Precision and recall; NaN for a class without true objects of a size."""

    precision: np.ndarray
    """[T, R, K, A], at each recall, with 100 detections at most."""
    recall: np.ndarray
    """[T, K, A, L], the highest."""
    support: np.ndarray
    """Int [K], true objects of each class, without crowds."""

    def metrics(self) -> dict[str, float]:
        """COCO's twelve figures, 0 to 1; those of sizes that no true object has are left out, and `ap` is 0 then."""
        values = {
            "ap": self.precision[..., 0],
            "ap50": self.precision[0, ..., 0],
            "ap75": self.precision[5, ..., 0],
        }
        values |= {f"ap_{name}": self.precision[..., place] for place, name in enumerate(AREAS) if place}
        values |= {f"ar_{limit}": self.recall[:, :, 0, place] for place, limit in enumerate(LIMITS)}
        values |= {f"ar_{name}": self.recall[:, :, place, -1] for place, name in enumerate(AREAS) if place}
        always = {"ap", "ap50", "ap75", *(f"ar_{limit}" for limit in LIMITS)}
        means = {name: mean(value) for name, value in values.items()}
        return {n: 0.0 if np.isnan(m) else m for n, m in means.items() if n in always or not np.isnan(m)}

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


@dataclass(frozen=True)
class Matches:
    """What became of the detections of one class in one picture, the surest first; A sizes, T thresholds."""

    scores: np.ndarray
    """[D]."""
    matched: np.ndarray
    """Bool [A, T, D], whether a true object was found."""
    ignored: np.ndarray
    """Bool [A, T, D], whether it counts neither way."""
    positives: np.ndarray
    """Int [A], the true objects that are to be found."""


def score_boxes(predicted: Sequence[Objects], true: Sequence[Objects], num_classes: int) -> BoxScores:
    """Compares what was detected in each picture with what is there.

    Args:
      predicted: of each picture the detections, with scores; of each class the 100 surest count.
      true: of each picture the true objects.
      num_classes: K.
    """
    shape = len(THRESHOLDS), num_classes, len(AREAS)
    precision = np.full((shape[0], len(RECALLS), *shape[1:]), np.nan)
    recall = np.full((*shape, len(LIMITS)), np.nan)
    support = np.zeros(num_classes, np.int64)
    for label in range(num_classes):
        pairs = (match(of_class(p, label), of_class(t, label)) for p, t in zip(predicted, true, strict=True))
        matches = [found for found in pairs if found is not None]
        positives = (
            np.sum([found.positives for found in matches], axis=0) if matches else np.zeros(len(AREAS), int)
        )
        support[label] = positives[0]
        for area in np.flatnonzero(positives):
            for place, limit in enumerate(LIMITS):
                tp, fp = sorted_hits(matches, int(area), limit)
                recall[:, label, area, place] = tp[:, -1] / positives[area] if tp.shape[1] else 0
            precision[:, :, label, area] = interpolated(tp, fp, int(positives[area]))
    return BoxScores(precision, recall, support)


def of_class(objects: Objects, label: int) -> Objects:
    """The objects of one class."""
    chosen = np.asarray(objects.labels) == label

    def part(values: Any) -> Any:
        return None if values is None else np.asarray(values)[chosen]

    boxes = np.asarray(objects.boxes, np.float64).reshape(-1, 4)[chosen]
    return Objects(boxes, part(objects.labels), part(objects.scores), part(objects.crowd), part(objects.area))


def match(predicted: Objects, true: Objects) -> Matches | None:
    """Gives each detection, the surest first, the free true object that it overlaps most; None if there is nothing.

    Objects that count neither way (crowds, other sizes) are taken only where no other is overlapped enough, and a
    crowd by any number of detections. Of equal overlaps the last is taken, as in COCO's code.
    """
    count = len(true.labels)
    if not count and not len(predicted.labels):
        return None
    assert predicted.scores is not None
    order = np.argsort(-predicted.scores, kind="stable")[: LIMITS[-1]]
    boxes, scores = predicted.boxes[order], predicted.scores[order]
    crowd = np.zeros(count, bool) if true.crowd is None else true.crowd.astype(bool)
    sizes = box_areas(true.boxes) if true.area is None else true.area
    apart = crowd | outside(sizes)  # [A, G]
    ious = overlaps(boxes, true.boxes, crowd)  # [D, G]
    free = np.ones((len(AREAS), len(THRESHOLDS), count), bool)
    matched = np.zeros((*free.shape[:2], len(boxes)), bool)
    ignored = np.zeros_like(matched)
    enough = np.minimum(THRESHOLDS, 1 - 1e-10)
    for number in range(len(boxes) if count else 0):
        near = (free | crowd) & (ious[number] >= enough[:, None])  # [A, T, G]
        wanted = near & ~apart[:, None]
        near = np.where(wanted.any(-1, keepdims=True), wanted, near)
        best = count - 1 - np.argmax(np.where(near, ious[number], -1)[..., ::-1], axis=-1)  # [A, T]
        hit = near.any(-1)
        matched[..., number] = hit
        ignored[..., number] = hit & np.take_along_axis(apart, best, axis=1)
        area, threshold = np.nonzero(hit)
        free[area, threshold, best[hit]] = False
    ignored |= ~matched & outside(box_areas(boxes))[:, None]
    return Matches(scores, matched, ignored, (~apart).sum(1))


def sorted_hits(matches: Sequence[Matches], area: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives among the surest detections, float64 [T, n] each, for every n."""
    if not matches:
        return np.zeros((len(THRESHOLDS), 0)), np.zeros((len(THRESHOLDS), 0))
    order = np.argsort(-np.concatenate([m.scores[:limit] for m in matches]), kind="stable")
    matched = np.concatenate([m.matched[area, :, :limit] for m in matches], axis=1)[:, order]
    counts = ~np.concatenate([m.ignored[area, :, :limit] for m in matches], axis=1)[:, order]
    return np.cumsum(matched & counts, 1).astype(np.float64), np.cumsum(~matched & counts, 1).astype(
        np.float64
    )


def interpolated(tp: np.ndarray, fp: np.ndarray, positives: int) -> np.ndarray:
    """[T, R] of [T, n]: the highest precision at each recall or a higher one, 0 where none is reached."""
    precision = tp / np.maximum(tp + fp, np.finfo(np.float64).tiny)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    made = np.zeros((len(tp), len(RECALLS)))
    for row, values, recalls in zip(made, precision, tp / positives):
        places = np.searchsorted(recalls, RECALLS, side="left")
        reached = places < len(values)
        row[reached] = values[places[reached]]
    return made


def overlaps(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """The IoU of boxes [D, 4] with others [G, 4], [D, G]; with a crowd, the share of the box that is in it."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.maximum(high - low, 0).prod(-1)
    own = box_areas(boxes)[:, None]
    union = np.where(crowd[None], own, own + box_areas(others)[None] - common)
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """[N] of [N, 4]."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def outside(sizes: np.ndarray) -> np.ndarray:
    """bool [A, N]: which sizes [N] do not belong to each of AREAS."""
    low, high = (np.array(bounds)[:, None] for bounds in zip(*AREAS.values()))
    return (sizes[None] < low) | (sizes[None] > high)


def mean(values: np.ndarray) -> float:
    """Of what is not NaN; NaN if all is."""
    there = ~np.isnan(values)
    return float(values[there].mean()) if there.any() else float("nan")
