"""Opens a split as rows of tokens, as a config says: with its tokenizer, and what is mixed into it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaxformer.data.config import DataConfig
from jaxformer.data.examples import Documents, Pairs, Sequences, Spans, Tagged, Windows
from jaxformer.data.sources import RowSource
from jaxformer.data.text.documents import DocumentRows
from jaxformer.data.text.pairs import PairRows
from jaxformer.data.text.records import Records
from jaxformer.data.text.rows import TokenRows
from jaxformer.data.text.sequences import SequenceRows
from jaxformer.data.text.spans import SpanRows
from jaxformer.data.text.tagged import TaggedRows
from jaxformer.data.text.tokens import build_tokenizer
from jaxformer.data.text.windows import WindowRows
from jaxformer.errors import UserError

# Settings -> the source, called with (settings, records, tokenizer); its `check` looks at the features before.
SOURCES: dict[type, Any] = {
    Documents: DocumentRows,
    Pairs: PairRows,
    Sequences: SequenceRows,
    Spans: SpanRows,
    Tagged: TaggedRows,
    Windows: WindowRows,
}


def open_rows(config: DataConfig, split: str, train: bool = False) -> RowSource:
    """A split's rows; in training, with those of the datasets that are mixed in.

    The tokenizer is learnt from the training splits, whatever split is opened.

    Raises:
      UserError: a dataset, version, split or feature is not there, or not what it has to be; the tokenizer
        cannot be made, or lacks a token that the kind of rows needs.
    """
    settings, source = config.examples, SOURCES[type(config.examples)]
    opened = Records(config, split)
    parts = [opened if split == config.train_split else Records(config, config.train_split)]
    for part in config.mixture:
        other = replace(config, name=part.name, version=part.version)
        parts.append(Records(other, part.train_split or config.train_split))
    for records in [opened, *parts]:
        source.check(records, settings)
    tokenizer = build_tokenizer(config.tokenizer, settings.text_features, parts)
    rows = source(settings, opened, tokenizer)
    if not (train and config.mixture):
        return rows
    others = [source(settings, records, tokenizer) for records in parts[1:]]
    return MixedRows([rows, *others], [1.0, *(part.weight for part in config.mixture)])


class MixedRows(RowSource):
    """The rows of several datasets, numbered one dataset after the other."""

    def __init__(self, sources: Sequence[TokenRows], weights: Sequence[float]):
        """Mixes `sources` in the ratio of `weights`.

        Raises:
          UserError: their classes differ.
        """
        first = sources[0]
        for source in sources[1:]:
            if source.class_names != first.class_names or source.spec.keys() != first.spec.keys():
                raise UserError(
                    f"data.mixture: {source.name} has other classes than {first.name}; mix datasets of the same"
                )
        self.sources, self.weights = sources, list(weights)
        self.starts = np.cumsum([0, *(len(source) for source in sources)])
        self.name, self.split = " + ".join(source.name for source in sources), first.split
        self.class_names, self.tokenizer, self.length = first.class_names, first.tokenizer, first.length
        self.spec = first.spec
        lengths = [source.lengths for source in sources if source.lengths is not None]
        self.lengths = np.concatenate(lengths) if lengths else None
        filled = [source.lengths if source.filled is None else source.filled for source in sources]
        self.filled = np.concatenate(filled) if lengths else None  # type: ignore[arg-type]
        self.facts = [
            *(f"{source.name}, {fact}" for source in sources for fact in source.facts),
            "mixed in the ratio " + " : ".join(f"{weight:g}" for weight in weights),
        ]

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def sizes(self) -> dict[str, int]:
        """Those of each."""
        return self.sources[0].sizes

    @property
    def parts(self) -> tuple[list[int], list[float]]:
        """Rows and weight of each dataset."""
        return [len(source) for source in self.sources], self.weights

    def gather(self, indices: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """The rows at `indices`, int64 [B], padded to `length`."""
        which = np.searchsorted(self.starts, indices, side="right") - 1
        batch: dict[str, np.ndarray] = {}
        for number, source in enumerate(self.sources):
            rows = np.flatnonzero(which == number)
            for key, value in source.gather(indices[rows] - self.starts[number], length).items():
                if key not in batch:
                    batch[key] = np.empty((len(indices), *value.shape[1:]), value.dtype)
                batch[key][rows] = value
        return batch

    def where(self, index: int) -> str:
        """How messages name a row."""
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.sources[number].where(index - int(self.starts[number]))
