"""Which example stands at which position: pure functions of (seed, position), without state.

An order is called with a range of positions and returns the indices of the examples that stand there. In
training positions go on for ever, and an epoch is as many consecutive positions as there are examples; batch s is
positions s * B to (s + 1) * B.
"""

import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import grain
import numpy as np

Order = Callable[[range], np.ndarray]  # positions -> int64 [len(positions)]

MEMORY = 2**24  # examples whose order may be held in memory
CYCLE = 10_000  # positions after which a mixture's datasets stand in the same places again
FIRST_PART = (
    2  # purposes of random numbers from here on are datasets' orders; 1 is the buckets', 0 the transforms'
)
POOL = 32  # batches whose examples are sorted by length together


def in_order(positions: range) -> np.ndarray:
    """Every example at its own index: an evaluation."""
    return np.arange(positions.start, positions.stop)


def by_length(lengths: np.ndarray) -> Order:
    """An evaluation from the shortest to the longest."""
    order = np.argsort(lengths, kind="stable")
    return lambda positions: order[positions.start : positions.stop]


class Endless(Protocol):
    """An order that goes on for ever; `epoch` is how many positions an epoch has."""

    epoch: int

    def __call__(self, positions: range) -> np.ndarray:
        """The indices at `positions`."""


class Shuffled:
    """All examples, in Grain's order, which is new in every epoch. Any position takes about 10 us, and no memory."""

    def __init__(self, count: int, seed: int, part: int = 0):
        """Orders `count` examples; `part` numbers the datasets of a mixture."""
        self.epoch = count
        self._order = grain.MapDataset.range(count).seed((seed + part) % 2**32).shuffle().repeat()

    def __call__(self, positions: range) -> np.ndarray:
        """The indices at `positions`."""
        return np.fromiter((self._order[position] for position in positions), np.int64, len(positions))


class Permuted:
    """All examples, in an order that is new in every epoch: quicker than `Shuffled` by far.

    A whole epoch's order is drawn at once, and held in memory: 8 bytes an example.
    """

    def __init__(self, count: int, seed: int, part: int = 0):
        """Orders `count` examples; `part` numbers the datasets of a mixture."""
        self.epoch, self._seed, self._part = count, seed, part
        self._permutation = Remembered(self._permute, keep=2)

    def __call__(self, positions: range) -> np.ndarray:
        """The indices at `positions`."""
        return pieces(self._permutation, positions, self.epoch)

    def _permute(self, epoch: int) -> np.ndarray:
        return generator(self._seed, FIRST_PART + self._part, epoch).permutation(self.epoch)


class Mixed:
    """Several datasets, each in its own order and with its own epochs; numbered one dataset after the other.

    As in grain.MapDataset.mix, which dataset stands at a position is fixed, and so evenly spread that any stretch
    has the datasets in the ratio of their weights (to 1 in CYCLE); how often each has stood before a position is
    known without counting. An epoch is as long as it takes to see the first dataset once.
    """

    def __init__(self, parts: Sequence[Endless], weights: Sequence[float]):
        """Mixes `parts` in the ratio of `weights`."""
        self._parts = parts
        shares = np.asarray(weights, np.float64) / np.sum(weights)
        self._slots = spread(shares)
        self._seen = [np.concatenate([[0], np.cumsum(self._slots == n)]) for n in range(len(parts))]
        self._starts = np.cumsum([0, *(part.epoch for part in parts)])
        self.epoch = round(parts[0].epoch * CYCLE / int(self._seen[0][-1]))

    def __call__(self, positions: range) -> np.ndarray:
        """The indices at `positions`."""
        chosen = self._slots[np.arange(positions.start, positions.stop) % CYCLE]
        indices = np.empty(len(positions), np.int64)
        for number, part in enumerate(self._parts):
            own = range(self._before(number, positions.start), self._before(number, positions.stop))
            if own:
                indices[chosen == number] = part(own) + self._starts[number]
        return indices

    def _before(self, number: int, position: int) -> int:
        """How many positions before this one have dataset `number`."""
        cycles, slot = divmod(position, CYCLE)
        return cycles * int(self._seen[number][-1]) + int(self._seen[number][slot])


def spread(shares: np.ndarray) -> np.ndarray:
    """int64 [CYCLE]: a number for each slot, in these shares, spread evenly; each is there at least once.

    Of the numbers that are left to place, the one whose next place is due first stands next: number n's k-th
    place is due at (k + 1/2) / count[n] of the cycle.
    """
    counts = np.maximum(np.floor(shares * CYCLE), 1).astype(np.int64)
    while counts.sum() != CYCLE:
        counts[np.argmax(shares * CYCLE - counts) if counts.sum() < CYCLE else np.argmax(counts)] += (
            1 if counts.sum() < CYCLE else -1
        )
    numbers = np.repeat(np.arange(len(counts)), counts)
    due = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    return numbers[np.argsort(due, kind="stable")]


class Bucketed:
    """Another order, changed so that the examples of a batch are of like lengths.

    POOL batches at a time, their examples are sorted by length and cut into batches again, and these batches are
    put in a random order. Nothing moves across the end of an epoch, so that every example stays exactly once in
    each; the batch that an epoch ends in gets the shortest of both epochs' examples.
    """

    def __init__(self, order: Order, epoch: int, lengths: np.ndarray, batch_size: int, seed: int):
        """Changes `order`, whose epochs are `epoch` positions; `lengths` [N] are the examples'."""
        self._order, self._epoch, self._lengths = order, epoch, lengths
        self._batch_size, self._seed = batch_size, seed
        self._pool = Remembered(self._sort_pool)

    def __call__(self, positions: range) -> np.ndarray:
        """The indices at `positions`."""
        return pieces(self._pool, positions, POOL * self._batch_size)

    def _sort_pool(self, pool: int) -> np.ndarray:
        """The indices of a pool's batches, int64 [POOL * B]."""
        size = POOL * self._batch_size
        start, stop = pool * size, (pool + 1) * size
        ends = range((start // self._epoch + 1) * self._epoch, stop, self._epoch)
        bounds = [start, *ends, stop]
        rng = generator(self._seed, 1, pool)
        return np.concatenate([self._sort_run(a, b, rng) for a, b in pairwise(bounds)])

    def _sort_run(self, start: int, stop: int, rng: np.random.Generator) -> np.ndarray:
        """The indices at positions of one epoch, `start` to `stop`, in their new order."""
        indices = self._order(range(start, stop))
        indices = indices[np.argsort(self._lengths[indices], kind="stable")]
        size = self._batch_size
        before = min(-start % size, len(indices))  # places in a batch that an earlier epoch has begun
        after = (len(indices) - before) % size  # and in one that the next epoch ends
        whole = indices[before + after :].reshape(-1, size)
        head, tail = indices[:before], indices[before : before + after]
        return np.concatenate([head, whole[rng.permutation(len(whole))].reshape(-1), tail])


class Repeated:
    """Another order with each example several times in a batch, for repeated augmentation (Hoffer et al. 2020).

    A batch holds B / n examples of the other order, n times one after the other: copies are as far from each other as
    can be, so that they are on different devices where there are several, and none is mixed with its own (mixup pairs
    neighbours). An epoch stays as many positions as there are examples: it shows a part of 1 / n of them, as in DeiT
    (Touvron et al. 2021; its RASampler has n = 3), and after n epochs all have been seen n times. (RASampler draws the
    part anew in each epoch, so that some are seen more often than others.)
    """

    def __init__(self, order: Order, batch_size: int, repeats: int):
        """Repeats each example of `order` so many times in a batch; `batch_size` is a multiple of `repeats`."""
        self._order, self._batch_size, self._distinct = order, batch_size, batch_size // repeats

    def __call__(self, positions: range) -> np.ndarray:
        """The indices at `positions`."""
        step, row = np.divmod(np.arange(positions.start, positions.stop), self._batch_size)
        own = step * self._distinct + row % self._distinct  # positions in the other order
        first = int(own.min())
        return self._order(range(first, int(own.max()) + 1))[own - first]


def generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    """Random numbers of (seed, number), apart from those of other purposes."""
    return np.random.Generator(np.random.Philox(key=seed % 2**64, counter=[0, 0, purpose, number]))


class Remembered:
    """The last few values of a pure function of an integer; threads may share it."""

    def __init__(self, function: Callable[[int], np.ndarray], keep: int = 4):
        self._function, self._keep = function, keep
        self._values: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __call__(self, key: int) -> np.ndarray:
        """The value at `key`, computed if it is none of the last few."""
        with self._lock:
            if key not in self._values:
                self._values[key] = self._function(key)
                while len(self._values) > self._keep:
                    del self._values[next(iter(self._values))]
            return self._values[key]


def pieces(block: Callable[[int], np.ndarray], positions: range, size: int) -> np.ndarray:
    """The items at `positions` of a sequence that is known in blocks of `size`."""
    first, last = positions.start // size, (positions.stop - 1) // size
    whole = block(first) if first == last else np.concatenate([block(b) for b in range(first, last + 1)])
    return whole[positions.start - first * size : positions.stop - first * size]
