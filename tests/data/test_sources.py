"""Configs of data, finding datasets, and what is said when something is not there."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxformer.config import schema
from jaxformer.config.schema import resolve, to_dict
from jaxformer.data.catalog import find_datasets
from jaxformer.data.config import DataConfig
from jaxformer.data.kinds.images import Images, ImageSource
from jaxformer.data.transforms import Flip, RandomResizedCrop, Resize
from jaxformer.data.writing import write_dataset
from jaxformer.errors import UserError

PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU\x00\x00\x00\n"
    b"IDATx\x9cc`\x00\x00\x00\x02\x00\x01H\xaf\xa4q\x00\x00\x00\x00IEND\xaeB`\x82"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits_dir):
    """Digits, and "shapes" in two versions with three splits."""
    folder = tmp_path_factory.mktemp("datasets")
    shutil.copytree(f"{digits_dir}/digits", folder / "digits")
    features = {
        "image": tfds.features.Image(shape=(1, 1, 1)),
        "label": tfds.features.ClassLabel(names=["round", "square"]),
        "corners": tfds.features.Scalar(np.int64),
        "note": tfds.features.Text(),
    }
    example = {"image": PNG, "label": 1, "corners": 4, "note": "hello"}
    splits = {"train": [example] * 10, "test": [example] * 4, "empty": []}
    for version in ("1.0.9", "1.0.10"):
        write_dataset(folder, "shapes", version, features, splits)
    return folder


def message(folder, split: str = "train", **fields) -> str:
    with pytest.raises(UserError) as error:
        ImageSource(DataConfig(data_dir=str(folder), **fields), split)
    assert 1 <= len(error.value.lines) <= 2
    return str(error.value)


def test_datasets_are_found_with_the_newest_version_last(folder):
    found = [(dataset.name, dataset.version) for dataset in find_datasets(folder)]
    assert found == [("digits", "1.0.0"), ("shapes", "1.0.9"), ("shapes", "1.0.10")]
    assert ImageSource(DataConfig(name="shapes", data_dir=str(folder)), "train").name == "shapes/1.0.10"
    chosen = DataConfig(name="shapes", version="1.0.9", data_dir=str(folder))
    assert ImageSource(chosen, "train").name == "shapes/1.0.9"


def test_tfds_slices_work(folder):
    config = DataConfig(name="shapes", data_dir=str(folder))
    sizes = {"train[:90%]": 9, "train[3:5]": 2, "train+test": 14, "train[-1:]+test[:50%]": 3}
    for split, size in sizes.items():
        assert len(ImageSource(config, split)) == size


def test_labels_may_be_any_integer_feature(folder):
    source = ImageSource(DataConfig(name="shapes", data_dir=str(folder)), "test")
    assert source.class_names == ["round", "square"]
    assert source.read([0])[0]["labels"] == 1
    corners = ImageSource(
        DataConfig(name="shapes", data_dir=str(folder), examples=Images(label_feature="corners")), "test"
    )
    assert corners.class_names is None
    assert corners.read([0])[0]["labels"] == 4


def test_the_environment_names_the_folder(folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    assert len(ImageSource(DataConfig(name="shapes"), "test")) == 4


def test_a_misspelt_dataset_is_answered_with_the_nearest(folder):
    text = message(folder, name="shape")
    assert (
        text
        == f"data.name: dataset 'shape' is not prepared in {folder} (data.data_dir); did you mean 'shapes'?"
    )


def test_a_dataset_that_tfds_knows_is_answered_with_the_command(folder, monkeypatch):
    text = message(folder, name="cifar10")
    assert f"'cifar10' is not prepared in {folder} (data.data_dir)" in text
    assert text.endswith(f"with: tfds build cifar10 --file_format=array_record --data_dir={folder}")
    assert "did you mean 'mnist'" in message(folder, name="mnistt")
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    with pytest.raises(UserError, match=r"\(TFDS_DATA_DIR\)"):
        ImageSource(DataConfig(name="cifar10"), "train")


def test_an_unknown_dataset_is_answered_with_what_there_is(folder):
    text = message(folder, name="qqqqqqqqqq")
    assert "prepared are: digits, shapes\n" in text
    assert text.endswith("import your own files with `jaxformer data import` (images, text, csv, ...)")


@pytest.mark.parametrize(
    ("fields", "split", "words"),
    [
        ({"version": "2.0.0"}, "train", "data.version: 'shapes' is not prepared in version '2.0.0'"),
        ({}, "trian", "shapes/1.0.10 has no split 'trian'; did you mean 'train'?"),
        ({}, "train+tset", "has no split 'tset'; did you mean 'test'?"),
        ({}, "train[:9x%]", "split 'train[:9x%]' of shapes/1.0.10: not a slice that TFDS reads"),
        ({}, "train[50:]", "split 'train[50:]' of shapes/1.0.10: not a slice that TFDS reads"),
        ({}, "train[5:5]", "split 'train[5:5]' of shapes/1.0.10 has no examples"),
        ({}, "empty", "split 'empty' of shapes/1.0.10 has no examples"),
        (
            {"examples": Images(label_feature="lable")},
            "train",
            "data.examples.label_feature: shapes/1.0.10 has no feature 'lable'; did",
        ),
        (
            {"examples": Images(label_feature="note")},
            "train",
            "'note' of shapes/1.0.10 is Text, not an integer; features that are: corners, label",
        ),
        (
            {"examples": Images(image_feature="img")},
            "train",
            "data.examples.image_feature: shapes/1.0.10 has no feature 'img'; did you mean 'image'?",
        ),
        (
            {"examples": Images(image_feature="note")},
            "train",
            "data.examples.image_feature: 'note' of shapes/1.0.10 is Text",
        ),
    ],
)
def test_what_is_not_in_a_dataset_is_named(folder, fields, split, words):
    assert words in message(folder, split, name="shapes", **fields)


def test_datasets_that_only_tensorflow_reads_are_refused(folder, tmp_path):
    shutil.copytree(folder / "shapes" / "1.0.9", tmp_path / "shapes" / "1.0.9")
    info = tmp_path / "shapes" / "1.0.9" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    text = message(tmp_path, name="shapes")
    assert "is stored as tfrecord, which only TensorFlow reads" in text
    assert f"tfds build shapes --overwrite --file_format=array_record --data_dir={tmp_path}" in text


RECORDS = "shapes-train.array_record-00000"


@pytest.mark.parametrize("damage", ["features.json", "dataset_info.json", RECORDS])
def test_a_damaged_dataset_is_named(folder, tmp_path, damage):
    shutil.copytree(folder / "shapes" / "1.0.9", tmp_path / "shapes" / "1.0.9")
    file = tmp_path / "shapes" / "1.0.9" / damage
    if damage == "dataset_info.json":
        file.write_text("{")
    else:
        file.unlink()
    text = message(tmp_path, name="shapes")
    assert str(tmp_path) in text
    assert "again" in text


@pytest.mark.parametrize("size", [0, 100, 70_000])
def test_a_truncated_file_is_named(folder, tmp_path, size):
    shutil.copytree(folder / "shapes" / "1.0.9", tmp_path / "shapes" / "1.0.9")
    file = tmp_path / "shapes" / "1.0.9" / RECORDS
    file.write_bytes(file.read_bytes()[:size])
    source = ImageSource(DataConfig(name="shapes", data_dir=str(tmp_path)), "train")
    with pytest.raises(UserError, match=r"dataset shapes/1.0.9, split 'train': .* cannot be read"):
        source.read([3])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "../secret"}, 'name="../secret": expected NAME or NAME/CONFIG'),
        ({"name": ""}, 'name="": expected NAME or NAME/CONFIG'),
        ({"name": "a/b/c"}, 'name="a/b/c": expected NAME or NAME/CONFIG'),
        ({"train_split": " "}, 'train_split=" ": expected a split'),
        ({"batch_size": 0}, "batch_size=0: expected 1 or more"),
        ({"eval_batch_size": -4}, "eval_batch_size=-4: expected 1 or more"),
        ({"repeats": 0}, "repeats=0: expected 1 or more"),
        ({"batch_size": 128, "repeats": 3}, "repeats=3: a batch of batch_size=128 does not"),
        (
            {"batch_size": 8, "repeats": 9},
            "repeats=9: a batch of batch_size=8 does not divide by it; make repeats smaller",
        ),
        ({"repeats": 10**9}, "repeats=1000000000: expected 1 or more, and at most 1024"),
        ({"prefetch": 0}, "prefetch=0: expected 1 or more"),
        ({"read_threads": 0}, "read_threads=0: expected 1 or more"),
        ({"eval_transforms": (Resize(8), Flip())}, "eval_transforms[1]=Flip: is random"),
    ],
)
def test_impossible_configs_are_named_before_anything_is_opened(fields, words):
    problems = list(schema.problems(DataConfig(**fields)))
    assert len(problems) == 1
    assert problems[0].startswith(words)


def test_several_problems_come_at_once():
    assert len(list(schema.problems(DataConfig(name="", batch_size=0, prefetch=0)))) == 3
    assert list(schema.problems(DataConfig())) == []


def test_the_config_is_imported_quickly_and_nothing_of_data_imports_jax(digits_dir):
    code = (
        "import sys\n"
        "import jaxformer.data.config, jaxformer.data\n"
        "slow = {'tensorflow_datasets', 'grain', 'cv2', 'jax', 'PIL', 'sklearn'} & set(sys.modules)\n"
        "assert not slow, slow\n"
        "sys.modules['jax'] = sys.modules['jaxlib'] = None\n"  # Grain takes jax if there is one; we must not
        "from jaxformer.data import DataConfig, make_batches\n"
        "from jaxformer.importing import contact_sheet, dataset_table, import_dataset\n"
        "batches = make_batches(DataConfig(data_dir=sys.argv[1]), 'train')\n"
        "assert batches[0]['image'].shape == (128, 8, 8, 1)\n"
        "with batches.read(0) as reader:\n"
        "    next(reader)\n"
        "assert not {'flax', 'tensorflow', 'torch'} & set(sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, digits_dir], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_configs_resolve_from_plain_values_and_back():
    values = {
        "name": "cifar10",
        "transforms": [
            {"name": "random_resized_crop", "size": [20, 24], "scale": [0.2, 1]},
            "flip",
            {"name": "randaugment", "ranges": "increasing", "magnitude": 9, "magnitude_std": 0.5},
            {"name": "color_jitter", "hue": 0.1},
        ],
        "eval_transforms": [{"name": "center_crop", "size": 24, "shorter_side": 28}],
    }
    errors: list[str] = []
    config = resolve(DataConfig, values, "data", errors)
    assert errors == []
    assert config.transforms[0] == RandomResizedCrop((20, 24), scale=(0.2, 1.0))
    assert config.transforms[1] == Flip()
    again = resolve(DataConfig, json.loads(json.dumps(to_dict(config))), "data", errors)
    assert again == config
    assert errors == []


def test_mistakes_in_transforms_are_named_with_their_place():
    values = {
        "batch_size": 0,
        "transforms": [{"name": "flipp"}, {"name": "pad_and_crop", "pading": 4}],
        "eval_transforms": [{"name": "resize", "size": 0}],
        "cache": "disk",
    }
    errors: list[str] = []
    assert resolve(DataConfig, values, "data", errors) is None
    assert any(
        line.startswith("data.transforms[0].name: there is no 'flipp'; did you mean") for line in errors
    )
    assert any("data.transforms[1].pading: PadAndCrop has no field 'pading'; did" in line for line in errors)
    assert any(line.startswith("data.eval_transforms[0].size=0: expected 1 or more") for line in errors)
    assert any(line.startswith("data.cache: 'disk' is not a choice") for line in errors)
