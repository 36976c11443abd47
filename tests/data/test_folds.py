"""Folds of a training split: a partition with equal shares of each class, and what cannot be one."""

import numpy as np
import pytest

from jaxformer.config import files
from jaxformer.config.sections import resolve
from jaxformer.data.config import DataConfig
from jaxformer.data.folds import held_out, is_fold
from jaxformer.data.kinds.images import ImageSource
from jaxformer.data.records import shared_examples
from jaxformer.errors import ConfigError, UserError


def test_every_example_is_held_out_once_and_classes_are_spread():
    labels = np.random.default_rng(0).choice(4, 103, p=[0.6, 0.3, 0.08, 0.02])
    folds = np.array([held_out(labels, f"{number}/5") for number in range(1, 6)])
    assert (folds.sum(0) == 1).all()
    assert np.ptp(folds.sum(1)) <= 1
    for label in range(4):
        assert np.ptp(folds[:, labels == label].sum(1)) <= 1
    assert not np.array_equal(folds[0], np.arange(103) % 5 == 0)


def test_numbers_are_spread_too():
    values = np.random.default_rng(0).normal(size=1000)
    means = [values[held_out(values, f"{number}/4")].mean() for number in range(1, 5)]
    assert (
        np.ptp(means) <= np.ptp(values) / 250
    )  # the sum of the gaps between neighbours, over the examples of a fold


@pytest.mark.parametrize("fold", ["1/1", "0/5", "6/5", "2", "1/0", "a/b", "-1/5", "1/99999", ""])
def test_what_is_no_fold(fold):
    assert not is_fold(fold)


def pictures(source) -> list[bytes]:
    return [
        bytes(record["image"].bytes_list.value[0]) for _, group in source.records.groups() for record in group
    ]


def test_a_split_falls_into_what_is_trained_on_and_what_is_held_out(digits_dir):
    whole = ImageSource(DataConfig(data_dir=digits_dir), "train[:200]")
    config = DataConfig(data_dir=digits_dir, train_split="train[:200]", fold="2/3")
    train, held, other = (ImageSource(config, split) for split in ("train[:200]", "fold", "test"))
    assert sorted(pictures(train) + pictures(held)) == sorted(pictures(whole))
    assert len(held) in (66, 67)
    assert len({source.records.digest() for source in (whole, train, held)}) == 3
    assert len(other) == len(ImageSource(DataConfig(data_dir=digits_dir), "test"))
    assert shared_examples(config, "train[:200]", "fold") == 0


def test_folds_that_cannot_be_are_told(digits_dir):
    with pytest.raises(UserError, match=r"has 3 examples .* too few for 5 folds"):
        ImageSource(DataConfig(data_dir=digits_dir, train_split="train[:3]", fold="1/5"), "fold")
    with pytest.raises(ConfigError, match=r"data.fold=.1/1.: expected one of 2 or more folds"):
        resolve(files.read("vit_digits", {"data.fold": "1/1", "eval.split": "fold"}))
    with pytest.raises(ConfigError, match=r"eval.split=.test.: data.fold=.1/5. holds out"):
        resolve(files.read("vit_digits", {"data.fold": "1/5"}))
