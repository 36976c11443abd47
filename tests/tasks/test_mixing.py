"""Mixup and CutMix: every pixel and every label is as much its own as `mix_weight` says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxformer.tasks.classification import Classification, cutmix_weights, mixup_weights

B, H, W = 16, 12, 20


@pytest.fixture(scope="module")
def batch():
    """Pixels that no other example has."""
    image = np.arange(B, dtype=np.uint8)[:, None, None, None] * 16 + np.arange(3, dtype=np.uint8)
    image = np.broadcast_to(image, (B, H, W, 3)).copy()
    return {"image": image, "labels": (7 * np.arange(B, dtype=np.int32)) % 10}


@functools.cache
def compiled(**fields):
    return jax.jit(Classification(**fields).augment)


def augment(batch, seed=0, **fields):
    return jax.device_get(compiled(**fields)(jax.random.key(seed), batch))


def own_share(image, mixed):
    """Per pixel, the weight of the example itself, solved from mixed = w own + (1 - w) partner."""
    own, partner = image.astype(np.float64), np.roll(image, 1, axis=0).astype(np.float64)
    return ((mixed - partner) / (own - partner)).mean(-1)  # [B, H, W]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_mixup_mixes_pixels_as_labels(batch, dtype):
    image = batch["image"].astype(dtype)
    for seed in range(5):
        mixed = augment({**batch, "image": image}, seed, mixup=0.8)
        assert mixed["image"].dtype == np.float32
        weight = np.broadcast_to(mixed["mix_weight"][:, None, None], (B, H, W))
        np.testing.assert_allclose(own_share(batch["image"], mixed["image"]), weight, atol=1e-5)
        np.testing.assert_array_equal(mixed["mixed_labels"], np.roll(batch["labels"], 1))
        np.testing.assert_array_equal(mixed["labels"], batch["labels"])


def test_cutmix_pastes_one_box_whose_area_is_the_weight(batch):
    areas = []
    for seed in range(40):
        mixed = augment(batch, seed, cutmix=1.0)
        own = own_share(batch["image"], mixed["image"])
        assert set(np.unique(own)) <= {0.0, 1.0}  # pixels are copied, exactly
        assert (own == own[:1]).all()
        rows, columns = (np.flatnonzero((own[0] == 0).any(axis)) for axis in (1, 0))
        for places in (rows, columns):
            assert len(places) == 0 or len(places) == places[-1] - places[0] + 1
        assert (own[0] == 0).sum() == len(rows) * len(columns)
        np.testing.assert_allclose(mixed["mix_weight"], 1 - len(rows) * len(columns) / (H * W), rtol=1e-6)
        areas.append(len(rows) * len(columns))
    assert len(set(areas)) > 10


def test_a_box_that_is_not_cut_off_has_the_size_that_was_drawn():
    keys = jax.random.split(jax.random.key(0), 500)
    weights, label_weight = jax.jit(jax.vmap(lambda k: cutmix_weights(k, 1.0, 60, 40)))(keys)
    drawn = jax.vmap(lambda k: jax.random.beta(jax.random.split(k, 3)[0], 1.0, 1.0, dtype=jnp.float32))(keys)
    borders = weights.at[:, 1:-1, 1:-1].set(1)
    inner = np.asarray(borders.all((1, 2)))
    assert 20 < inner.sum() < 400
    np.testing.assert_allclose(label_weight[inner], drawn[inner], atol=0.06)  # whole pixels, and even sides
    assert np.all(label_weight >= drawn - 1e-6)  # what is cut off is never replaced


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_draws_from_the_beta_distribution(alpha):
    keys = jax.random.split(jax.random.key(1), 2000)
    _, weight = jax.jit(jax.vmap(lambda k: mixup_weights(k, alpha, 1, 1)))(keys)
    assert weight.min() >= 0.5
    for x in np.linspace(0.51, 0.99, 9):
        expected = 2 * stats.beta(alpha, alpha).cdf(x) - 1
        assert abs(np.mean(weight <= x) - expected) < 4 * np.sqrt(0.25 / len(keys))


def test_both_take_turns(batch):
    share = 0.25
    task = Classification(mixup=0.8, cutmix=1.0, cutmix_share=share)
    keys = jax.random.split(jax.random.key(2), 400)
    tiny = {"image": batch["image"][:2], "labels": batch["labels"][:2]}
    mixed = jax.jit(jax.vmap(task.augment, in_axes=(0, None)))(keys, tiny)
    changed = np.asarray(mixed["image"])[:, 0, :, :, 0]
    is_cut = np.isin(changed, [0, 16]).all((1, 2))
    assert abs(is_cut.mean() - share) < 0.07
    own = (changed / 16 - 1) / (0 - 1)  # examples 0 and 1 have pixels of 0 and 16
    np.testing.assert_allclose(own.mean((1, 2)), np.asarray(mixed["mix_weight"])[:, 0], atol=1e-4)


def test_nothing_is_on_by_default(batch):
    assert Classification().augment(jax.random.key(0), batch) is batch


def test_padding_is_not_mixed_into_examples(batch):
    mask = np.arange(B) % 3 != 0
    for fields in ({"mixup": 0.8}, {"cutmix": 1.0}):
        mixed = augment({**batch, "example_mask": mask}, **fields)
        alone = ~np.roll(mask, 1)
        np.testing.assert_array_equal(mixed["image"][alone], batch["image"][alone])
        np.testing.assert_array_equal(mixed["mix_weight"][alone], 1)
        assert (mixed["mix_weight"][~alone] < 1).all()


def test_a_batch_over_eight_devices_is_mixed_alike(batch):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    sharded = jax.jit(Classification(mixup=0.8, cutmix=1.0).augment, out_shardings=rows)
    for seed in range(4):
        placed = {name: jax.device_put(array, rows) for name, array in batch.items()}
        found = sharded(jax.random.key(seed), placed)
        assert len(found["image"].sharding.device_set) == 8
        expected = augment(batch, seed, mixup=0.8, cutmix=1.0)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-4, err_msg=name)
