"""What every source of examples offers, one by one or in rows of tokens, and what is known of one that is not here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from jaxformer.data.names import class_key

if TYPE_CHECKING:
    from jaxformer.data.config import DataConfig
    from jaxformer.data.text.tokenizers import Tokenizer

DatasetConfig: TypeAlias = "DataConfig"  # the kinds of examples are told it, and stand in it
Example = dict[str, Any]
Spec = dict[str, tuple[tuple[int, ...], np.dtype]]  # shape without the batch, and dtype, of each array


class Opened:
    """What every source says about itself."""

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
    """int32 [N], the places that each row needs; None if all need the same."""
    filled: np.ndarray | None = None
    """[N], the places of each row that are not padding, where these are not `lengths`."""
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
        """How many examples each dataset of a mixture has, and its weight; examples are numbered one after another."""
        return [len(self)], [1.0]

    def where(self, index: int) -> str:
        """How messages name an example."""
        return f"dataset {self.name}, split {self.split!r}, index {index}"

    def truth(self, index: int) -> Any:
        """What the dataset says is right for an example, whole, whatever of the example a model is shown.

        Metrics are of this: what was cut off, skipped or resized away counts as missed. Each kind of examples says
        what it is; kinds that always show everything need not have it.

        Raises:
          ValueError: it is broken.
        """
        raise NotImplementedError

    def file_of(self, index: int) -> str | None:
        """The name of the file that an example was made from, where the dataset has it."""
        return None


class Source(Opened):
    """Examples by index, one by one."""

    fills: Mapping[str, int] = {}
    """What stands in the arrays of a batch on rows that are no example, by the array's name; 0 where none is given."""

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
    """Its shape, with the length of the longest row."""
    dtype: Any = np.int32
    """The dtype of its items."""
    fill: int = 0
    """The value on padding."""


class RowSource(Opened):
    """Rows of tokens by index, many at once."""

    spec: Mapping[str, Array]
    """The arrays of a batch."""

    def gather(self, indices: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """The rows at `indices`, int64 [B], padded to `length`."""
        raise NotImplementedError


def open_source(config: DatasetConfig, split: str, train: bool = False) -> Source | RowSource:
    """Opens a split as a config says, with its cache; in training, with the datasets that are mixed into it.

    Raises:
      UserError: the dataset, version, split or feature is not there, or not what it has to be.
    """
    source = config.examples.open(config, split, train)
    if config.cache == "memory" and isinstance(source, Source):
        source.read = Remembered(source)  # type: ignore[method-assign]
    return source


class Remembered:
    """Reads as a source does, and keeps each decoded example in memory from the first time that it is read."""

    def __init__(self, source: Source):
        self._read = source.read
        self._examples: list[Example | None] = [None] * len(source)

    def __call__(self, indices: Sequence[int]) -> list[Example | None]:
        """The examples at `indices`; several threads may call this at once."""
        if missing := [index for index in indices if self._examples[index] is None]:
            for index, example in zip(missing, self._read(missing)):
                for value in (example or {}).values():
                    if isinstance(value, np.ndarray):
                        value.setflags(write=False)
                self._examples[index] = example
        return [None if (found := self._examples[index]) is None else dict(found) for index in indices]


@dataclass(frozen=True)
class NominalBatches:
    """Enough of `Batches` to build and to compile an experiment, and to predict with its model, without the dataset."""

    num_examples: int | None
    """None where it is not known."""
    batch_size: int
    element_spec: Mapping[str, tuple[tuple[int, ...], np.dtype]]
    facts: tuple[str, ...] = ()
    class_names: list[str] | None = None
    tokenizer: Any = None
    source: None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    typical_length: None = None


def record(batches: Any) -> dict[str, Any]:
    """What there is to know of `Batches`, as JSON values."""
    arrays = {name: [[*shape], np.dtype(dtype).name] for name, (shape, dtype) in batches.element_spec.items()}
    known = {"examples": batches.num_examples, "arrays": arrays, "class_names": batches.class_names}
    return known | {"sizes": dict(batches.sizes)}


def recorded(known: Mapping[str, Any], batch_size: int) -> NominalBatches:
    """The batches that `record` told of.

    Raises:
      KeyError: something is missing.
      TypeError, ValueError, AttributeError: something is of another kind.
    """
    arrays, names, sizes = (known[key] for key in ("arrays", "class_names", "sizes"))
    spec = {name: (tuple(map(index, shape)), np.dtype(dtype)) for name, (shape, dtype) in arrays.items()}
    named = None if names is None else list(map(class_key, names))
    counts = {name: index(count) for name, count in sizes.items()}
    return NominalBatches(index(known["examples"]), batch_size, spec, class_names=named, sizes=counts)


def known_sizes(batches: Any) -> dict[str, int]:
    """The sizes that batches give to a model's and a task's fields, by the fields' names."""
    tokenizer = batches.tokenizer
    if tokenizer is None or tokenizer.eos_id is None:
        return dict(batches.sizes)
    return {**batches.sizes, "eos_id": tokenizer.eos_id}
