"""Boxes stand where they should, in their classes' colours, in reports as in pictures that are predicted."""

from types import SimpleNamespace

import numpy as np

from jaxformer import drawing
from jaxformer.drawing import draw_boxes, font
from jaxformer.evaluation.samples import shown_image
from jaxformer.observe.samples import write_samples
from jaxformer.tasks.detection import Detection

GREY = np.full((40, 60, 3), 128, np.uint8)
ONE = {"label": "cell", "index": 2, "box": [12.0, 10.0, 48.0, 30.0]}


def test_a_box_is_drawn_around_its_object():
    picture = draw_boxes(GREY, [ONE], 120, font(8))
    assert picture.shape == (80, 120, 3)
    changed = np.argwhere((picture != 128).any(-1))
    assert changed.min(0).tolist() == [20, 24]
    assert changed.max(0).tolist() == [59, 95]
    np.testing.assert_array_equal(picture[59, 24:96], np.broadcast_to(drawing.colour(2), (72, 3)))
    assert (picture[45:58, 30:90] == 128).all()  # inside nothing is hidden
    sure = draw_boxes(GREY, [{**ONE, "score": 0.5}], 120, font(8))
    assert (sure != picture).any()


def test_pictures_without_objects_and_boxes_at_the_edge_are_drawn():
    assert (draw_boxes(GREY[..., :1], [], 60, font(8)) == 128).all()
    for box in ([0.0, 0.0, 60.0, 40.0], [59.5, 39.5, 60.0, 40.0], [5.0, 5.0, 5.0, 5.0]):
        assert draw_boxes(GREY, [{**ONE, "box": box}], 30, font(8)).shape == (20, 30, 3)


def test_a_report_shows_what_is_true_and_what_was_found(tmp_path):
    example = {"image": np.pad(GREY, [(0, 24), (0, 4), (0, 0)]), "extent": np.array([40, 60])}
    example |= {"boxes": np.array([[0.5, 0.5, 0.6, 0.5]]), "labels": np.array([1])}
    found = {"boxes": np.array([[0.5, 0.5, 0.2, 0.2]]), "classes": np.array([0]), "scores": np.array([0.9])}
    task, about = Detection(), SimpleNamespace(class_names=["platelet", "cell"])
    sample = task.sample(example, found, about)
    shown = shown_image(example, sample, {}, task.compare(example, found, sample))
    assert shown.image.shape == GREY.shape
    assert sorted(shown.drawn) == ["prediction", "truth"]
    assert [entry["name"] for entry in shown.said["legend"]] == ["platelet", "cell"]
    folder = write_samples(tmp_path, [shown], kind="samples")
    assert {path.name for path in folder.glob("*.png")} == {"000.png", "000-truth.png", "000-prediction.png"}
