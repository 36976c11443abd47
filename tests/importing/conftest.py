"""Datasets for the tests of jaxformer.importing."""

import pytest

from jaxformer.data.digits import prepare_digits


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory) -> str:
    """A TFDS folder that holds the digits."""
    folder = tmp_path_factory.mktemp("tfds")
    prepare_digits(folder)
    return str(folder)
