"""Batches as a pure function of (seed, step), on Grain's MapDataset.

The order of examples is a Grain pipeline over their indices: shuffled as a whole, anew in every epoch, and
repeated for ever. Element k of it is the same whoever asks, so batch s is elements s * B to (s + 1) * B, and
a process's rows are a part of them. Nothing has to be saved to go on from any step, on any number of
processes.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import grain
import numpy as np

from jaxformer.data.config import DataConfig
from jaxformer.data.sources import Source, open_source
from jaxformer.errors import UserError

Batch = dict[str, np.ndarray]
Check = Callable[[Mapping[str, np.ndarray]], None]
Transform = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]

FOREVER = 2**62  # steps of a training that does not end by itself
ROWS_PER_TASK = 128  # rows that one background thread makes at a time, at most


def make_batches(
    config: DataConfig, split: str, seed: int = 0, train: bool = True, check: Check | None = None
) -> "Batches":
    """Opens a split as batches.

    Args:
      config: the data config.
      split: a split, with TFDS's slices if wanted ("train[:90%]").
      seed: decides the order and everything that is random in the transforms; any integer.
      train: True shuffles, repeats for ever and applies `config.transforms`; False goes through the examples
        once, in order, with `config.eval_transforms`, and pads the last batch.
      check: looks at each batch on the thread that made it; raises UserError for one that cannot be used.

    Raises:
      UserError: the dataset or the split is not there, or its first example does not pass the transforms.
    """
    cv2.setNumThreads(0)  # the threads are ours: OpenCV's own would fight with them for the cores
    source = open_source(config, split)
    transforms, batch_size = config.transforms, config.batch_size
    if not train:
        transforms, batch_size = config.eval_transforms, config.eval_batch_size or batch_size
    return Batches(source, transforms, batch_size, seed, train, config.read_threads, config.prefetch, check)


class Batches:
    """A sequence of global batches: `batches[step]`.

    A batch is a dict of the arrays of its examples, stacked (of images `image` uint8 [B, H, W, C] and `labels`
    int32 [B]), and in evaluation `example_mask` bool [B], False on the rows that pad the last batch with zeros.

    Attributes:
      batch_size: examples in a global batch.
      num_examples: examples in the split, hence in an epoch.
      class_names: names of the classes, or None.
      element_spec: for each array of a batch, its shape without the batch, and its dtype.
      train: whether the batches go on for ever.
    """

    def __init__(
        self,
        source: Source,
        transforms: Sequence[Transform],
        batch_size: int,
        seed: int,
        train: bool,
        read_threads: int | None = None,
        prefetch: int = 4,
        check: Check | None = None,
    ):
        self.batch_size = batch_size
        self.num_examples = len(source)
        self.class_names = source.class_names
        self.train = train
        self._source = source
        self._transforms = tuple(transforms)
        self._threads = read_threads or min(os.cpu_count() or 1, 16)
        self._prefetch = prefetch
        self._check = check
        self._seed = seed % 2**64
        self._order = grain.MapDataset.range(self.num_examples)
        if train:
            self._order = self._order.seed(seed % 2**32).shuffle().repeat()
        self.element_spec = self._element_spec()

    def __len__(self) -> int:
        """Batches in an evaluation; training has no length."""
        if self.train:
            raise TypeError("training batches go on for ever: use steps_per_epoch")
        return math.ceil(self.num_examples / self.batch_size)

    @property
    def steps_per_epoch(self) -> float:
        """Steps that show every example once; batches run across the ends of epochs."""
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
        first = step * self.batch_size + process_index * rows
        return self._make(range(first, first + rows))

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
            first = (start + step) * self.batch_size + process_index * rows + task * task_rows
            return self._make(range(first, first + task_rows))

        count = max(0, stop - start) * tasks
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._prefetch * tasks)
        parts = grain.MapDataset.range(min(count, FOREVER)).map(make_task).to_iter_dataset(options)
        return Reader(iter(parts), tasks)

    def _rows(self, process_index: int, process_count: int) -> int:
        """Rows of each process."""
        if self.batch_size % process_count:
            raise ValueError(f"a batch of {self.batch_size} does not divide by {process_count} processes")
        if not 0 <= process_index < process_count:
            raise ValueError(f"process_index {process_index} is not one of {process_count} processes")
        return self.batch_size // process_count

    def _make(self, positions: range) -> Batch:
        """The elements at `positions`, stacked; positions past the end of an evaluation are padding."""
        real = positions if self.train else range(positions.start, min(positions.stop, self.num_examples))
        indices = [int(self._order[position]) for position in real]
        rows = len(positions)
        batch = {key: np.zeros((rows, *shape), dtype) for key, (shape, dtype) in self.element_spec.items()}
        for row, (element, index) in enumerate(zip(self._elements(indices, real), indices)):
            for key, value in element.items():
                rows_of_key = batch[key]
                if np.shape(value) != rows_of_key.shape[1:]:
                    raise UserError(
                        f"{self._where(index)}: the {key} is {np.shape(value)}, the first is "
                        f"{rows_of_key.shape[1:]}; add a transform that makes all the same, as "
                        "dict(name='resize', size=...)"
                    )
                rows_of_key[row] = value
        if not self.train:
            batch["example_mask"][: len(real)] = True
        if self._check is not None:
            self._check({key: value[: len(real)] for key, value in batch.items()})
        return batch

    def _elements(self, indices: Sequence[int], positions: Sequence[int]) -> Iterator[Mapping[str, Any]]:
        """Transformed examples; the randomness of each comes from (seed, position) alone."""
        if not indices:
            return
        bits = np.random.Philox(key=self._seed)
        rng = np.random.Generator(bits)
        state = bits.state
        for example, index, position in zip(self._source.read(indices), indices, positions):
            state["state"]["counter"][3] = position  # far quicker than a new generator
            bits.state = state
            for transform in self._transforms:
                try:
                    example = transform(example, rng)
                except (ValueError, cv2.error) as error:
                    name = type(transform).__name__
                    raise UserError(f"{self._where(index)}: {name} failed: {str(error).strip()}") from error
            yield example

    def _element_spec(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """From the first example; Python's integers become int32."""
        spec = {}
        for key, value in next(self._elements([0], [0])).items():
            spec[key] = (
                np.shape(value),
                value.dtype if isinstance(value, np.ndarray) else np.dtype(np.int32),
            )
        return spec if self.train else spec | {"example_mask": ((), np.dtype(bool))}

    def _where(self, index: int) -> str:
        return f"dataset {self._source.name}, split {self._source.split!r}, index {index}"


class Reader:
    """Batches that threads make ahead; an iterator that is closed when it is no longer needed."""

    def __init__(self, parts: Any, parts_per_batch: int):
        self._parts = parts
        self._parts_per_batch = parts_per_batch
        self._ended = False
        self._parts.start_prefetch()

    def __iter__(self) -> "Reader":
        return self

    def __next__(self) -> Batch:
        """The next batch; raises what went wrong in making it."""
        if self._ended:
            raise StopIteration
        parts: list[Batch] = []
        try:
            while len(parts) < self._parts_per_batch:
                parts.append(next(self._parts))
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

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def rows_per_task(rows: int) -> int:
    """How many of a process's rows one thread makes at a time: all, or an even part if there are many."""
    parts = next((n for n in range(1, rows + 1) if rows % n == 0 and rows // n <= ROWS_PER_TASK), rows)
    return rows // parts if rows // parts >= ROWS_PER_TASK // 8 else rows
