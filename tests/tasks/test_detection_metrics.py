"""Average precision: hand-worked cases, and equality with pycocotools on random problems."""

import contextlib
import io

import numpy as np
import pytest

from jaxformer.tasks.detection_metrics import METRIC_NAMES, Objects, score_boxes


def objects(boxes, labels, scores=None) -> Objects:
    boxes = np.array(boxes, float).reshape(-1, 4)
    return Objects(boxes, np.array(labels, int), None if scores is None else np.array(scores, float))


NOTHING = objects([], [])
FOUND_NOTHING = objects([], [], [])


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes of all sizes in a picture of 400 x 400, on a grid, so that there are equal overlaps."""
    corner = rng.integers(0, 80, (count, 2)) * 4.0
    size = np.exp(rng.uniform(1.5, 5.3, (count, 2))).round()
    return np.concatenate([corner, corner + size], 1)


def random_problem(seed: int, pictures: int = 6, num_classes: int = 3):
    rng = np.random.default_rng(seed)
    predicted, true = [], []
    for _ in range(pictures):
        count = int(rng.integers(0, 9))
        boxes, labels = random_boxes(rng, count), rng.integers(0, num_classes, count)
        true.append(Objects(boxes, labels))
        near = boxes[rng.integers(0, count, 2 * count)] if count else np.zeros((0, 4))
        near = near + rng.normal(0, 1, near.shape).round()
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        found = np.concatenate([near, random_boxes(rng, int(rng.integers(0, 6)))])
        scores = rng.integers(0, 20, len(found)) / 20  # with ties
        predicted.append(Objects(found, rng.integers(0, num_classes, len(found)), scores))
    for objects_of_picture, at in ((predicted, 0), (true, 1)):
        if seed % 3 == at:
            objects_of_picture[0] = FOUND_NOTHING if at == 0 else NOTHING
    return predicted, true, num_classes


def by_pycocotools(predicted, true, num_classes: int):
    """The twelve figures and the precision [T, R, K, A] that the reference gives; -1 where there is nothing."""
    from pycocotools import coco
    from pycocotools.cocoeval import COCOeval

    def annotations(pictures):
        made = []
        for image, found in enumerate(pictures):
            for number, (x0, y0, x1, y1) in enumerate(found.boxes):
                made.append(
                    {
                        "id": len(made) + 1,
                        "image_id": image,
                        "category_id": int(found.labels[number]),
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "iscrowd": int(found.crowds is not None and found.crowds[number]),
                        "area": (x1 - x0) * (y1 - y0),
                    }
                    | ({} if found.scores is None else {"score": found.scores[number]})
                )
        return made

    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = {
            "images": [{"id": image} for image in range(len(true))],
            "categories": [{"id": label} for label in range(num_classes)],
            "annotations": annotations(true),
        }
        reference.createIndex()
        found = coco.COCO()
        found.dataset = reference.dataset | {"annotations": annotations(predicted)}
        found.createIndex()
        evaluation = COCOeval(reference, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats, evaluation.eval["precision"][..., -1]


@pytest.mark.parametrize("seed", range(12))
def test_equals_pycocotools(seed):
    predicted, true, num_classes = random_problem(seed)
    metrics, per_class = score_boxes(predicted, true, num_classes)
    stats, precision = by_pycocotools(predicted, true, num_classes)
    assert stats[0] > 0.02
    for name, value in zip(METRIC_NAMES, stats):
        assert metrics.get(name, -1) == pytest.approx(value, abs=1e-6), name
    whole = precision[..., 0].mean(1)  # [T, K]
    for name, expected in (("ap", whole.mean(0)), ("ap50", whole[0]), ("ap75", whole[5])):
        np.testing.assert_allclose(np.nan_to_num(per_class[name], nan=-1), expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_crowds_are_ignored_as_by_pycocotools(seed):
    predicted, true, num_classes = random_problem(seed, pictures=9)
    rng = np.random.default_rng(seed)
    true = [Objects(one.boxes, one.labels, crowds=rng.random(len(one.labels)) < 0.4) for one in true]
    metrics, per_class = score_boxes(predicted, true, num_classes)
    stats, precision = by_pycocotools(predicted, true, num_classes)
    for name, value in zip(METRIC_NAMES, stats):
        assert metrics.get(name, -1) == pytest.approx(value, abs=1e-6), name
    np.testing.assert_allclose(per_class["ap"], precision[..., 0].mean((0, 1)), atol=1e-6)
    single = np.concatenate([one.labels[~one.crowds] for one in true])
    np.testing.assert_array_equal(per_class["support"], np.bincount(single, minlength=num_classes))
    without = [Objects(one.boxes[~one.crowds], one.labels[~one.crowds]) for one in true]
    assert (
        score_boxes(predicted, without, num_classes)[0]["ap"] < metrics["ap"]
    )  # what is found in them is wrong


def test_of_equal_overlaps_the_last_object_is_taken_as_by_pycocotools():
    true = [objects([[0, 0, 10, 10], [2, 0, 12, 10]], [0, 0])]
    # The first is as near to both; the second is near to the first object alone (0.82), which has to be free still.
    predicted = [objects([[1, 0, 11, 10], [-1, 0, 9, 10]], [0, 0], [0.9, 0.8])]
    ours = score_boxes(predicted, true, 1)[0]["ap"]
    assert ours == pytest.approx(by_pycocotools(predicted, true, 1)[0][0], abs=1e-6)
    assert ours == pytest.approx(0.7)  # all is found at the thresholds 0.5 to 0.8


def test_more_than_a_hundred_detections_of_a_class_count_as_pycocotools_does():
    rng = np.random.default_rng(0)
    true = [objects(random_boxes(rng, 30), np.zeros(30, int))]
    boxes = np.concatenate([random_boxes(rng, 120), true[0].boxes])
    predicted = [objects(boxes, np.zeros(150, int), rng.random(150))]
    ours, _ = score_boxes(predicted, true, 1)
    stats, _ = by_pycocotools(predicted, true, 1)
    assert ours["ap"] == pytest.approx(stats[0], abs=1e-6)
    assert ours["ar_10"] == pytest.approx(stats[7], abs=1e-6)


def test_what_is_found_exactly_is_perfect_and_what_is_not_found_is_nothing():
    true = [objects([[0, 0, 40, 40], [50, 50, 200, 200]], [0, 1]), objects([[5, 5, 20, 20]], [0])]
    found = [objects(t.boxes, t.labels, np.full(len(t.labels), 0.9)) for t in true]
    assert score_boxes(found, true, 2)[0] == pytest.approx(dict.fromkeys(METRIC_NAMES, 1.0))
    assert score_boxes([FOUND_NOTHING] * 2, true, 2)[0]["ap"] == 0


def test_one_of_two_found_with_a_false_one_before_it():
    true = [objects([[0, 0, 100, 100], [200, 200, 300, 300]], [0, 0])]
    found = [objects([[400, 400, 500, 500], [0, 0, 100, 60]], [0, 0], [0.9, 0.8])]
    metrics = score_boxes(found, true, 1)[0]
    # IoU 0.6 and precision 1 / 2 up to recall 1 / 2: 51 of the 101 recalls, at the thresholds 0.5, 0.55 and 0.6.
    assert metrics["ap50"] == pytest.approx(0.5 * 51 / 101)
    assert metrics["ap75"] == 0
    assert metrics["ap"] == pytest.approx(0.5 * 51 / 101 * 3 / 10)
    assert metrics["ar_1"] == 0
    assert metrics["ar_10"] == pytest.approx(0.5 * 3 / 10)
    assert "ap_small" not in metrics


def test_an_object_is_found_once():
    true = [objects([[0, 0, 100, 100]], [0])]
    found = [objects([[0, 0, 100, 100], [0, 0, 100, 99]], [0, 0], [0.9, 0.8])]
    assert score_boxes(found, true, 1)[0]["ap"] == pytest.approx(
        1
    )  # the second is false, but after all recall
    swapped = [objects(found[0].boxes, [0, 0], [0.8, 0.9])]
    metrics = score_boxes(swapped, true, 1)[0]
    assert metrics["ap50"] == pytest.approx(1)


def test_pictures_without_objects_count_their_detections_as_false():
    true = [objects([[0, 0, 100, 100]], [0]), NOTHING]
    found = [objects([[0, 0, 100, 100]], [0], [0.5]), objects([[0, 0, 9, 9]], [0], [0.9])]
    assert score_boxes(found, true, 1)[0]["ap"] == pytest.approx(0.5)
    metrics, per_class = score_boxes([FOUND_NOTHING], [NOTHING], 2)
    assert metrics["ap"] == 0
    assert np.isnan(per_class["ap"]).all()
    assert per_class["support"].tolist() == [0, 0]


def test_nothing_is_printed(capsys):
    score_boxes([FOUND_NOTHING], [objects([[0, 0, 9, 9]], [0])], 1)
    assert capsys.readouterr().out == ""
