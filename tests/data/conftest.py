"""Datasets for the tests of jaxformer.data."""

import os
from pathlib import Path

import numpy as np
import pytest

from jaxformer.data.digits import prepare_digits

SHARED = Path(__file__).parents[3] / "shared" / "tensorflow_datasets"


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory) -> str:
    """A TFDS folder that holds the digits."""
    folder = tmp_path_factory.mktemp("tfds")
    prepare_digits(folder)
    return str(folder)


@pytest.fixture(scope="session")
def cifar10_dir() -> str:
    """A TFDS folder that holds CIFAR-10; without one the test is skipped."""
    for folder in (os.environ.get("TFDS_DATA_DIR"), SHARED):
        if folder and (Path(folder) / "cifar10").is_dir():
            return str(folder)
    pytest.skip("needs cifar10, prepared as array_record, in TFDS_DATA_DIR")


@pytest.fixture(scope="session")
def shared_dir():
    """A function of a dataset's name: a TFDS folder that holds it; without one the test is skipped."""

    def find(name: str) -> str:
        for folder in (os.environ.get("TFDS_DATA_DIR"), SHARED):
            if folder and (Path(folder) / name).is_dir():
                return str(folder)
        pytest.skip(f"needs {name}, prepared as array_record, in TFDS_DATA_DIR")

    return find


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
