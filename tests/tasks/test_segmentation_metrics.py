"""Confusion of pixels against scikit-learn's, and what it means against definitions."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score

from jaxformer.tasks.metrics import accuracy, mean, per_class, pixel_confusion


def masks(seed: int, num_classes: int, shape=(2, 17, 23)):
    rng = np.random.default_rng(seed)
    true = rng.integers(-1, num_classes, shape).astype(np.int32)
    predicted = np.where(rng.random(shape) < 0.6, true.clip(0), rng.integers(0, num_classes, shape))
    return predicted.astype(np.int32), true


@pytest.mark.parametrize(("seed", "num_classes"), [(0, 2), (1, 5), (2, 11)])
def test_equals_scikit_learn(seed, num_classes):
    predicted, true = masks(seed, num_classes)
    ours = np.asarray(pixel_confusion(predicted, true, num_classes))
    counted = true >= 0
    theirs = confusion_matrix(true[counted], predicted[counted], labels=range(num_classes))
    np.testing.assert_array_equal(ours, theirs)
    expected = jaccard_score(true[counted], predicted[counted], average=None, labels=range(num_classes))
    found = per_class(ours)["iou"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert mean(found) == pytest.approx(expected.mean())
    assert accuracy(ours) == pytest.approx((predicted == true)[counted].mean())


def test_parts_add_up_to_the_whole():
    predicted, true = masks(3, 4)
    parts = sum(np.asarray(pixel_confusion(p, t, 4)) for p, t in zip(predicted, true))
    np.testing.assert_array_equal(parts, pixel_confusion(predicted, true, 4))


def test_ignored_pixels_count_nowhere():
    predicted, true = masks(4, 3)
    nothing = np.asarray(pixel_confusion(predicted, np.full_like(true, -1), 3))
    assert not nothing.any()
    assert (accuracy(nothing), mean(per_class(nothing)["iou"]), mean(per_class(nothing)["recall"])) == (
        0,
        0,
        0,
    )
    other = np.where(true < 0, 2 - predicted, predicted)
    np.testing.assert_array_equal(pixel_confusion(other, true, 3), pixel_confusion(predicted, true, 3))


def test_a_class_that_is_nowhere_does_not_count_in_the_mean():
    confusion = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    found = per_class(confusion)
    np.testing.assert_allclose(found["iou"], [3 / 4, 4 / 5, np.nan])
    np.testing.assert_allclose(found["precision"], [1, 4 / 5, np.nan])
    assert mean(found["iou"]) == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert mean(found["recall"]) == pytest.approx((3 / 4 + 1) / 2)
    predicted_only = np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
    assert per_class(predicted_only)["iou"][2] == 0
