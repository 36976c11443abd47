"""Batches with objects: what is in them, and what becomes of boxes and pictures that are wrong."""

import io
import logging

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxformer.config.schema import resolve, to_dict
from jaxformer.data import DataConfig, make_batches
from jaxformer.data.base import open_source
from jaxformer.data.cropping import Mosaic, ScaleJitter
from jaxformer.data.kinds.detection import Detection
from jaxformer.data.kinds.images import Images
from jaxformer.data.transforms import Flip
from jaxformer.data.writing import write_dataset
from jaxformer.drawing import colour
from jaxformer.errors import UserError
from jaxformer.importing.show import contact_sheet, with_examples

CLASSES = ["cat", "dog"]


def jpeg(seed: int = 0, height: int = 40, width: int = 60) -> bytes:
    buffer = io.BytesIO()
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(image).save(buffer, format="JPEG")
    return buffer.getvalue()


def obj(label: int, *box: float, crowd: bool = False) -> dict:
    """`box` is x0, y0, x1, y1 as shares."""
    return {"bbox": box, "label": label, "crowd": crowd}


GOOD = [obj(0, 0.25, 0.1, 0.5, 0.6), obj(1, 0, 0, 1, 1)]


class RawBox(tfds.features.BBoxFeature):
    """A box that is stored as it is given: x0, y0, x1, y1 -> ymin, xmin, ymax, xmax, even outside of 0..1."""

    def encode_example(self, bbox):
        return np.array([bbox[1], bbox[0], bbox[3], bbox[2]], np.float32)


def write(folder, **splits) -> str:
    """A dataset "pets" of (encoded picture, objects) by split."""
    label = tfds.features.ClassLabel(names=CLASSES)
    objects = tfds.features.Sequence({"bbox": RawBox(), "label": label, "crowd": np.bool_})
    features = {"image": tfds.features.Image(shape=(None, None, 3)), "objects": objects}
    examples = {
        split: [{"image": image, "objects": objects} for image, objects in members]
        for split, members in splits.items()
    }
    place = write_dataset(folder, "pets", "1.0.0", features, examples)
    description = place / "features.json"
    text = description.read_text().replace(f"{RawBox.__module__}.RawBox", BOX)
    description.write_text(text)
    return str(folder)


BOX = "tensorflow_datasets.core.features.bounding_boxes.BBoxFeature"


def batches(folder: str, split: str = "train", train: bool = False, transforms=(), cache="none", **fields):
    settings = Detection(**{"size": (30, 30), "max_objects": 4} | fields)
    config = DataConfig(
        name="pets",
        data_dir=folder,
        examples=settings,
        batch_size=4,
        transforms=transforms,
        eval_transforms=(),
        cache=cache,
    )
    return make_batches(config, split, train=train)


def test_a_batch_has_frames_extents_and_boxes_as_shares(tmp_path):
    folder = write(tmp_path, train=[(jpeg(), GOOD), (jpeg(1, 50, 25), [])])
    made = batches(folder)
    assert made.class_names == CLASSES
    assert made.sizes == {"num_classes": 2}
    assert made.facts == []
    batch = made[0]
    assert batch["image"].shape == (4, 30, 30, 3)
    assert batch["extent"].tolist()[:2] == [[20, 30], [30, 15]]
    assert batch["original_size"].tolist()[:2] == [[40, 60], [50, 25]]
    assert not batch["image"][0, 20:].any()
    assert not batch["image"][1, :, 15:].any()
    np.testing.assert_allclose(batch["boxes"][0, :2], [[0.375, 0.35, 0.25, 0.5], [0.5, 0.5, 1, 1]], atol=1e-6)
    assert batch["labels"].tolist()[:2] == [[0, 1, -1, -1], [-1] * 4]  # the second has no objects
    assert not batch["boxes"][1].any()
    assert batch["example_mask"].tolist() == [True, True, False, False]
    for key, (shape, dtype) in made.element_spec.items():
        assert batch[key].shape == (4, *shape)
        assert batch[key].dtype == dtype


def test_boxes_outside_are_clipped_or_dropped_and_that_is_said(tmp_path):
    objects = [
        obj(0, -0.2, 0.5, 0.5, 1.25),
        obj(1, 1.1, 0, 1.4, 0.5),
        obj(1, 0.5, 0.5, 0.5, 0.9),
        obj(1, 0.9, 0, 0.1, 1),
    ]
    folder = write(tmp_path, train=[(jpeg(), objects), (jpeg(1), GOOD)])
    made = batches(folder)
    assert made[0]["labels"][0].tolist() == [0, -1, -1, -1]
    np.testing.assert_allclose(made[0]["boxes"][0, 0], [0.25, 0.75, 0.5, 0.5], atol=1e-6)
    assert made.facts == [
        "train: boxes that reach out of their images, and are clipped: 1",
        "train: boxes without an area in their images, which are dropped: 3",
    ]
    with pytest.raises(UserError, match=r"pets/1.0.0, split 'train', index 0: the box \(0, 1.1, 0.5, 1.4\)"):
        batches(folder, bad_boxes="refuse")


def test_objects_beyond_the_most_are_counted(tmp_path):
    many = [obj(0, 0, 0, 0.1 * n, 0.1 * n) for n in range(1, 8)]
    folder = write(tmp_path, train=[(jpeg(), many), (jpeg(), GOOD)])
    made = batches(folder)
    assert made.facts == [
        "train: images with more than 4 objects (data.examples.max_objects): 1; their smallest are left out, 3 in all"
    ]
    np.testing.assert_allclose(made[0]["boxes"][0, :, 2], [0.4, 0.5, 0.6, 0.7], atol=1e-6)


def test_crowds_are_left_out_if_they_are_marked(tmp_path):
    folder = write(tmp_path, train=[(jpeg(), [obj(0, 0, 0, 1, 1, crowd=True), *GOOD])])
    assert batches(folder)[0]["labels"][0].tolist() == [0, 0, 1, -1]
    made = batches(folder, crowd_feature="crowd")
    assert made[0]["labels"][0].tolist() == [0, 1, -1, -1]
    true = made.source.truth(0)  # an evaluation neither asks for them nor counts what is found in them
    assert true["crowds"].tolist() == [True, False, False]
    assert true["labels"].tolist() == [0, 0, 1]


def test_unknown_classes_are_refused(tmp_path):
    folder = write(tmp_path, train=[(jpeg(), GOOD)])
    source = open_source(DataConfig(name="pets", data_dir=folder, examples=Detection(size=9)), "train")
    source._num_classes = 1
    with pytest.raises(
        UserError, match="index 0: an object's class is 1, and the dataset has the classes 0 to 0"
    ):
        source.read([0])


def test_evaluations_may_have_another_frame(tmp_path):
    folder = write(tmp_path, train=[(jpeg(), GOOD)])
    assert batches(folder, eval_size=(60, 90))[0]["image"].shape == (4, 60, 90, 3)
    assert batches(folder, train=True, eval_size=(60, 90))[0]["image"].shape == (4, 30, 30, 3)


def test_transforms_move_boxes_and_give_the_same_batch_anywhere(tmp_path):
    folder = write(tmp_path, train=[(jpeg(seed), GOOD) for seed in range(5)])
    flipped = batches(folder, train=True, transforms=(Flip(1),))[0]
    np.testing.assert_allclose(flipped["boxes"][0, 0], [0.625, 0.35, 0.25, 0.5], atol=1e-6)
    transforms = (Mosaic(0.8), ScaleJitter(), Flip())
    cached = batches(folder, train=True, transforms=transforms, cache="memory")
    made = batches(folder, train=True, transforms=transforms)
    for step in (3, 0):
        for key, value in made[step].items():
            np.testing.assert_array_equal(value, cached[step][key])
            halves = [made.local(step, part, 2)[key] for part in (0, 1)]
            np.testing.assert_array_equal(value, np.concatenate(halves))
    assert (made[0]["labels"] >= 0).any()


def test_truncated_pictures_are_named_and_refused_or_skipped(tmp_path, caplog):
    members = [(jpeg(0), GOOD), (jpeg(1)[:400], GOOD), (jpeg(2), GOOD[:1])]
    folder = write(tmp_path, train=members, broken=members[1:2])
    with pytest.raises(
        UserError, match=r"split 'train', index 1: broken image .*data.examples.broken='skip'"
    ):
        batches(folder)[0]
    with caplog.at_level(logging.WARNING, "jaxformer"):
        made = batches(folder, broken="skip")
        batch = made[0]
        made[0]
    assert batch["example_mask"].tolist() == [True, False, True, False]
    assert not batch["image"][1].any()
    assert "readable" not in batch
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1  # once
    assert said[0].startswith("dataset pets/1.0.0, split 'train', index 1: broken image (")
    training = batches(folder, train=True, broken="skip")
    rows = np.concatenate([training[step]["labels"] for step in range(3)])
    assert (rows[:, 0] == 0).all()
    assert (
        rows[:, 1] == -1
    ).sum() == 8  # the next stands in for the broken one: two of three epochs' examples
    assert "example_mask" not in training[0]
    with pytest.raises(UserError, match="split 'broken': all of its images are broken"):
        batches(folder, "broken", broken="skip")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"objects_feature": "object"},
            "data.examples.objects_feature: pets/1.0.0 has no feature 'object'; did you mean 'objects'",
        ),
        (
            {"bbox_feature": "box"},
            "data.examples.bbox_feature: objects of pets/1.0.0 have no feature 'box'; did you mean",
        ),
        ({"label_feature": "labels"}, "data.examples.label_feature: .*did you mean 'label'"),
        ({"crowd_feature": "iscrowd"}, "data.examples.crowd_feature: .*did you mean 'crowd'"),
        ({"bbox_feature": "label"}, "'label' of pets/1.0.0 is ClassLabel.*not a TFDS BBoxFeature"),
        ({"image_feature": "objects"}, "data.examples.image_feature"),
    ],
)
def test_features_that_are_not_there_are_named(tmp_path, fields, message):
    folder = write(tmp_path, train=[(jpeg(), GOOD)])
    with pytest.raises(UserError, match=message):
        batches(folder, **fields)


def test_configs_are_checked():
    errors: list[str] = []
    examples = {"name": "detection", "size": [0, 3], "max_objects": 0, "eval_size": 0}
    resolve(DataConfig, {"examples": examples}, "data", errors)
    assert [line.split(":")[0] for line in errors] == [
        "data.examples.size[0]=0",
        "data.examples.eval_size=0",
        "data.examples.max_objects=0",
    ]
    errors.clear()
    config = resolve(DataConfig, {"examples": {"name": "detection", "size": 64}}, "data", errors)
    assert errors == []
    assert to_dict(config)["examples"]["name"] == "detection"


def test_pictures_of_classes_may_be_skipped_too(digits_dir):
    config = DataConfig(data_dir=digits_dir, examples=Images(broken="skip"), batch_size=8)
    source = open_source(config, "train")
    decode, marks = source.image, iter([True, False, True])

    def picture(features):
        if not next(marks):
            raise ValueError("half a picture")
        return decode(features)

    source.image = picture
    assert [example is None for example in source.read([0, 1, 2])] == [False, True, False]


def test_a_contact_sheet_is_whole_or_not_there(tmp_path, monkeypatch):
    config = with_examples(DataConfig(name="pets", data_dir=write(tmp_path, train=[(jpeg(), GOOD[:1])])))
    sheet = tmp_path / "sheet.png"

    def torn(image, path, **_):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        contact_sheet(config, "train", sheet, 1)
    assert not sheet.exists()


def test_contact_sheets_draw_boxes(tmp_path):
    white = io.BytesIO()
    Image.new("RGB", (60, 40), "white").save(white, format="PNG")
    folder = write(tmp_path, train=[(white.getvalue(), GOOD[:1])])
    config = with_examples(DataConfig(name="pets", data_dir=folder))
    assert isinstance(config.examples, Detection)
    sheet = np.array(Image.open(contact_sheet(config, "train", tmp_path / "sheet.png", 1)))
    assert (sheet == colour(0)).all(-1).any()


def test_bccd(shared_dir):
    config = DataConfig(
        name="bccd",
        data_dir=shared_dir("bccd"),
        examples=Detection(size=(120, 160), max_objects=40),
        batch_size=72,
    )
    made = make_batches(config, "test", train=False)
    assert made.class_names == ["RBC", "WBC", "Platelets"]
    assert made.num_examples == 72
    batch = made[0]
    there = batch["labels"] >= 0
    assert set(np.unique(batch["labels"])) == {-1, 0, 1, 2}
    assert there.any(1).all()
    boxes = batch["boxes"][there]
    assert (boxes[:, :2] - boxes[:, 2:] / 2 > -1e-5).all()
    assert (boxes[:, :2] + boxes[:, 2:] / 2 < 1 + 1e-5).all()
    assert (boxes[:, 2:] > 0).all()
    assert (batch["extent"] == [120, 160]).all()
    assert (batch["original_size"] == [480, 640]).all()
    dark = [  # white blood cells are the purple ones: darker in green than the picture around them
        image[int(y0) : int(y1), int(x0) : int(x1), 1].mean() < image[:, :, 1].mean() - 10
        for image, rows, labels in zip(batch["image"], batch["boxes"], batch["labels"])
        for (x0, y0, x1, y1) in corners(rows[labels == 1]) * [160, 120, 160, 120]
    ]
    assert len(dark) > 60
    assert np.mean(dark) > 0.9


def corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
