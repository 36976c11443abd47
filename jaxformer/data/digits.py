"""scikit-learn's handwritten digits as a TFDS dataset: real images that need no download."""

from pathlib import Path

import numpy as np

from jaxformer.data.catalog import EMBEDDED
from jaxformer.data.writing import held_out_places, write_once

NAME = "digits"
VERSION = EMBEDDED[NAME].version
TEST_FRACTION = 0.2
DESCRIPTION = (
    "1,797 handwritten digits of 8x8 (test set of Optical Recognition of Handwritten Digits, Alpaydin and "
    "Kaynak 1998, UCI), as scikit-learn ships them; a fixed stratified split of 80% / 20%."
)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Grey levels 0..16 as uint8 0..255: round(level * 255 / 16), ties (only level 8, 127.5) to the even 128.

    The seventeen levels stay distinct, so `np.rint(image * 16 / 255)` gives them back exactly.
    """
    return np.rint(images * (255 / 16)).astype(np.uint8)


def split_indices(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of the train and the test split, each in ascending order: of every class, 20% are for testing."""
    test = held_out_places(labels.tolist(), TEST_FRACTION)
    is_test = np.isin(np.arange(len(labels)), list(test))
    return {"train": np.flatnonzero(~is_test), "test": np.flatnonzero(is_test)}


def prepare_digits(data_dir: Path) -> Path:
    """Writes the digits into `data_dir` unless they are there; atomic, and safe in several processes at once.

    Each example has `image` [8, 8, 1] uint8 (PNG), `label` and `index` (its place in scikit-learn's array).

    Returns:
      The dataset's folder.

    Raises:
      OSError: the folder cannot be written.
    """
    folder = data_dir / NAME / VERSION
    if (folder / "dataset_info.json").exists():
        return folder

    import cv2
    import tensorflow_datasets as tfds
    from sklearn.datasets import load_digits

    digits = load_digits()
    examples = [
        {"image": cv2.imencode(".png", image)[1].tobytes(), "label": int(label), "index": index}
        for index, (image, label) in enumerate(zip(to_uint8(digits.images), digits.target))
    ]
    splits = split_indices(digits.target).items()
    features = {
        "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
        "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
        "index": tfds.features.Scalar(np.int64),
    }
    of_splits = {split: [examples[index] for index in indices] for split, indices in splits}
    return write_once(data_dir, NAME, VERSION, features, of_splits, DESCRIPTION)
