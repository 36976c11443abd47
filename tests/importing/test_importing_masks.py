"""Importing pictures with masks: what comes back is what went in, and mistakes are named."""

import shutil

import numpy as np
import pytest
from helpers.annotated_cases import (
    HEIGHT,
    NAMES,
    WIDTH,
    bring_masks,
    import_segmentation,
    mask_of,
    picture_of,
    png,
    refusal,
    save,
    text,
)
from PIL import Image

from jaxformer import cli
from jaxformer.data import DataConfig, make_batches
from jaxformer.data.kinds.segmentation import Segmentation

CLASSES = ["ground", *NAMES]


def save_mask(path, mask: np.ndarray, palette: bool = False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    if palette:
        image.putpalette([255, 0, 0, 9, 9, 9, 0, 255, 0, 0, 0, 255])
    image.save(path)


def folder_of(root, seeds=range(6), suffix: str = "", palette: bool = False):
    for seed in seeds:
        save(root / "images" / f"{seed}.png", seed)
        save_mask(root / "masks" / f"{seed}{suffix}.png", mask_of(seed), palette)
    text(root / "classes.txt", "\n".join(CLASSES) + "\n")
    return root


def seen(tmp_path, split: str) -> set[int]:
    """The seeds of a split's pictures, whose masks are compared."""
    settings = Segmentation(size=(HEIGHT, WIDTH))
    config = DataConfig(name="mine", data_dir=str(tmp_path / "tfds"), examples=settings, batch_size=20)
    made = make_batches(config, split, train=False)
    assert made.class_names == CLASSES
    batch, seeds = made[0], set()
    for image, mask in zip(batch["image"][batch["example_mask"]], batch["segmentation"]):
        seed = int(image[0, 0, 0]) - 100
        np.testing.assert_array_equal(image, np.array(picture_of(seed)))
        expected = mask_of(seed).astype(int)
        np.testing.assert_array_equal(mask, np.where(expected == 255, -1, expected))
        seeds.add(seed)
    return seeds


@pytest.mark.parametrize(("suffix", "palette"), [("", False), ("_mask", True)])
def test_masks_come_back_pixel_by_pixel(suffix, palette, tmp_path):
    imported = bring_masks(
        folder_of(tmp_path / "files", suffix=suffix, palette=palette), tmp_path, test_share=0.5
    )
    assert imported.splits == {"train": 3, "test": 3}
    assert imported.class_names == CLASSES
    assert seen(tmp_path, "train") | seen(tmp_path, "test") == set(range(6))


@pytest.mark.parametrize("layout", ["{split}/{kind}/{seed}.png", "{kind}/{split}/{seed}.png"])
def test_folders_tell_splits(layout, tmp_path):
    root = tmp_path / "files"
    for seed in range(5):
        split = "train" if seed < 3 else "val"
        save(root / layout.format(split=split, kind="images", seed=seed), seed)
        save_mask(root / layout.format(split=split, kind="labels", seed=seed), mask_of(seed))
    imported = bring_masks(root, tmp_path, classes=CLASSES)
    assert imported.splits == {"train": 3, "validation": 2}
    assert seen(tmp_path, "train") == {0, 1, 2}


def test_pictures_and_masks_may_be_two_folders(tmp_path):
    root = folder_of(tmp_path / "files")
    (root / "images").rename(root / "in")
    (root / "masks").rename(root / "out")
    assert bring_masks([root / "in", root / "out"], tmp_path, test_share=0).splits == {"train": 6}


def test_mistakes_are_named(tmp_path):
    root = folder_of(tmp_path / "files")

    def said(**options) -> str:
        return refusal(root, tmp_path, import_segmentation, **options)

    mask = root / "masks" / "0.png"
    save_mask(mask, mask_of(0)[:-1])
    assert said().startswith("files/masks/0.png: the mask is 39x60, its image 40x60; repair it")
    save_mask(mask, np.full((HEIGHT, WIDTH), 4, np.uint8))
    assert "0.png: has the ids 4; there are the classes 0 to 3, and 255 for none" in said()
    mask.write_bytes(png(np.zeros((HEIGHT, WIDTH, 3), np.uint8)))
    assert "0.png: not a readable mask (an image of mode RGB" in said()
    mask.write_bytes(b"no picture")
    assert "0.png: not a readable mask (10 bytes that are not an image" in said()
    mask.unlink()
    assert "images/0.png: has no mask of its name" in said()
    (root / "images" / "0.png").unlink()
    (root / "images" / "1.png").write_bytes((root / "images" / "1.png").read_bytes()[:50])
    assert "images/1.png: not a readable image" in said()
    assert bring_masks(root, tmp_path, skip_broken=True, test_share=0).splits == {"train": 4}


def test_classes_that_are_nowhere_are_named_and_copies_left_out(tmp_path):
    root = folder_of(tmp_path / "files")
    text(root / "classes.txt", "\n".join([*CLASSES, "moon"]))
    shutil.copy(root / "images" / "0.png", root / "images" / "9.png")
    shutil.copy(root / "masks" / "0.png", root / "masks" / "9.png")
    imported = bring_masks(root, tmp_path, test_share=0)
    assert imported.notes == ["no pixel in train is of the class moon"]
    assert imported.duplicates == [root / "images" / "9.png"]
    assert imported.splits == {"train": 6}
    (root / "images" / "9.png").unlink()
    (root / "masks" / "9.png").unlink()
    for seed in range(6):
        save_mask(root / "masks" / f"{seed}.png", (255 * (mask_of(seed) > 0)).astype(np.uint8))
    said = refusal(root, tmp_path / "other", import_segmentation)
    assert "files: the masks in train hold nothing but 0 and 255, which means none; write 1 for blob" in said


def test_a_mask_with_places_of_no_class_is_shown(tmp_path):
    root = folder_of(tmp_path / "files")
    mask = mask_of(0)
    mask[:9] = 255
    save_mask(root / "masks" / "0.png", mask)
    bring_masks(root, tmp_path, test_share=0)
    sheet = ["--output", str(tmp_path / "sheet.png")]
    assert cli.main(["data", "show", "mine", "--data-dir", str(tmp_path / "tfds"), *sheet]) == 0


def test_what_is_missing_is_named(tmp_path):
    root = folder_of(tmp_path / "files")

    def said(source=root, **options) -> str:
        return refusal(source, tmp_path, import_segmentation, **options)

    (root / "classes.txt").unlink()
    assert "files: holds no classes.txt; write the classes' names into it" in said()
    assert "'a' is there twice" in said(classes=["a", "a"])
    assert "has 300 classes; there may be 1 to 255" in said(classes=[str(n) for n in range(300)])
    assert "nowhere: there is no such folder or file" in said(tmp_path / "nowhere", classes=CLASSES)
    (tmp_path / "empty").mkdir()
    assert "empty: holds no images; expected folders images and masks" in said(
        tmp_path / "empty", classes=CLASSES
    )
    save(root / "images" / "train" / "9.png", 9)
    save_mask(root / "masks" / "train" / "9.png", mask_of(9))
    assert "9.png is in the split 'train', and 0.png, 1.png, 2.png and 3 more in none" in said(
        classes=CLASSES
    )


def test_the_verb_takes_classes(tmp_path, capsys):
    root = folder_of(tmp_path / "files")
    (root / "classes.txt").unlink()
    where = ["--name", "mine", "--data-dir", str(tmp_path / "tfds"), "--classes", ",".join(CLASSES)]
    assert cli.main(["data", "import", "segmentation", str(root), *where]) == 0
    assert "train: 5, test: 1; 4 classes" in capsys.readouterr().out
    assert seen(tmp_path, "train") <= set(range(6))
