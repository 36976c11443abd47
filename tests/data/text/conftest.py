"""Datasets of text for the tests of jaxformer.data.text, and a cache of their own."""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxformer.config.schema import resolve
from jaxformer.data.batches import Batches, make_batches
from jaxformer.data.config import DataConfig
from jaxformer.data.writing import write_dataset

SHARED = Path(__file__).parents[4] / "shared" / "tensorflow_datasets"

FEATURES = {
    "text": tfds.features.Text(),
    "other": tfds.features.Text(),
    "label": tfds.features.ClassLabel(names=["bad", "good"]),
    "score": tfds.features.Scalar(np.float32),
    "words": tfds.features.Sequence(tfds.features.Text()),
    "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=["O", "B-X", "I-X"])),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("JAXFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "text"


@pytest.fixture
def prepared():
    """The folder of prepared datasets, if it has the one that is named; else the test is skipped."""

    def find(name: str) -> str:
        for folder in (os.environ.get("TFDS_DATA_DIR"), SHARED):
            if folder and (Path(folder) / name).is_dir():
                return str(folder)
        pytest.skip(f"needs {name}, prepared as array_record, in TFDS_DATA_DIR")

    return find


@pytest.fixture
def written(tmp_path):
    """Writes a dataset: a list of examples (texts, or dicts of some of FEATURES) by split; gives its folder."""

    def write(name: str = "written", features: dict | None = None, **splits: list) -> str:
        empty = {"text": "", "other": "", "label": 0, "score": 0.0, "words": [], "tags": []}
        made = {
            split: [
                example if features else empty | (example if isinstance(example, dict) else {"text": example})
                for example in examples
            ]
            for split, examples in splits.items()
        }
        write_dataset(tmp_path / "datasets", name, "1.0.0", features or FEATURES, made)
        return str(tmp_path / "datasets")

    return write


def data_config(**values) -> DataConfig:
    """A data config from plain values, which have to be right."""
    errors: list[str] = []
    config = resolve(
        DataConfig, {"name": "written", "batch_size": 4, "tokenizer": "bytes"} | values, "data", errors
    )
    assert errors == []
    return config


@pytest.fixture
def batches():
    """Makes batches from plain values of a data config."""

    def make(split: str = "train", train: bool = True, seed: int = 0, **values) -> Batches:
        return make_batches(data_config(**values), split, seed, train)

    return make
