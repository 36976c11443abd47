"""Opens a split as a config says: its kind of examples, with a cache if it is wanted."""

from collections.abc import Sequence

import numpy as np

from jaxformer.data.base import Example, RowSource, Source
from jaxformer.data.config import DataConfig


def open_source(config: DataConfig, split: str, train: bool = False) -> Source | RowSource:
    """Opens a split as a config says, with its cache; in training, with the datasets that are mixed into it.

    Raises:
      UserError: the dataset, version, split or feature is not there, or not what it has to be.
    """
    source = config.examples.open(config, split, train)
    return CachedSource(source) if config.cache == "memory" and isinstance(source, Source) else source


class CachedSource(Source):
    """Keeps a source's decoded examples in memory, from the first time that each is read."""

    def __init__(self, source: Source):
        self._source = source
        self._examples: list[Example | None] = [None] * len(source)
        self.name, self.split, self.class_names = source.name, source.split, source.class_names
        self.facts, self.finish = source.facts, source.finish  # type: ignore[method-assign]

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Sequence[int]) -> list[Example | None]:
        """The examples at `indices`; several threads may call this at once."""
        missing = [index for index in indices if self._examples[index] is None]
        if missing:
            for index, example in zip(missing, self._source.read(missing)):
                for value in (example or {}).values():
                    if isinstance(value, np.ndarray):
                        value.setflags(write=False)
                self._examples[index] = example
        return [
            None if example is None else dict(example) for example in map(self._examples.__getitem__, indices)
        ]
