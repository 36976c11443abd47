"""Boxes are scored in pixels of the images as they are stored, whatever an evaluation's transforms do to the images."""

import contextlib
import io
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.scenes import png
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jaxformer.data import DataConfig, make_batches
from jaxformer.data.kinds.detection import Detection as DetectionKind
from jaxformer.data.transforms import CenterCrop
from jaxformer.data.writing import write_dataset
from jaxformer.tasks.detection import Detection
from jaxformer.tasks.detection_metrics import METRIC_NAMES

SIZES = [(40, 60), (90, 50), (64, 64)]  # height, width
# Of each image: x, y, width, height in its pixels, class and whether it is a crowd, as COCO writes annotations.
TRUE = [
    [((4, 4, 20, 16), 0, False), ((30, 8, 28, 30), 1, False), ((14, 20, 16, 20), 1, True)],
    [((10, 30, 30, 40), 1, False), ((2, 2, 12, 12), 0, False)],
    [((16, 16, 36, 40), 0, False)],
]
# What a detector is to find in each: a box in its pixels, class and score; exact, shifted, in a crowd, and wrong.
FOUND = [
    [((5, 4, 20, 16), 0, 0.9), ((28, 8, 28, 30), 1, 0.6), ((15, 22, 10, 9), 1, 0.8)],
    [((12, 34, 28, 38), 1, 0.7), ((20, 20, 12, 30), 1, 0.95)],
    [((16, 16, 36, 40), 0, 0.5), ((18, 20, 30, 26), 0, 0.85)],
]


def resized_and_cut(height, width):
    """By hand: the shorter side becomes 48, then 40 x 40 of the middle. Returns scales and offsets of x and y."""
    short = min(height, width)
    new = [round(side * 48 / short) for side in (width, height)]
    scales = np.array(new) / (width, height)
    return scales, np.array([int((side - 40) / 2) for side in new]), (40, 40)


def kept_in_shape(height, width):
    """By hand: the image fills the frame of 80 x 80 as far as its shape allows."""
    new = [round(side * 80 / max(height, width)) for side in (width, height)]
    return np.array(new) / (width, height), np.zeros(2, int), tuple(new)


WAYS = {
    "resized to fit": ((), 80, kept_in_shape),
    "resized and cut": ((CenterCrop(40, shorter_side=48),), 40, resized_and_cut),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng, examples = np.random.default_rng(0), []
    for (height, width), objects in zip(SIZES, TRUE):
        made = [
            {"bbox": tfds.features.BBox(y / height, x / width, (y + h) / height, (x + w) / width), "label": label,
             "is_crowd": crowd}
            for (x, y, w, h), label, crowd in objects
        ]  # fmt: skip
        image = png(rng.integers(0, 256, (height, width, 3), np.uint8))
        examples.append({"image": image, "objects": made})
    one = {
        "bbox": tfds.features.BBoxFeature(),
        "label": tfds.features.ClassLabel(names=["a", "b"]),
        "is_crowd": np.bool_,
    }
    features = {"image": tfds.features.Image(), "objects": tfds.features.Sequence(one)}
    place = tmp_path_factory.mktemp("datasets")
    write_dataset(place, "stored", "1.0.0", features, {"test": examples})
    return place


def by_pycocotools(cut):
    """COCO's twelve figures of the annotations as they are, where `cut` says what of each image a model saw."""
    both = []
    with contextlib.redirect_stdout(io.StringIO()):
        for images in (TRUE, FOUND):
            annotations = []
            for number, objects in enumerate(images):
                for (x, y, w, h), label, last in objects:
                    one = {"id": len(annotations) + 1, "image_id": number, "category_id": label, "iscrowd": 0}
                    if images is TRUE:
                        one["iscrowd"] = int(last)
                    else:
                        left, top, right, bottom = cut(number)
                        (x0, x1), (y0, y1) = (
                            np.clip([x, x + w], left, right),
                            np.clip([y, y + h], top, bottom),
                        )
                        x, y, w, h = x0, y0, x1 - x0, y1 - y0
                        one["score"] = last
                    annotations.append({**one, "bbox": [x, y, w, h], "area": w * h})
            coco = COCO()
            coco.dataset = {
                "images": [{"id": number} for number in range(len(SIZES))],
                "categories": [{"id": label} for label in range(2)],
                "annotations": json.loads(json.dumps(annotations)),
            }
            coco.createIndex()
            both.append(coco)
        evaluation = COCOeval(*both, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("way", WAYS)
def test_average_precision_is_that_of_the_stored_annotations(way, folder):
    transforms, size, geometry = WAYS[way]
    config = DataConfig(
        name="stored",
        data_dir=str(folder),
        batch_size=4,
        examples=DetectionKind(size=size, max_objects=4, crowd_feature="is_crowd"),
        eval_transforms=transforms,
    )
    data = make_batches(config, "test", train=False)
    batch = data[0]
    boxes, classes, scores = np.zeros((3, 3, 4), np.float32), np.zeros((3, 3), int), np.zeros((3, 3))
    scores[:] = 1e-9  # of no box: after all others
    seen = []
    for row, (objects, stored) in enumerate(zip(FOUND, SIZES)):
        scale, offset, shown = geometry(*stored)
        assert batch["extent"][row].tolist() == [shown[1], shown[0]]
        seen.append((*(offset / scale), *((offset + shown) / scale)))
        for number, ((x, y, w, h), label, score) in enumerate(objects):
            low, high = np.array([x, y]) * scale - offset, np.array([x + w, y + h]) * scale - offset
            boxes[row, number] = [*((low + high) / 2 / shown), *((high - low) / shown)]
            classes[row, number], scores[row, number] = label, score
    collected = {
        "index": np.arange(3),
        "boxes": boxes,
        "classes": classes,
        "scores": scores,
        "size": batch["original_size"][:3],
        "place": batch["place"][:3],
    }
    found = Detection().summarize({}, collected, data).metrics
    expected = by_pycocotools(seen.__getitem__)
    assert 0.1 < expected[0] < 0.9
    for name, value in zip(METRIC_NAMES, expected):
        assert found.get(name, -1) == pytest.approx(max(value, 0) if name in found else value, abs=1e-4), name
