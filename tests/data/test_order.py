"""Orders of examples: pure, complete in every epoch, and of like lengths where that is asked for."""

import grain
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxformer.data.order import (
    CYCLE,
    POOL,
    bucketed,
    by_length,
    in_order,
    mixed,
    permuted,
    repeated,
    shuffled,
)


def test_grains_order_is_kept():
    order = shuffled(23, seed=7)
    reference = grain.MapDataset.range(23).seed(7).shuffle().repeat()
    assert order(range(5, 60)).tolist() == [reference[position] for position in range(5, 60)]


@pytest.mark.parametrize("kind", [shuffled, permuted])
def test_epochs_are_complete_and_differ(kind):
    epochs = kind(50, seed=3)(range(0, 250)).reshape(5, 50)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(50), (5, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert (kind(50, seed=4)(range(50)) != epochs[0]).any()


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(1, 400),
    batch=st.integers(1, 7),
    seed=st.integers(-3, 3),
    step=st.integers(0, 300),
)
def test_buckets_keep_epochs_complete_and_any_step_is_found_directly(count, batch, seed, step):
    lengths = np.random.default_rng(count).integers(2, 60, count)
    order = bucketed(permuted(count, seed), count, lengths, batch, seed)
    epochs = order(range(0, 3 * count)).reshape(3, count)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(count), (3, 1)))
    again = bucketed(permuted(count, seed), count, lengths, batch, seed)
    positions = range(step * batch, (step + 1) * batch)
    whole = order(range(0, positions.stop))
    np.testing.assert_array_equal(again(positions), whole[positions.start :])


def test_buckets_bring_like_lengths_together_in_a_random_order():
    lengths = np.random.default_rng(0).integers(2, 500, 10_000)
    order = bucketed(permuted(10_000, 1), 10_000, lengths, 16, 1)
    batches = lengths[order(range(0, 16 * 2 * POOL))].reshape(2 * POOL, 16)
    plain = lengths[permuted(10_000, 1)(range(0, 16 * 2 * POOL))].reshape(2 * POOL, 16)
    assert np.ptp(batches, axis=1).mean() < 0.06 * np.ptp(plain, axis=1).mean()
    longest = batches.max(axis=1)[:POOL]
    assert (np.diff(longest) < 0).sum() > POOL / 4  # not from the short to the long
    other = bucketed(permuted(10_000, 2), 10_000, lengths, 16, 2)
    assert (other(range(64)) != order(range(64))).any()


def test_batches_after_the_end_of_an_epoch_are_of_like_lengths_too():
    count, size = 16 * 40 + 5, 16
    lengths = np.arange(count)
    order = bucketed(permuted(count, 1), count, lengths, size, 1)
    batches = lengths[order(range(0, 3 * POOL * size))].reshape(-1, size)
    ends = {count // size, 2 * count // size}
    within = [np.ptp(batch) for step, batch in enumerate(batches) if step not in ends]
    assert max(within) < count / 4  # plain batches have almost `count`
    assert np.mean(within) < 3 * count / POOL


def test_evaluations_are_in_order_or_by_length():
    lengths = np.asarray([5, 3, 9, 3])
    assert in_order(range(1, 3)).tolist() == [1, 2]
    assert by_length(lengths)(range(0, 4)).tolist() == [1, 3, 0, 2]


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 200), min_size=2, max_size=4),
    weights=st.lists(st.floats(0.01, 10), min_size=4, max_size=4),
    start=st.integers(0, 3 * CYCLE),
)
def test_mixtures_keep_their_ratio_and_each_datasets_epochs(counts, weights, start):
    weights = weights[: len(counts)]
    order, _ = mixed([permuted(count, 5, part) for part, count in enumerate(counts)], counts, weights)
    length = 2000
    indices = order(range(start, start + length))
    starts = np.cumsum([0, *counts])
    which = np.searchsorted(starts, indices, side="right") - 1
    shares = np.asarray(weights) / sum(weights)
    np.testing.assert_allclose(
        np.bincount(which, minlength=len(counts)), shares * length, atol=len(counts) + length * 2 / CYCLE
    )
    from_start = order(range(0, 5000))
    for part, count in enumerate(counts):
        own = from_start[(from_start >= starts[part]) & (from_start < starts[part + 1])] - starts[part]
        np.testing.assert_array_equal(own, permuted(count, 5, part)(range(len(own))))
    np.testing.assert_array_equal(order(range(start, start + 50)), indices[:50])


def test_an_epoch_of_a_mixture_shows_the_first_dataset_once():
    order, epoch = mixed([permuted(60, 0), permuted(500, 0, 1)], [60, 500], [1.0, 0.5])
    assert epoch == pytest.approx(90, abs=1)
    seen = order(range(0, 90))
    assert np.sort(seen[seen < 60]).tolist() == list(range(60))


@pytest.mark.parametrize(("count", "batch", "repeats"), [(30, 12, 3), (7, 4, 2), (50, 6, 6), (9, 5, 1)])
def test_repeats_are_in_one_batch_and_every_example_comes_equally_often(count, batch, repeats):
    order = repeated(permuted(count, seed=3), batch, repeats)
    batches = order(range(0, 4 * repeats * count * batch)).reshape(-1, batch)
    copies = batches.reshape(len(batches), repeats, batch // repeats)
    assert (copies == copies[:, :1]).all()  # each stands as often as asked, as far from its copies as can be
    seen = copies[:, 0].reshape(-1, count)  # once round the dataset is so many epochs
    np.testing.assert_array_equal(np.sort(seen), np.tile(np.arange(count), (len(seen), 1)))
    np.testing.assert_array_equal(seen.reshape(-1), permuted(count, seed=3)(range(seen.size)))


@settings(max_examples=60, deadline=None)
@given(
    distinct=st.integers(1, 6),
    repeats=st.integers(1, 4),
    start=st.integers(0, 300),
    length=st.integers(1, 60),
)
def test_any_positions_of_a_repeated_order_are_found_directly(distinct, repeats, start, length):
    order = repeated(shuffled(23, seed=1), distinct * repeats, repeats)
    whole = order(range(0, start + length))
    np.testing.assert_array_equal(order(range(start, start + length)), whole[start:])
