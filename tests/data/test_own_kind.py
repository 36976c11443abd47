"""A kind of examples and a transform of a user's own: one file, and no line of the package changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxformer.config.schema import resolve
from jaxformer.data.base import Example, Source
from jaxformer.data.batches import make_batches
from jaxformer.data.config import DataConfig
from jaxformer.data.kinds.base import Kind
from jaxformer.data.transform import Transform

COUNT = 10


class SquareSource(Source):
    """Images of one value, whose label is that value."""

    def __init__(self, config: DataConfig, split: str, train: bool = False):
        self.name, self.split, self._side = config.name, split, config.examples.side

    def __len__(self) -> int:
        return COUNT

    def read(self, indices: Sequence[int]) -> list[Example | None]:
        return [{"image": np.full((self._side,) * 2 + (1,), i, np.uint8), "labels": i} for i in indices]


@dataclass(frozen=True)
class Squares(Kind):
    """Images of one value."""

    kind: ClassVar[str] = "squares"
    side: int = 3

    def open(self, config: DataConfig, split: str, train: bool) -> Source:
        return SquareSource(config, split, train)


@dataclass(frozen=True)
class Brighter(Transform):
    """Adds a value."""

    by: int = 100

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        return example | {"image": example["image"] + np.uint8(self.by)}


@dataclass(frozen=True)
class NoKind:
    """Lacks what a kind has."""


def config_of(**values: Any) -> tuple[DataConfig, list[str]]:
    errors: list[str] = []
    return resolve(DataConfig, {"batch_size": 4} | values, "data", errors), errors


def test_a_kind_and_a_transform_of_ones_own_make_batches():
    own = {"name": f"{__name__}:Squares", "side": 5}
    config, errors = config_of(examples=own, transforms=[{"name": f"{__name__}:Brighter", "by": 7}])
    assert errors == []
    assert list(config.problems()) == []
    batches = make_batches(config, "train", seed=1)
    seen = [batches[step] for step in range(5)]
    for batch in seen:
        assert batch["image"].shape == (4, 5, 5, 1)
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["labels"] + 7)
    labels = np.concatenate([batch["labels"] for batch in seen])
    assert sorted(labels[:COUNT]) == sorted(labels[COUNT:]) == list(range(COUNT))


def test_a_class_that_is_no_kind_is_refused():
    _, errors = config_of(examples={"name": f"{__name__}:NoKind"})
    assert len(errors) == 1
    assert "lacks" in errors[0]
    assert "jaxformer/data/kinds/base.py" in errors[0]
