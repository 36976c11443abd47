"""Importing one's own pictures: what comes back is what went in, and what is wrong is named."""

import os
from functools import partial

import cv2
import numpy as np
import pytest
from helpers.importing_cases import real
from PIL import Image
from sklearn.datasets import load_digits

from jaxformer.data import DataConfig, make_batches
from jaxformer.data.digits import to_uint8
from jaxformer.errors import UserError
from jaxformer.importing import import_dataset
from jaxformer.importing.contents import natural

import_images = partial(import_dataset, "images")

CLASSES = ["cat", "dog"]


def colour(seed: int, height: int = 12, width: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path, image: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


@pytest.fixture
def pictures(tmp_path):
    """Ten PNG pictures of each of two classes."""
    root = tmp_path / "pictures"
    for number, name in enumerate(CLASSES):
        for index in range(10):
            save(root / name / f"{index}.png", colour(100 * number + index))
    return root


def batch_of(tmp_path, name: str, split: str, **fields) -> dict:
    config = DataConfig(name=name, data_dir=str(tmp_path / "tfds"), batch_size=64, **fields)
    batch = make_batches(config, split, train=False)[0]
    return {key: value[batch["example_mask"]] for key, value in batch.items()}


def refusal(source, tmp_path, name: str = "mine", **options) -> str:
    before = sorted(os.listdir(tmp_path / "tfds")) if (tmp_path / "tfds").exists() else []
    with pytest.raises(UserError) as error:
        import_images(source, name, str(tmp_path / "tfds"), **options)
    after = sorted(os.listdir(tmp_path / "tfds")) if (tmp_path / "tfds").exists() else []
    assert before == after  # nothing is left behind
    assert len(error.value.lines) == 1
    return str(error.value)


def test_folders_of_classes_come_back_pixel_by_pixel(pictures, tmp_path):
    imported = import_images(pictures, "pets", str(tmp_path / "tfds"))
    assert imported.splits == {"train": 16, "test": 4}
    assert imported.class_names == CLASSES
    originals = {colour(100 * number + index).tobytes(): number for number in (0, 1) for index in range(10)}
    seen = set()
    for split in ("train", "test"):
        batch = batch_of(tmp_path, "pets", split)
        assert np.bincount(batch["labels"]).tolist() == [imported.splits[split] // 2] * 2  # stratified
        for image, label in zip(batch["image"], batch["labels"]):
            assert originals[image.tobytes()] == label
            seen.add(image.tobytes())
    assert len(seen) == 20


def test_digits_written_as_files_give_digits_again(tmp_path):
    digits = load_digits()
    images = to_uint8(digits.images)[:100]
    for index, (image, label) in enumerate(zip(images, digits.target)):
        save(tmp_path / "files" / str(label) / f"{index:04}.png", image)
    imported = import_images(tmp_path / "files", "my_digits", str(tmp_path / "tfds"), test_share=0)
    assert imported.splits == {"train": 100}
    config = DataConfig(name="my_digits", data_dir=str(tmp_path / "tfds"), batch_size=100)
    batches = make_batches(config, "train", train=False)
    assert batches.class_names == [str(digit) for digit in range(10)]
    assert batches.element_spec["image"][0] == (8, 8, 1)  # grey, as the files are
    order = np.argsort(digits.target[:100], kind="stable")
    np.testing.assert_array_equal(batches[0]["image"][..., 0], images[order])
    np.testing.assert_array_equal(batches[0]["labels"], digits.target[order])


def test_cifar10_as_jpeg_files_keeps_every_byte(tmp_path):
    import tensorflow_datasets as tfds

    builder = real("cifar10")
    source = builder.as_data_source("test[:60]", decoders={"image": tfds.decode.SkipDecoding()})
    names = builder.info.features["label"].names
    for index, example in enumerate(source):
        path = tmp_path / "files" / names[example["label"]] / f"{index:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(example["image"])
    import_images(tmp_path / "files", "small_cifar", str(tmp_path / "tfds"), test_share=0)
    ours = tfds.builder_from_directory(f"{tmp_path}/tfds/small_cifar/1.0.0").as_data_source(
        "train", decoders={"image": tfds.decode.SkipDecoding()}
    )
    assert len(ours) == 60
    for example in ours:
        assert example["image"] == (tmp_path / "files" / example["path"].decode()).read_bytes()


def test_folders_of_splits_are_kept(pictures, tmp_path):
    root = tmp_path / "splits"
    pictures.rename(tmp_path / "train")
    (root).mkdir()
    (tmp_path / "train").rename(root / "train")
    for name in CLASSES:
        save(root / "Val" / name / "v.png", colour(900 + len(name) + ord(name[0])))
    imported = import_images(root, "pets", str(tmp_path / "tfds"))
    assert imported.splits == {"train": 20, "validation": 2}
    assert batch_of(tmp_path, "pets", "validation")["labels"].tolist() == [0, 1]


def test_a_csv_names_pictures_labels_and_splits(pictures, tmp_path):
    rows = [f"cat/{i}.png, cat,{'train' if i < 8 else 'valid'}" for i in range(10)]
    rows += [f'"dog/{i}.png",dog,{"train" if i < 7 else "test"}' for i in range(10)]
    (pictures / "labels.csv").write_text(
        "\ufeffPath,Label,split\n" + "\n".join(rows) + "\n\n", encoding="utf-8"
    )
    imported = import_images(pictures / "labels.csv", "pets", str(tmp_path / "tfds"))
    assert imported.splits == {"train": 15, "validation": 2, "test": 3}
    np.testing.assert_array_equal(batch_of(tmp_path, "pets", "validation")["image"][1], colour(9))


def test_every_kind_of_file_comes_in_upright_and_in_colour(tmp_path):
    root = tmp_path / "files"
    image = colour(1, 12, 10)
    save(root / "a" / "1.bmp", image)
    save(root / "a" / "2.gif", image[:, :, 0])
    save(root / "a" / "3.webp", image, lossless=True)
    save(root / "a" / "4.tif", image[::-1].copy())
    save(root / "b" / "5.png", (image[:, :, 0].astype(np.uint16) << 8) | 7)  # 16 bits of grey
    save(root / "b" / "6.png", np.dstack([image, np.full((12, 10), 200, np.uint8)]))  # with transparency
    sideways = Image.Exif()
    sideways[0x0112] = 6  # the camera was turned: rotate by 90 degrees to see it upright
    save(root / "b" / "7.png", np.rot90(image).copy(), exif=sideways)
    imported = import_images(root, "mixed", str(tmp_path / "tfds"), test_share=0)
    assert imported.duplicates == []
    batch = batch_of(tmp_path, "mixed", "train")
    assert batch["image"].shape == (7, 12, 10, 3)
    grey = np.repeat(image[:, :, :1], 3, axis=2)
    for row, expected in enumerate([image, grey, image, image[::-1], grey, image, image]):
        np.testing.assert_array_equal(batch["image"][row], expected, err_msg=str(row))


def test_identical_files_are_taken_once_or_refused(pictures, tmp_path):
    copy = pictures / "cat" / "copy.png"
    copy.write_bytes((pictures / "cat" / "3.png").read_bytes())
    imported = import_images(pictures, "pets", str(tmp_path / "tfds"))
    assert imported.duplicates == [copy]
    assert sum(imported.splits.values()) == 20
    copy.rename(pictures / "dog" / "copy.png")
    text = refusal(pictures, tmp_path)
    assert "cat/3.png and" in text
    assert "dog/copy.png are the same image, with the labels 'cat' and 'dog'; remove one" in text


def test_broken_files_are_named_or_left_out(pictures, tmp_path):
    good = cv2.imencode(".jpg", colour(5, 40, 40))[1].tobytes()
    (pictures / "cat" / "half.jpg").write_bytes(good[: len(good) // 2])
    (pictures / "dog" / "empty.png").write_bytes(b"")
    (pictures / "dog" / "notes.txt").write_text("not a picture")
    (pictures / "dog" / "words.png").write_text("not a picture")
    (pictures / "dog" / ".DS_Store").write_text("ignored")
    text = refusal(pictures, tmp_path)
    assert "is no image by its name (and 3 more: half.jpg, empty.png, words.png)" in text
    assert "`skip_broken=True`" in text
    imported = import_images(pictures, "pets", str(tmp_path / "tfds"), skip_broken=True)
    assert sum(imported.splits.values()) == 20
    reasons = {path.name: reason for path, reason in imported.broken}
    assert set(reasons) == {"half.jpg", "empty.png", "notes.txt", "words.png"}
    assert "truncated" in reasons["half.jpg"]
    assert "empty file" in reasons["empty.png"]


def test_the_split_does_not_depend_on_when_or_where(pictures, tmp_path):
    for name in ("one", "two"):
        import_images(pictures, name, str(tmp_path / "tfds"), test_share=0.3)
    one, two = (batch_of(tmp_path, name, "test") for name in ("one", "two"))
    np.testing.assert_array_equal(one["image"], two["image"])
    assert len(one["labels"]) == 6


def test_numbers_are_ordered_by_value():
    assert sorted(["10", "9", "b", "a", "1"], key=natural) == ["1", "9", "10", "a", "b"]


def test_impossible_names_are_refused(pictures, tmp_path):
    import_images(pictures, "pets", str(tmp_path / "tfds"))
    assert "is there already; remove it, or choose another name" in refusal(pictures, tmp_path, "pets")
    assert "use lower-case letters" in refusal(pictures, tmp_path, "My Pets")
    assert "digits and underscores, at most 100, as" in refusal(pictures, tmp_path, "x" * 300)
    assert "x: there is no such folder or file" in refusal("x" * 5000, tmp_path)
    assert "embedded dataset's" in refusal(pictures, tmp_path, "digits")
    assert "`test_share` 1.0: must be" in refusal(pictures, tmp_path, test_share=1.0)


def test_folders_of_another_shape_are_refused(pictures, tmp_path):
    assert "there is no such folder" in refusal(tmp_path / "nowhere", tmp_path)
    (tmp_path / "void").mkdir()
    assert "holds no folders; expected one folder a class" in refusal(tmp_path / "void", tmp_path)
    (tmp_path / "file.zip").write_bytes(b"")
    assert "expected a folder with one folder a class, or a CSV" in refusal(tmp_path / "file.zip", tmp_path)
    (pictures / "bird").mkdir()
    assert "bird: no images in it; remove empty class folders" in refusal(pictures, tmp_path)
    (pictures / "bird" / "young").mkdir()
    assert "young: a folder in the class 'bird'" in refusal(pictures, tmp_path)
    (pictures / "bird" / "young").rmdir()
    (pictures / "bird").rename(pictures / "train")
    assert "cat, dog beside train; expected folders of splits or of classes" in refusal(pictures, tmp_path)
    (pictures / "train").rmdir()
    save(pictures / "loose.png", colour(0))
    assert "loose.png in no class" in refusal(pictures, tmp_path)


def test_classes_that_cannot_be_learnt_are_refused(pictures, tmp_path):
    (tmp_path / "one").mkdir()
    (pictures / "cat").rename(tmp_path / "one" / "cat")
    assert "only the class 'cat'; two are needed" in refusal(tmp_path / "one", tmp_path)
    (tmp_path / "splits" / "train").mkdir(parents=True)
    (tmp_path / "one" / "cat").rename(tmp_path / "splits" / "train" / "cat")
    save(tmp_path / "splits" / "train" / "dogs" / "1.png", colour(77))
    save(tmp_path / "splits" / "test" / "dog" / "1.png", colour(78))
    assert "no example in train for dog; check how classes are spelt" in refusal(
        tmp_path / "splits", tmp_path
    )
    (tmp_path / "splits" / "train").rename(tmp_path / "splits" / "val")
    assert "there is validation and test, but no train" in refusal(tmp_path / "splits", tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "labels.csv: is empty"),
        ("file,class\ncat/1.png,cat\n", "columns are file, class; expected path,label"),
        ("path,label\n", "has no rows"),
        ("path,label\ncat/1.png\n", "line 2: 1 value for 2 columns"),
        ("path,label\ncat/1.png,\n", "line 2: label is empty"),
        ("path,label\n,cat\n", "line 2: path is empty"),
        ("path,label\ncat/99.png,cat\n", "line 2: there is no file 'cat/99.png'"),
        ("path,label\ncat/1.png,cat\ncat/../cat/1.png,dog\n", "line 3: 'cat/../cat/1.png' is also in line 2"),
        ("path,label\n../secret.png,cat\n", "line 2: '../secret.png' leaves"),
        ("path,label\n/etc/passwd,cat\n", "line 2: '/etc/passwd' leaves"),
        ("path,label\nlink.png,cat\n", "line 2: 'link.png' leaves"),
        ("path,label,split\ncat/1.png,cat,trian\n", "line 2: split 'trian' is not train, validation or test"),
        ("path,label\ncat/1.png,caf\xe9\n", "line 2: byte 24 (0xe9) is not UTF-8"),
    ],
)
def test_csvs_that_cannot_be_are_refused_with_their_line(pictures, tmp_path, content, words):
    save(tmp_path / "secret.png", colour(0))
    (pictures / "link.png").symlink_to(tmp_path / "secret.png")
    (pictures / "labels.csv").write_bytes(content.encode("latin-1"))
    assert words in refusal(pictures / "labels.csv", tmp_path)


def test_a_folder_that_cannot_be_written_is_named(pictures, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"file: cannot write there \(.*; name another folder with `data_dir`"
    ):
        import_images(pictures, "pets", str(tmp_path / "file"))
