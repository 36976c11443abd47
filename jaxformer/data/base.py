"""What every source of examples offers, one by one or in rows of tokens, and what a source is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer

Example = dict[str, Any]


class DatasetConfig(Protocol):
    """What opening a dataset needs of `DataConfig`."""

    @property
    def name(self) -> str:
        """The dataset's name."""

    @property
    def version(self) -> str | None:
        """Its version; None takes the newest."""

    @property
    def data_dir(self) -> str | None:
        """The folder of datasets; None takes the default."""

    @property
    def train_split(self) -> str:
        """The split that a tokenizer is learnt from."""

    @property
    def mixture(self) -> Sequence[Any]:
        """The datasets that are mixed in."""

    @property
    def examples(self) -> Any:
        """The kind of examples."""

    @property
    def tokenizer(self) -> Any:
        """The settings of the tokenizer."""


class Opened:
    """What every source says of itself."""

    name: str
    """Dataset and version, "cifar10/3.0.2"."""
    split: str
    """The split, with its slice."""
    class_names: list[str] | None = None
    """Names of the classes, if the dataset has them."""
    tokenizer: "Tokenizer | None" = None
    """What made the tokens; None if there are none."""
    length: int = 0
    """Places in the longest row of tokens; 0 if there are none."""
    lengths: np.ndarray | None = None
    """Int32 [N], places that each row needs; None if all are alike."""
    filled: np.ndarray | None = None
    """[N], places of each row that are not padding, if that is not `lengths`."""
    facts: Sequence[str] = ()
    """Lines for people, said when a run starts."""

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def sizes(self) -> dict[str, int]:
        """What a model's layers go by, as far as it is known: `num_classes`, `vocab_size`."""
        return {} if self.class_names is None else {"num_classes": len(self.class_names)}

    @property
    def parts(self) -> tuple[list[int], list[float]]:
        """Of a mixture, how many examples each dataset has, and its weight; they are numbered one after another."""
        return [len(self)], [1.0]

    def where(self, index: int) -> str:
        """How messages name an example."""
        return f"dataset {self.name}, split {self.split!r}, index {index}"


class Source(Opened):
    """Examples by index, one by one."""

    def read(self, indices: Sequence[int]) -> list[Example | None]:
        """The examples at `indices`: dicts of arrays and integers, as `image` (uint8 [H, W, C]) and `labels`.

        None stands for an example that cannot be used, where such are to be skipped.
        """
        raise NotImplementedError

    def finish(self, example: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a batch holds of an example, after the transforms."""
        return example


@dataclass(frozen=True)
class Array:
    """One array of a batch of rows, without the batch."""

    shape: tuple[int, ...]
    """With full length."""
    dtype: Any = np.int32
    """Of its items."""
    fill: int = 0
    """What stands where there is nothing."""


class RowSource(Opened):
    """Rows of tokens by index, many at once."""

    spec: Mapping[str, Array]
    """The arrays of a batch."""

    def gather(self, indices: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """The rows at `indices`, int64 [B], padded to `length`."""
        raise NotImplementedError
