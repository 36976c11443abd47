"""Which example stands at which position: pure functions of (seed, position), without state.

An order is called with a range of positions and returns the indices of the examples that stand there. In
training positions go on for ever, and an epoch is as many consecutive positions as there are examples; batch s is
positions s * B to (s + 1) * B.
"""

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

import grain
import numpy as np

Order = Callable[[range], np.ndarray]  # positions -> int64 [len(positions)]

MEMORY = 2**24  # examples whose order may be held in memory
CYCLE = 10_000  # positions after which a mixture's datasets stand in the same places again
# Purposes of random numbers: 0 is the transforms', from FIRST_PART on datasets' orders.
BUCKETS, FIRST_PART = 1, 2
POOL = 32  # batches whose examples are sorted by length together


def in_order(positions: range) -> np.ndarray:
    """Every example at its own index: an evaluation."""
    return np.arange(positions.start, positions.stop)


def by_length(lengths: np.ndarray) -> Order:
    """An evaluation from the shortest to the longest."""
    order = np.argsort(lengths, kind="stable")
    return lambda positions: order[positions.start : positions.stop]


def shuffled(count: int, seed: int, part: int = 0) -> Order:
    """All examples, in Grain's order, which is new in every epoch. Any position takes about 10 us, and no memory.

    Args:
      count: of the examples.
      seed: decides the order.
      part: the number of the dataset in a mixture.
    """
    order = grain.MapDataset.range(count).seed((seed + part) % 2**32).shuffle().repeat()
    return lambda positions: np.fromiter((order[p] for p in positions), np.int64, len(positions))


def permuted(count: int, seed: int, part: int = 0) -> Order:
    """All examples, in an order that is new in every epoch: much quicker than `shuffled`.

    A whole epoch's order is drawn at once, and held in memory: 8 bytes an example. The arguments are those of
    `shuffled`.
    """
    epochs = remembered(lambda epoch: generator(seed, FIRST_PART + part, epoch).permutation(count), keep=2)
    return lambda positions: pieces(epochs, positions, count)


def mixed(parts: Sequence[Order], counts: Sequence[int], weights: Sequence[float]) -> tuple[Order, int]:
    """Several datasets, each in its own order and with its own epochs; numbered one dataset after the other.

    As in grain.MapDataset.mix, which dataset stands at a position is fixed, and so evenly spread that any stretch
    has the datasets in the ratio of their weights (to 1 in CYCLE); how often each has stood before a position is
    known without counting.

    Args:
      parts: the order of each dataset.
      counts: of each dataset's examples.
      weights: of the datasets.

    Returns:
      The order, and the length of an epoch: the positions that it takes to see the first dataset once.
    """
    slots = spread(np.asarray(weights, np.float64) / np.sum(weights))
    seen = [np.concatenate([[0], np.cumsum(slots == number)]) for number in range(len(parts))]
    starts = np.cumsum([0, *counts])

    def before(number: int, position: int) -> int:
        """How many positions before this one have dataset `number`."""
        cycles, slot = divmod(position, CYCLE)
        return cycles * int(seen[number][-1]) + int(seen[number][slot])

    def order(positions: range) -> np.ndarray:
        chosen = slots[np.arange(positions.start, positions.stop) % CYCLE]
        indices = np.empty(len(positions), np.int64)
        for number, part in enumerate(parts):
            if own := range(before(number, positions.start), before(number, positions.stop)):
                indices[chosen == number] = part(own) + starts[number]
        return indices

    return order, round(counts[0] * CYCLE / int(seen[0][-1]))


def spread(shares: np.ndarray) -> np.ndarray:
    """int64 [CYCLE]: a number for each slot, in these shares, spread evenly; each is there at least once.

    Of the numbers that are left to place, the one whose next place is due first stands next: number n's k-th
    place is due at (k + 1/2) / count[n] of the cycle.
    """
    counts = np.maximum(np.floor(shares * CYCLE), 1).astype(np.int64)
    while missing := CYCLE - counts.sum():
        counts[np.argmax(shares * CYCLE - counts if missing > 0 else counts)] += np.sign(missing)
    numbers = np.repeat(np.arange(len(counts)), counts)
    due = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    return numbers[np.argsort(due, kind="stable")]


def bucketed(order: Order, epoch: int, lengths: np.ndarray, batch_size: int, seed: int) -> Order:
    """Another order, changed so that the examples of a batch are of like lengths.

    POOL batches at a time, their examples are sorted by length and cut into batches again, and these batches are
    put in a random order. Nothing moves across the end of an epoch, so that every example stays exactly once in
    each; the batch that an epoch ends in gets the shortest of both epochs' examples.

    Args:
      order: the other order.
      epoch: positions in an epoch of it.
      lengths: [N], of the examples.
      batch_size: B.
      seed: decides the order of the batches.
    """
    size = POOL * batch_size

    def sort_pool(pool: int) -> np.ndarray:
        """The indices of a pool's batches, int64 [POOL * B]."""
        start, stop = pool * size, (pool + 1) * size
        bounds = [start, *range((start // epoch + 1) * epoch, stop, epoch), stop]  # with the ends of epochs
        rng = generator(seed, BUCKETS, pool)
        return np.concatenate([sort_run(a, b, rng) for a, b in pairwise(bounds)])

    def sort_run(start: int, stop: int, rng: np.random.Generator) -> np.ndarray:
        """The indices at positions of one epoch, `start` to `stop`, in their new order."""
        indices = order(range(start, stop))
        indices = indices[np.argsort(lengths[indices], kind="stable")]
        before = min(-start % batch_size, len(indices))  # places in a batch that an earlier epoch has begun
        after = (len(indices) - before) % batch_size  # and in one that the next epoch ends
        head, tail, whole = np.split(indices, [before, before + after])
        batches = whole.reshape(-1, batch_size)
        return np.concatenate([head, batches[rng.permutation(len(batches))].reshape(-1), tail])

    pools = remembered(sort_pool)
    return lambda positions: pieces(pools, positions, size)


def repeated(order: Order, batch_size: int, repeats: int) -> Order:
    """Another order with each example several times in a batch, for repeated augmentation (Hoffer et al. 2020).

    A batch holds B / n examples of the other order, n times one after the other: copies are as far from each other as
    can be, so that they are on different devices where there are several, and none is mixed with its own (mixup pairs
    neighbours). An epoch stays as many positions as there are examples: it shows a part of 1 / n of them, as in DeiT
    (Touvron et al. 2021; its RASampler has n = 3), and after n epochs all have been seen n times. (RASampler draws the
    part anew in each epoch, so that some are seen more often than others.)

    Args:
      order: the other order.
      batch_size: B, a multiple of `repeats`.
      repeats: n.
    """
    distinct = batch_size // repeats

    def repeating(positions: range) -> np.ndarray:
        step, row = np.divmod(np.arange(positions.start, positions.stop), batch_size)
        own = step * distinct + row % distinct  # positions in the other order
        first = int(own.min())
        return order(range(first, int(own.max()) + 1))[own - first]

    return repeating


def generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    """Random numbers of (seed, number), apart from those of other purposes."""
    return np.random.Generator(np.random.Philox(key=seed % 2**64, counter=[0, 0, purpose, number]))


def remembered(function: Callable[[int], np.ndarray], keep: int = 4) -> Callable[[int], np.ndarray]:
    """A pure function of an integer that remembers its last few values; of several threads only one computes one."""
    known, lock = lru_cache(keep)(function), threading.Lock()

    def value(key: int) -> np.ndarray:
        with lock:
            return known(key)

    return value


def pieces(block: Callable[[int], np.ndarray], positions: range, size: int) -> np.ndarray:
    """The items at `positions` of a sequence that is known in blocks of `size`."""
    first, last = positions.start // size, (positions.stop - 1) // size
    whole = block(first) if first == last else np.concatenate([block(b) for b in range(first, last + 1)])
    return whole[positions.start - first * size : positions.stop - first * size]
