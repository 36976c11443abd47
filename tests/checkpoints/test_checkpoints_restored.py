"""Checkpoints come back bit for bit, on any devices; what a changed config makes of them."""

import jax
import jax.numpy as jnp
import optax
import pytest
from helpers.saved import assert_same, make_items, remove, save, targets_of
from jax.sharding import PartitionSpec

from jaxformer import checkpoint_items
from jaxformer.errors import UserError


def test_restores_bit_for_bit(opened):
    items = make_items(3)
    save(opened(), 3, items=items)
    restored, progress = opened().restore(targets_of(items))
    assert_same(restored, items)
    assert restored["params"]["params"]["dense"]["kernel"].sharding.spec == PartitionSpec("fsdp")
    assert progress == {"seed": 7, "step": 3}


def test_reading_a_good_checkpoint_warns_of_nothing(opened, caplog):
    items = make_items(1)
    save(opened(), 1, items=items)
    with caplog.at_level("WARNING"):
        opened(read_only=True).restore({"params": targets_of(items)["params"]})
    assert caplog.messages == []


def test_what_every_device_has_is_restored_whether_they_share_the_writing_or_not(opened):
    parts = [
        jnp.arange(8 * size, dtype=jnp.float32).reshape(8, -1, 4)
        for size in (64, checkpoint_items.LEAST_PART // 4)
    ]
    items = make_items(1, small=parts[0], large=parts[1])
    save(opened(), 1, items=items)
    assert_same(opened().restore(targets_of(items)).items, items)


def test_no_checkpoint_yet(opened):
    checkpoints = opened()
    assert checkpoints.restore(targets_of(make_items(0))) is None
    assert checkpoints.restore_best(targets_of(make_items(0))) is None
    assert checkpoints.latest_step() is None
    assert not checkpoints.directory.exists()


@pytest.mark.parametrize("devices", [4, 1])
def test_restores_on_fewer_devices(opened, devices):
    items = make_items(1)
    save(opened(), 1, items=items)
    target = targets_of(make_items(0, devices=devices))
    restored, _ = opened().restore(target)
    assert_same(restored, items)
    kernel = restored["params"]["params"]["dense"]["kernel"]
    assert kernel.sharding == target["params"]["params"]["dense"]["kernel"].sharding
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(64 // devices, 16)}


def test_targets_without_sharding_go_to_one_device(opened):
    items = make_items(1)
    save(opened(), 1, items=items)
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), items)
    restored, _ = opened().restore(target)
    assert_same(restored, items)
    assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(restored))


def test_parameters_alone_read_nothing_of_the_optimizer(opened):
    checkpoints = opened()
    items = make_items(1)
    save(checkpoints, 1, items=items)
    remove(checkpoints.directory / "1" / "optimizer")
    restored, _ = opened(read_only=True).restore({"params": targets_of(items)["params"]})
    assert_same(restored, {"params": items["params"]})


CHANGES = {
    "shape": (
        lambda: make_items(1, head=jnp.zeros((8, 3))),
        lambda: make_items(1, head=jnp.zeros((8, 5))),
        r"params/head is \[8, 3\] in the checkpoint, \[8, 5\] by this config",
    ),
    "dtype": (
        lambda: make_items(1, head=jnp.zeros((8, 3))),
        lambda: make_items(1, head=jnp.zeros((8, 3), jnp.bfloat16)),
        r"params/head is float32 in the checkpoint, bfloat16 by this config",
    ),
    "new": (
        lambda: make_items(1),
        lambda: make_items(1, head=jnp.zeros((8, 3))),
        r"params/head is not in the checkpoint, and this config needs it",
    ),
    "old": (
        lambda: make_items(1, head=jnp.zeros((8, 3))),
        lambda: make_items(1),
        r"params/head is in the checkpoint, and not in this config",
    ),
    "optimizer": (
        lambda: make_items(1, optimizer=optax.sgd(0.1)),
        lambda: make_items(1),
        r"opt_state/0/count is not in the checkpoint.*and \d more",
    ),
    "no item": (
        lambda: {"params": make_items(1)["params"], "optimizer": {"opt_state": optax.sgd(0.1).init({})}},
        lambda: make_items(1),
        r"opt_state/0/count is not in the checkpoint",
    ),
}


@pytest.mark.parametrize(("saved", "wanted", "message"), CHANGES.values(), ids=CHANGES)
def test_a_changed_config_is_the_users_mistake_and_not_damage(opened, saved, wanted, message):
    checkpoints = opened()
    save(checkpoints, 1, items=saved())
    with pytest.raises(UserError, match=message) as caught:
        checkpoints.restore(targets_of(wanted()))
    assert len(caught.value.lines) == 2
    assert checkpoints.steps() == [1]


def test_an_optimizer_without_state(opened):
    items = {"params": {"w": jnp.ones(3)}, "optimizer": {"opt_state": optax.sgd(0.1).init({})}}
    checkpoints = opened()
    save(checkpoints, 1, items=items)
    assert_same(checkpoints.restore(targets_of(items)).items, items)


def test_a_step_that_is_not_there(opened):
    checkpoints = opened()
    save(checkpoints, 5)
    assert checkpoints.restore(targets_of(make_items(0)), step=5).progress["step"] == 5
    with pytest.raises(UserError, match="no checkpoint of step 6; there are: 5"):
        checkpoints.restore(targets_of(make_items(0)), step=6)


def test_random_keys_are_refused(opened):
    with pytest.raises(TypeError, match="params/key: a random key is never saved"):
        opened().save(1, {"params": {"params": {"key": jax.random.key(0)}}}, {})
