"""The list of datasets and contact sheets."""

import re
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxformer.data import DataConfig
from jaxformer.data.catalog import EMBEDDED
from jaxformer.data.kinds.images import ImageSource
from jaxformer.data.transforms import Flip
from jaxformer.errors import UserError
from jaxformer.importing import contact_sheet, dataset_table, import_dataset
from jaxformer.importing.show import CELL, COLUMNS, GAP, LABEL, short


def test_prepared_datasets_are_listed_with_their_sizes(digits_dir):
    folder, head, _, row, shapes = dataset_table(digits_dir).splitlines()
    assert folder == f"{digits_dir} (data.data_dir)"
    assert head.split() == ["name", "version", "examples", "size", "features"]
    assert re.match(r"digits +1\.0\.0 +train 1,438, test 359 +[1-9]\d\d KiB ", row)
    assert "Image 8x8x1" in row
    assert "ClassLabel of 10" in row
    version = re.escape(EMBEDDED["shapes"].version)
    assert re.match(rf"shapes +{version} +train 12,000, .* embedded: prepared on first use", shapes)


def test_an_empty_folder_still_offers_digits(tmp_path):
    assert "embedded: prepared on first use" in dataset_table(str(tmp_path))


def test_a_damaged_dataset_does_not_hide_the_others(digits_dir, tmp_path):
    shutil.copytree(f"{digits_dir}/digits", tmp_path / "digits")
    shutil.copytree(f"{digits_dir}/digits", tmp_path / "broken")
    (tmp_path / "broken/1.0.0/features.json").unlink()
    *_, broken, digits, _ = dataset_table(str(tmp_path)).splitlines()
    assert "cannot be read" in broken
    assert "ClassLabel of 10" in digits


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        (tfds.features.Image(shape=(None, None, 3)), "Image ?x?x3"),
        (tfds.features.ClassLabel(num_classes=7), "ClassLabel of 7"),
        (tfds.features.Text(), "Text"),
        (tfds.features.Sequence({"bbox": tfds.features.BBoxFeature()}), "Sequence"),
    ],
)
def test_features_are_said_in_few_words(feature, words):
    assert short(feature) == words


def test_a_contact_sheet_shows_the_pictures_and_their_labels(digits_dir, tmp_path):
    config = DataConfig(data_dir=digits_dir)
    path = contact_sheet(config, "test[:20]", tmp_path / "new" / "sheet.png", count=64)
    sheet = np.array(Image.open(path))
    assert sheet.shape == (2 * (CELL + LABEL + GAP) + GAP, COLUMNS * (CELL + GAP) + GAP, 3)
    source = ImageSource(config, "test[:20]")
    for index in (0, 13):
        row, column = divmod(index, COLUMNS)
        top, left = GAP + row * (CELL + LABEL + GAP), GAP + column * (CELL + GAP)
        cell = sheet[top : top + CELL, left : left + CELL]
        expected = np.kron(
            source.read([index])[0]["image"][..., 0], np.ones((CELL // 8, CELL // 8), np.uint8)
        )
        np.testing.assert_array_equal(cell, np.repeat(expected[..., None], 3, axis=2))
        assert (sheet[top + CELL : top + CELL + LABEL, left : left + CELL] < 100).any()  # the label's ink


def test_views_show_the_transforms_beside_the_picture(digits_dir, tmp_path):
    config = DataConfig(data_dir=digits_dir, transforms=(Flip(1),))
    sheet = np.array(Image.open(contact_sheet(config, "test", tmp_path / "sheet.png", count=3, views=2)))
    cells = [sheet[GAP : GAP + CELL, x : x + CELL] for x in range(GAP, GAP + 3 * (CELL + GAP), CELL + GAP)]
    np.testing.assert_array_equal(cells[1], cells[0][:, ::-1])
    np.testing.assert_array_equal(cells[2], cells[0][:, ::-1])


def test_long_labels_and_pictures_of_any_shape_fit(tmp_path):
    for name, shape in (("a" * 60, (30, 200)), ("b", (200, 30))):
        (tmp_path / "files" / name).mkdir(parents=True)
        Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / "files" / name / "1.png")
    import_dataset("images", tmp_path / "files", "odd", str(tmp_path))
    config = DataConfig(name="odd", data_dir=str(tmp_path))
    sheet = np.array(Image.open(contact_sheet(config, "train", tmp_path / "sheet.png")))
    ink = (sheet < 128).all(-1).any(0)
    assert sheet.shape[1] == 2 * (CELL + GAP) + GAP
    assert not ink[: GAP // 2].any()  # nothing runs over the edge


def test_a_sheet_that_cannot_be_written_is_named(digits_dir, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"sheet.png: cannot write there .*; name another file with `output`"):
        contact_sheet(DataConfig(data_dir=digits_dir), "test", tmp_path / "file" / "sheet.png", count=1)
    with pytest.raises(UserError, match="`count` 0"):
        contact_sheet(DataConfig(data_dir=digits_dir), "test", tmp_path / "sheet.png", count=0)
