"""Batches as a pure function of (seed, step), on Grain's MapDataset.

The order of examples (`order.py`) is shuffled as a whole, anew in every epoch, and goes on for ever. Element k of
it is the same whoever asks, so batch s is elements s * B to (s + 1) * B, and a process's rows are a part of
them. Nothing has to be saved to go on from any step, on any number of processes.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import grain
import numpy as np

from jaxformer.data import order as orders
from jaxformer.data.base import RowSource, Source, Spec, open_source
from jaxformer.data.collate import Batch, CollateExamples, CollateRows
from jaxformer.data.config import DataConfig
from jaxformer.data.records import NoSplit
from jaxformer.errors import UserError

Check = Callable[[Mapping[str, np.ndarray]], None]

FOREVER = 2**62  # steps of a training that does not end by itself
ROWS_PER_TASK = 128  # rows that one background thread makes at a time, at most
FEW = 32  # examples that tell datasets apart
PADDING_STEPS = 2 * orders.POOL  # batches whose padding is counted


def make_batches(
    config: DataConfig,
    split: str,
    seed: int = 0,
    train: bool = True,
    check: Check | None = None,
    sources: "dict[tuple[str, bool], Source | RowSource] | None" = None,
) -> "Batches":
    """Opens a split as batches.

    Args:
      config: the data config.
      split: a split, with TFDS's slices if wanted ("train[:90%]").
      seed: decides the order and everything that is random in the transforms; any integer.
      train: True shuffles, repeats for ever and applies `config.transforms`; False goes through the examples
        once, in order, with `config.eval_transforms`, and pads the last batch.
      check: looks at each batch on the thread that made it; raises UserError for one that cannot be used.
      sources: what is open of this config already, by split and `train`; what is opened is added.

    Raises:
      UserError: the dataset or the split is not there, or its first example does not pass the transforms.
    """
    sources = {} if sources is None else sources
    try:
        if (split, train) not in sources:
            sources[split, train] = open_source(config, split, train)
    except NoSplit as error:
        field = "data.train_split" if split == config.train_split else "eval.split"
        raise UserError(f"{field}: {error}") from error
    return Batches(sources[split, train], config, seed, train, check)


class Batches:
    """A sequence of global batches: `batches[step]`.

    A batch is a dict of the arrays of its examples, stacked: of images `image` uint8 [B, H, W, C] and `labels`
    int32 [B]; of other kinds those that `kinds/` says, of text padded to one length. In evaluation there is
    `example_mask` bool [B] too, False on the rows that pad the last batch or are skipped, and with text `index`
    int32 [B], the number of each row in the split (0 on padding).

    Attributes:
      batch_size: examples in a global batch.
      num_examples: examples in an epoch: those of the split, or of a mixture as `mixed` says.
      source: the split's examples.
      class_names: names of the classes, or None.
      tokenizer: what made the tokens; None if there are none.
      sizes: what a model's layers go by, as far as it is known: `num_classes`, `vocab_size`.
      facts: lines for people about what was opened.
      element_spec: for each array of a batch, its shape without the batch, and its dtype; of rows that differ in
        length, the longest.
      train: whether the batches go on for ever.
      typical_length: places in a row on average, where buckets make batches shorter than the longest row; else None.
    """

    def __init__(
        self,
        source: Source | RowSource,
        config: DataConfig,
        seed: int,
        train: bool,
        check: Check | None = None,
    ):
        """The batches of an open split; the other arguments are those of `make_batches`."""
        self.train, self.source, self._config, self._check = train, source, config, check
        self._seed = seed
        self.batch_size = config.batch_size if train else config.eval_batch_size or config.batch_size
        self.class_names, self.tokenizer, self.sizes = source.class_names, source.tokenizer, source.sizes
        transforms = config.transforms if train else config.eval_transforms
        # What is random in an evaluation (masked tokens) is the same whatever the run's seed.
        of_transforms = seed % 2**64 if train else 0
        if isinstance(source, RowSource):
            self._collate: CollateRows | CollateExamples = CollateRows(source, transforms, of_transforms)
        else:
            self._collate = CollateExamples(source, transforms, of_transforms, train)
        self.element_spec: Spec = dict(self._collate.spec)
        if not train:
            self.element_spec["example_mask"] = ((), np.dtype(bool))
            if self.tokenizer is not None:
                self.element_spec["index"] = ((), np.dtype(np.int32))
        self._lengths = source.lengths if config.buckets else None
        self._widths = np.asarray([*config.buckets, source.length])
        self.num_examples, self._order = self._make_order(seed, config.repeats)
        self.typical_length: int | None = None
        self.facts = [*source.facts, *self._padding()]

    def of(self, source: Source) -> "Batches":
        """Batches of another source, in all else like these."""
        return Batches(source, self._config, self._seed, self.train, self._check)

    def _make_order(self, seed: int, repeats: int) -> tuple[int, orders.Order]:
        """Examples in an epoch, and their order."""
        lengths = self._lengths
        if not self.train:
            return len(self.source), orders.in_order if lengths is None else orders.by_length(lengths)
        counts, weights = self.source.parts
        quick = isinstance(self.source, RowSource) and max(counts) <= orders.MEMORY
        ordered = orders.permuted if quick else orders.shuffled
        parts = [ordered(count, seed, part) for part, count in enumerate(counts)]
        order, epoch = (parts[0], counts[0]) if len(parts) == 1 else orders.mixed(parts, counts, weights)
        if lengths is not None:
            order = orders.bucketed(order, epoch, lengths, self.batch_size // repeats, seed)
        return epoch, order if repeats == 1 else orders.repeated(order, self.batch_size, repeats)

    def __len__(self) -> int:
        """Batches in an evaluation; training has no length."""
        if self.train:
            raise TypeError("training batches go on for ever: use steps_per_epoch")
        return math.ceil(self.num_examples / self.batch_size)

    @property
    def steps_per_epoch(self) -> float:
        """Steps that show as many examples as there are; batches run across the ends of epochs."""
        return self.num_examples / self.batch_size

    def __getitem__(self, step: int) -> Batch:
        """The global batch of a step."""
        return self.local(step)

    def __iter__(self) -> Iterator[Batch]:
        """Reads from the first step on, in the background."""
        return self.read(0)

    def local(self, step: int, process_index: int = 0, process_count: int = 1) -> Batch:
        """A process's rows of a step's batch; only these are read.

        Raises:
          IndexError: an evaluation has no such step.
          ValueError: the batch does not divide by the processes.
          UserError: an example is broken; names it.
        """
        rows = self._rows(process_index, process_count)
        if step < 0 or (not self.train and step >= len(self)):
            raise IndexError(f"step {step}: there are {len(self) if not self.train else 'no negative'} steps")
        return self._make(step, range(process_index * rows, (process_index + 1) * rows))

    def read(
        self, start: int = 0, process_index: int = 0, process_count: int = 1, stop: int | None = None
    ) -> "Reader":
        """Batches `start`, `start + 1`, ... made ahead by threads; equal to `local(step, ...)`.

        Args:
          start: the first step.
          process_index: whose rows.
          process_count: how many processes share each batch.
          stop: the step before which to end; None never ends in training, and after the last batch in
            evaluation.

        Returns:
          An iterator with `close()`, also a context manager. It begins to read at once.
        """
        rows = self._rows(process_index, process_count)
        last = FOREVER if self.train else len(self)
        stop = last if stop is None else min(stop, last)
        task_rows = rows_per_task(rows)
        tasks = rows // task_rows

        def make_task(index: int) -> Batch:
            step, task = divmod(index, tasks)
            first = process_index * rows + task * task_rows
            return self._make(start + step, range(first, first + task_rows))

        count = max(0, stop - start) * tasks
        threads = self._config.read_threads or min(os.cpu_count() or 1, 16)
        ahead = self._config.prefetch * tasks
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        parts = grain.MapDataset.range(min(count, FOREVER)).map(make_task).to_iter_dataset(options)
        return Reader(iter(parts), tasks)

    def fingerprint(self) -> str:
        """A hash of the first examples, without images and what else machines may round in their own ways."""
        found = hashlib.sha256()
        for name, array in sorted(self._make(0, range(min(self.batch_size, FEW))).items()):
            found.update(f"{name}{array.shape}{array.dtype}".encode())
            found.update(array.tobytes() if array.dtype.kind in "biu" and array.ndim < 3 else b"")
        return found.hexdigest()[:16]

    def _rows(self, process_index: int, process_count: int) -> int:
        """Rows of each process."""
        if self.batch_size % process_count:
            raise ValueError(f"a batch of {self.batch_size} does not divide by {process_count} processes")
        if not 0 <= process_index < process_count:
            raise ValueError(f"process_index {process_index} is not one of {process_count} processes")
        return self.batch_size // process_count

    def numbers(self, step: int) -> np.ndarray:
        """int64 [N]: the number in the split of each of a step's examples; the rows behind them are padding."""
        return self._order(self._positions(step))

    def _positions(self, step: int) -> range:
        """The positions of a step's examples; an evaluation's last batch may have fewer than others."""
        first = step * self.batch_size
        stop = first + self.batch_size
        return range(first, stop if self.train else min(stop, self.num_examples))

    def _make(self, step: int, rows: range) -> Batch:
        """The `rows` of a step's batch; those past the end of an evaluation are padding."""
        positions = self._positions(step)[rows.start : rows.stop]
        indices = self._order(positions)
        counters = np.arange(positions.start, positions.stop) if self.train else indices
        batch, real = self._collate(indices, counters, len(rows), self._length(step))
        if not self.train:
            batch["example_mask"] = real
            if self.tokenizer is not None:
                batch["index"] = np.zeros(len(rows), np.int32)
                batch["index"][: len(indices)] = indices
        if self._check is not None:
            self._check({key: value[: len(indices)] for key, value in batch.items()})
        return batch

    def _length(self, step: int) -> int | None:
        """Places in a row of a step's batch: the smallest bucket that holds its longest row."""
        if self._lengths is None:
            return None
        longest = self._lengths[self._order(self._positions(step))].max()
        return int(self._widths[np.searchsorted(self._widths, longest)])

    def _padding(self) -> list[str]:
        """A line about padding, from the first batches of rows that differ in length."""
        lengths = self.source.lengths
        if lengths is None:
            return []
        filled = lengths if self.source.filled is None else self.source.filled
        used = places = rows = 0.0
        for step in range(min(PADDING_STEPS, math.ceil(self.num_examples / self.batch_size))):
            positions = self._positions(step)
            used += filled[self._order(positions)].sum()
            places += len(positions) * (self._length(step) or self.source.length)
            rows += len(positions)
        if self._lengths is not None:
            self.typical_length = round(places / rows)
        share = (places - used) / places
        return [f"{self.source.split}: {share:.0%} of the places in its batches are padding"]


class Reader(Iterator[Batch], AbstractContextManager):
    """Batches that threads make ahead; an iterator that is closed when it is no longer needed."""

    def __init__(self, parts: Any, parts_per_batch: int):
        self._parts, self._parts_per_batch, self._ended = parts, parts_per_batch, False
        self._parts.start_prefetch()

    def __next__(self) -> Batch:
        """The next batch; raises what went wrong in making it."""
        if self._ended:
            raise StopIteration
        try:
            parts: list[Batch] = [next(self._parts) for _ in range(self._parts_per_batch)]
        except BaseException:  # the end, too
            self.close()
            raise
        if len(parts) == 1:
            return parts[0]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def close(self) -> None:
        """Stops reading ahead; the threads end with the rows that they are at."""
        self._ended = True
        self._parts.close()

    def __exit__(self, *exception: object) -> None:
        self.close()


def rows_per_task(rows: int) -> int:
    """How many of a process's rows one thread makes at a time: all, or an even part if there are many."""
    parts = next((n for n in range(1, rows + 1) if rows % n == 0 and rows // n <= ROWS_PER_TASK), rows)
    return rows // parts if rows // parts >= ROWS_PER_TASK // 8 else rows
