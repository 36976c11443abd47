"""Collates: the arrays of a batch from the indices of its examples, images one by one, token rows all at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from jaxformer.data.base import Example, RowSource, Source, Spec
from jaxformer.data.decoding import OpenCVError
from jaxformer.errors import UserError

Batch = dict[str, np.ndarray]


class CollateExamples:
    """Examples that are read and transformed one by one; on padding stands what the source's `fills` say.

    In training, another example stands in for one that is to be skipped; else its row is padding, and not real.

    Attributes:
      spec: of the arrays that it makes.
    """

    def __init__(self, source: Source, transforms: Sequence[Any], seed: int, train: bool):
        """Raises UserError if the first example does not pass the transforms."""
        self._source, self._transforms, self._seed, self._train = source, transforms, seed, train
        rng = next(generators(seed, np.zeros(1, np.int64)))
        first = self._finished(readable(source, 0), 0, rng, check=True)
        self.spec: Spec = {key: (np.shape(value), dtype_of(value)) for key, value in first.items()}

    def __call__(
        self, indices: np.ndarray, counters: np.ndarray, rows: int, length: int | None
    ) -> tuple[Batch, np.ndarray]:
        """A batch of `rows` examples, and bool [rows]: which of them are real, neither padding nor skipped.

        Args:
          indices: int64 [N], N <= rows, of the examples; the other rows are padding.
          counters: int64 [N]; with the seed they decide what is random in each example.
          rows: examples in the batch.
          length: places in a row of tokens; None is the longest.
        """
        fills = self._source.fills
        batch = {
            k: np.full((rows, *shape), fills.get(k, 0), dtype) for k, (shape, dtype) in self.spec.items()
        }
        real, numbers = np.zeros(rows, bool), indices.tolist()
        read = self._source.read(numbers) if numbers else []
        for row, (example, index, rng) in enumerate(zip(read, numbers, generators(self._seed, counters))):
            if example is None and self._train:
                example = readable(self._source, index)
            if example is None:
                continue
            real[row] = True
            for key, value in self._finished(example, index, rng).items():
                shape, first = np.shape(value), self.spec[key][0]
                if shape != first:
                    remedy = "add a transform that makes all the same, as dict(name='resize', size=...)"
                    what = f"the {key} is {shape}, the first is {first}"
                    raise UserError(f"{self._source.where(index)}: {what}; {remedy}")
                batch[key][row] = value
        return batch, real

    def _finished(self, example: Example, index: int, rng: Any, check: bool = False) -> Mapping[str, Any]:
        """What a batch holds of an example."""
        where = partial(self._source.where, index)
        return self._source.finish(transformed(example, self._transforms, rng, where, self._source, check))


def readable(source: Source, index: int) -> dict[str, Any]:
    """The example at `index`, or the next one that is not to be skipped.

    Raises:
      UserError: all are.
    """
    for step in range(len(source)):
        example = source.read([(index + step) % len(source)])[0]
        if example is not None:
            return example
    raise UserError(f"dataset {source.name}, split {source.split!r}: all of its images are broken")


def drawing(source: Source, rng: np.random.Generator) -> Callable[[int], list[dict[str, Any]]]:
    """A function that draws examples of a source, as they are read."""
    return lambda count: [readable(source, int(index)) for index in rng.integers(len(source), size=count)]


class CollateRows:
    """Token rows that are gathered all at once; transforms, if there are any, get them one by one.

    A transform sees a row without its padding, and may make it shorter, or longer, up to the
    length of the batch. The arrays that it adds say in its `fills` what stands on padding, else 0 does.
    """

    def __init__(self, source: RowSource, transforms: Sequence[Any], seed: int):
        """Raises UserError if the first example does not pass the transforms."""
        self._source, self._seed = source, seed
        self._transforms = [transform.bind(source.tokenizer) for transform in transforms]
        self._fills = {key: array.fill for key, array in source.spec.items()}
        self.spec: Spec = {key: (array.shape, np.dtype(array.dtype)) for key, array in source.spec.items()}
        if transforms:
            for transform in self._transforms:
                self._fills |= transform.fills
            first, _ = self(np.zeros(1, np.int64), np.zeros(1, np.int64), 1, None)
            self.spec = {key: (value.shape[1:], value.dtype) for key, value in first.items()}

    def __call__(
        self, indices: np.ndarray, counters: np.ndarray, rows: int, length: int | None
    ) -> tuple[Batch, np.ndarray]:
        """As `CollateExamples`; no row is skipped."""
        length = self._source.length if length is None else length
        batch = self._source.gather(indices, length)
        if self._transforms and len(indices):
            examples = list(self._examples(batch, indices, counters, length))
            batch = {key: self._stack(key, [e[key] for e in examples], length) for key in examples[0]}
        if rows > len(indices):
            padding = self._padding(rows - len(indices), length)
            if len(indices):
                padding = {key: np.concatenate([batch[key], fill]) for key, fill in padding.items()}
            batch = padding
        return batch, np.arange(rows) < len(indices)

    def _examples(
        self, batch: Batch, indices: np.ndarray, counters: np.ndarray, length: int
    ) -> Iterator[Mapping[str, Any]]:
        """Transformed rows, at most `length` long."""
        transforms = [transform.within(length) for transform in self._transforms]
        lengths = self._source.lengths
        for row, (index, rng) in enumerate(zip(indices.tolist(), generators(self._seed, counters))):
            stop = None if lengths is None else int(lengths[index])
            example = {key: v[row, :stop] if v.ndim > 1 else v[row] for key, v in batch.items()}
            yield transformed(example, transforms, rng, partial(self._source.where, index))

    def _stack(self, key: str, values: list[Any], length: int) -> np.ndarray:
        """The values of one array, padded to `length` if they have a length."""
        dtype = self.spec[key][1] if key in self.spec else dtype_of(values[0])
        if np.ndim(values[0]) == 0:
            return np.asarray(values, dtype)
        stacked = np.full((len(values), length), self._fills.get(key, 0), dtype)
        for row, value in zip(stacked, values):
            row[: len(value)] = value
        return stacked

    def _padding(self, rows: int, length: int) -> Batch:
        """Rows of padding."""
        return {
            key: np.full((rows, length) if shape else (rows,), self._fills.get(key, 0), dtype)
            for key, (shape, dtype) in self.spec.items()
        }


def transformed(
    example: Mapping[str, Any],
    transforms: Sequence[Any],
    rng: np.random.Generator,
    where: Callable[[], str],
    source: Source | None = None,
    check: bool = False,
) -> Mapping[str, Any]:
    """An example after all transforms; those that say `draws` are given a function that draws others from the source.

    With `check` each transform looks first whether it makes sense for such an example.

    Raises:
      UserError: one fails; names the example by what `where` gives.
    """
    for transform in transforms:
        try:
            if check:
                transform.check(example)
            further = (drawing(source, rng),) if transform.draws and source is not None else ()
            example = transform(example, rng, *further)
        except (ValueError, OpenCVError) as error:
            name = type(transform).__name__
            raise UserError(f"{where()}: {name} failed: {str(error).strip()}") from error
    return example


def generators(seed: int, counters: np.ndarray) -> Iterator[np.random.Generator]:
    """A generator for each counter, valid until the next: its numbers come from (seed, counter) alone."""
    bits = np.random.Philox(key=seed)
    rng = np.random.Generator(bits)
    state = bits.state
    for counter in counters.tolist():
        state["state"]["counter"][3] = counter  # far quicker than a new generator
        bits.state = state
        yield rng


def dtype_of(value: Any) -> np.dtype:
    """The dtype of a value in a batch: an array keeps its own, Python's integers become int32."""
    return value.dtype if isinstance(value, np.ndarray) else np.dtype(np.int32)
