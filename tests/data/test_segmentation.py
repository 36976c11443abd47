"""Batches with the class of each pixel, and what becomes of masks that are wrong."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxformer.data import DataConfig, make_batches
from jaxformer.data.cropping import RandomCrop
from jaxformer.data.decoding import decode_mask
from jaxformer.data.kinds.segmentation import Segmentation
from jaxformer.data.transforms import Flip
from jaxformer.data.writing import write_dataset
from jaxformer.errors import UserError
from jaxformer.importing.show import contact_sheet, with_examples

NAMES = ["sky", "road", "nothing", "car"]


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def example(seed: int = 0, ids=(0, 1, 2, 3), mask_size=(20, 30)) -> dict:
    rng = np.random.default_rng(seed)
    mask = rng.choice(np.array(ids, np.uint8), mask_size)
    return {"image": png(rng.integers(0, 256, (20, 30, 3), np.uint8)), "mask": png(mask), "ids": mask}


def write(folder, examples, names=NAMES) -> str:
    kind = tfds.features.Image(shape=(None, None, 1))
    if names:
        kind = tfds.features.LabeledImage(shape=(None, None, 1), labels=names, encoding_format="png")
    features = {"image": tfds.features.Image(shape=(20, 30, 3)), "segmentation_mask": kind}
    stored = [{"image": e["image"], "segmentation_mask": e["mask"]} for e in examples]
    write_dataset(folder, "streets", "1.0.0", features, {"train": stored})
    return str(folder)


def batches(folder: str, train: bool = False, transforms=(), **fields):
    settings = Segmentation(**{"size": (20, 40), "ignore_labels": (2, 255)} | fields)
    config = DataConfig(
        name="streets", data_dir=folder, examples=settings, batch_size=2, transforms=transforms
    )
    return make_batches(config, "train", train=train)


def test_classes_are_numbered_without_the_ignored_ones(tmp_path):
    given = example(ids=(0, 1, 2, 3, 255))
    made = batches(write(tmp_path, [given]))
    assert made.class_names == ["sky", "road", "car"]
    assert made.sizes == {"num_classes": 3}
    batch = made[0]
    assert batch["image"].shape == (2, 20, 40, 3)
    assert batch["segmentation"].dtype == np.int32
    table = np.array([0, 1, -1, 2] + [-1] * 252)
    np.testing.assert_array_equal(batch["segmentation"][0, :, :30], table[given["ids"]])
    assert (batch["segmentation"][0, :, 30:] == -1).all()
    assert batch["extent"][0].tolist() == [20, 30]
    assert batch["original_size"][0].tolist() == [20, 30]
    first = batches(write(tmp_path / "first", [example(ids=(0, 1, 3))]), ignore_labels=(0,))
    assert first.class_names == ["road", "nothing", "car"]


def test_transforms_move_masks(tmp_path):
    folder = write(tmp_path, [example(seed) for seed in range(3)])
    plain = batches(folder, train=True)[0]
    flipped = batches(folder, train=True, transforms=(Flip(1),))[0]
    np.testing.assert_array_equal(flipped["segmentation"][:, :, :30], plain["segmentation"][:, :, 29::-1])
    crops = batches(folder, train=True, transforms=(RandomCrop(16),), size=16)[0]
    assert crops["segmentation"].shape == (2, 16, 16)


def test_masks_of_another_size_are_refused_or_skipped(tmp_path):
    folder = write(tmp_path, [example(), example(1, mask_size=(21, 30))])
    with pytest.raises(UserError, match=r"index 1: broken image \(the mask is 21x30, the image 20x30\)"):
        batches(folder)[0]
    assert batches(folder, broken="skip")[0]["example_mask"].tolist() == [True, False]


def test_unknown_ids_are_refused(tmp_path):
    folder = write(tmp_path, [example(ids=(0, 1, 7, 200))])
    with pytest.raises(UserError, match=r"index 0: the mask has the ids 7, 200, which are no class"):
        batches(folder)
    assert batches(folder, ignore_labels=(7, 200)).class_names == NAMES
    names = tuple(str(number) for number in range(201))
    assert len(batches(folder, class_names=names).class_names) == 200


def test_classes_without_names_have_to_be_named(tmp_path):
    folder = write(tmp_path, [example()], names=None)
    with pytest.raises(
        UserError, match=r"data.examples.class_names: streets/1.0.0 does not say which classes"
    ):
        batches(folder)
    assert batches(folder, class_names=tuple(NAMES)).class_names == ["sky", "road", "car"]
    with pytest.raises(UserError, match="leaves none of the 4 classes"):
        batches(folder, class_names=tuple(NAMES), ignore_labels=(0, 1, 2, 3))
    with pytest.raises(UserError, match=r"data.examples.mask_feature: .*did you mean 'segmentation_mask'"):
        batches(folder, mask_feature="segmentation")
    with pytest.raises(UserError, match=r"'image' of streets/1.0.0 is Image, not an image of one channel"):
        batches(folder, mask_feature="image")


def test_masks_are_decoded_as_ids():
    ids = np.random.default_rng(0).integers(0, 5, (7, 9)).astype(np.uint8)
    palette = Image.fromarray(ids)
    palette.putpalette([value for number in range(256) for value in (number, 255 - number, 7)])
    buffer = io.BytesIO()
    palette.save(buffer, format="PNG")
    np.testing.assert_array_equal(decode_mask(buffer.getvalue()), ids)
    np.testing.assert_array_equal(decode_mask(png(ids)), ids)
    np.testing.assert_array_equal(decode_mask(png(ids.astype(np.uint16) * 1000)), ids.astype(int) * 1000)
    with pytest.raises(ValueError, match="mode RGB"):
        decode_mask(png(np.zeros((2, 2, 3), np.uint8)))
    with pytest.raises(ValueError, match=r"truncated|broken|Truncated"):
        decode_mask(png(np.random.default_rng(0).integers(0, 256, (99, 99), np.uint8))[:2000])


def test_contact_sheets_show_masks(tmp_path):
    config = with_examples(DataConfig(name="streets", data_dir=write(tmp_path, [example()])))
    assert isinstance(config.examples, Segmentation)
    assert contact_sheet(config, "train", tmp_path / "sheet.png", 1).exists()


def test_camvid(shared_dir):
    settings = Segmentation(size=(180, 240), ignore_labels=(11,))
    config = DataConfig(name="camvid", data_dir=shared_dir("camvid"), examples=settings, batch_size=20)
    made = make_batches(config, "validation", train=False)
    assert len(made.class_names) == made.sizes["num_classes"] == 11
    assert made.num_examples == 101
    batch = made[0]
    assert batch["segmentation"].shape == (20, 180, 240)
    assert set(np.unique(batch["segmentation"])) <= set(range(-1, 11))
    sky, road = (made.class_names.index(name) for name in ("sky", "road"))
    rows = np.arange(180)[None, :, None] * np.ones((20, 1, 240))
    assert rows[batch["segmentation"] == sky].mean() < 70  # above
    assert rows[batch["segmentation"] == road].mean() > 110  # below
    brightness = batch["image"].mean(-1)
    assert (
        brightness[batch["segmentation"] == sky].mean()
        > brightness[batch["segmentation"] == road].mean() + 40
    )
