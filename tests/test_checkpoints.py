import contextlib
import errno
import json
import logging
import os
import resource
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxformer import checkpoint_items
from jaxformer import checkpoints as module
from jaxformer.checkpoint_items import METRICS_FILE, PROGRESS_FILE, TEMPORARY
from jaxformer.checkpoints import Checkpoints
from jaxformer.config.checkpoints import CheckpointConfig
from jaxformer.config.durations import Duration
from jaxformer.config.schema import problems
from jaxformer.digests import damage
from jaxformer.errors import UserError

ADAM = optax.adam(1e-3)


def sharding(devices, *spec):
    mesh = jax.make_mesh((devices,), ("fsdp",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    return NamedSharding(mesh, PartitionSpec(*spec))


def make_items(step, devices=8, optimizer=ADAM, **more_params):
    """A small state whose numbers tell its step, with a matrix sharded over the devices."""
    kernel = jnp.arange(64 * 16, dtype=jnp.float32).reshape(64, 16) + step
    params = {"dense": {"kernel": kernel, "bias": jnp.full((16,), step, jnp.bfloat16)}, **more_params}
    params = jax.tree.map(
        lambda leaf: jax.device_put(leaf, sharding(devices, *(("fsdp",) if leaf.ndim == 2 else ()))), params
    )
    return {
        "params": {"params": params, "model_state": {}, "ema": None},
        "optimizer": {"step": jnp.int32(step), "opt_state": optimizer.init(params), "loss_scale": None},
    }


def targets_of(items):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), items)


def save(checkpoints, step, metric=None, items=None):
    metrics = None if metric is None else {"accuracy": metric, "loss": 1.0}
    assert checkpoints.save(step, items or make_items(step), {"seed": 7}, metrics)
    checkpoints.wait()


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right)):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def data_file(folder: Path) -> Path:
    """The largest file of an item: its arrays."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def opened(tmp_path):
    """Makes Checkpoints in one folder, as a run that is started again and again does."""
    with contextlib.ExitStack() as stack:

        def make(keep=2, keep_best=1, monitor="accuracy", **options):
            config = CheckpointConfig(keep=keep, keep_best=keep_best)
            return stack.enter_context(Checkpoints(tmp_path / "checkpoints", config, monitor, **options))

        yield make


def test_restores_bit_for_bit(opened):
    items = make_items(3)
    save(opened(), 3, items=items)
    restored, progress = opened().restore(targets_of(items))
    assert_same(restored, items)
    assert restored["params"]["params"]["dense"]["kernel"].sharding.spec == PartitionSpec("fsdp")
    assert progress == {"seed": 7, "step": 3}


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


def test_saved_arrays_may_be_donated_at_once(opened):
    """The step after a save overwrites the state in place: the file must hold what was there before."""
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    big = jax.device_put(jnp.arange(2**21, dtype=jnp.float32).reshape(2048, 1024), sharding(8, "fsdp"))
    expected = np.array(big)
    checkpoints = opened()
    checkpoints.save(1, {"params": {"big": big}}, {})
    target = {"params": {"big": jax.ShapeDtypeStruct(big.shape, big.dtype, sharding=big.sharding)}}
    jax.block_until_ready(overwrite(overwrite({"big": big})))
    restored, _ = checkpoints.restore(target)
    np.testing.assert_array_equal(np.asarray(restored["params"]["big"]), expected)


def test_saving_does_not_wait_and_deletes_only_after_the_commit(opened, monkeypatch):
    checkpoints = opened(keep=1)
    save(checkpoints, 1)
    written, go_on = threading.Event(), threading.Event()
    real = module.write_digests

    def held_up(folder):
        written.set()
        assert go_on.wait(30)
        real(folder)

    monkeypatch.setattr(module, "write_digests", held_up)
    checkpoints.save(2, make_items(2), {})  # returns although the writing is held up
    assert written.wait(30)
    assert checkpoints.steps() == [1]  # the old one is there, the new one is not yet
    go_on.set()
    checkpoints.wait()
    assert checkpoints.steps() == [2]


def test_orbaxs_own_names_are_those_that_the_package_goes_by(opened, monkeypatch):
    """The folder that is being written, and the files in which Orbax keeps JSON: its next version may rename them."""
    checkpoints, seen = opened(), []
    real = module.write_digests

    def noted(folder):
        seen.append(folder.name)
        real(folder)

    monkeypatch.setattr(module, "write_digests", noted)
    save(checkpoints, 3, 0.5)
    assert seen == [f"3{TEMPORARY}"]
    folder = checkpoints.directory / "3"
    assert json.loads((folder / PROGRESS_FILE).read_text()) == {"seed": 7, "step": 3}
    assert json.loads((folder / METRICS_FILE).read_text()) == {"value": 0.5, "step": 3}
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        "params", "optimizer", "progress", "metrics"
    }  # fmt: skip
    assert damage(folder, ["params", "optimizer", "progress", "metrics"]) is None


def test_best_and_latest_are_both_kept(opened):
    checkpoints = opened()
    for step, metric in enumerate([0.5, 0.9, 0.6, 0.7, None, float("nan"), 0.8, 0.9], start=1):
        save(checkpoints, step, metric)
        assert step in checkpoints.steps()
        assert checkpoints.best_step() == min(step, 2)
    assert checkpoints.steps() == [2, 7, 8]  # of two that are equally good, the earlier one
    again = opened()  # a run that goes on knows the best from the disk
    save(again, 9, 0.1)
    assert again.steps() == [2, 8, 9]
    save(again, 10, 0.95)
    assert (again.steps(), again.best_step()) == ([9, 10], 10)
    restored, progress = again.restore_best(targets_of(make_items(0)))
    assert progress["step"] == 10
    assert_same(restored, make_items(10))


def test_best_may_be_the_least(opened):
    checkpoints = opened(monitor="accuracy", mode="min", keep=1)
    for step, metric in enumerate([0.5, 0.2, 0.6, 0.7], start=1):
        save(checkpoints, step, metric)
    assert (checkpoints.steps(), checkpoints.best_step()) == ([2, 4], 2)


@pytest.mark.parametrize("options", [{"monitor": None}, {"keep_best": 0}])
def test_latest_only(opened, options):
    checkpoints = opened(**options)
    for step, metric in enumerate([0.5, 0.2, 0.6, 0.1], start=1):
        save(checkpoints, step, metric)
    assert checkpoints.steps() == [3, 4]


def test_a_step_is_saved_once(opened):
    checkpoints = opened()
    save(checkpoints, 1)
    assert not checkpoints.save(1, make_items(1), {})


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


DAMAGES = {
    "empty folder": lambda step: [remove(path) for path in step.iterdir()],
    "truncated data": lambda step: os.truncate(
        data_file(step / "params"), data_file(step / "params").stat().st_size // 2
    ),
    "flipped bit in the data": lambda step: flip(data_file(step / "optimizer")),
    "flipped bit in the progress": lambda step: flip(step / "progress" / "metadata"),
    "flipped bit in the metrics": lambda step: flip(step / "metrics" / "metrics"),
    "missing item": lambda step: remove(step / "optimizer"),
    "missing file": lambda step: remove(data_file(step / "params")),
    "missing digests": lambda step: remove(step / "digests.json"),
    "truncated digests": lambda step: os.truncate(step / "digests.json", 100),
}


@pytest.mark.parametrize("damaged", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_said(opened, damaged, caplog):
    first = opened(keep=3)
    for step in (1, 2, 3):
        save(first, step, 0.1 * step)
    damaged(first.directory / "3")
    checkpoints = opened(keep=3)
    with caplog.at_level(logging.WARNING, "jaxformer"):
        restored, progress = checkpoints.restore(targets_of(make_items(0)))
    assert progress["step"] == 2
    assert_same(restored, make_items(2))
    assert "3 is damaged" in caplog.text
    assert "going on from checkpoint 2" in caplog.text
    assert (checkpoints.directory / "3.corrupt").is_dir()
    save(checkpoints, 3, 0.3)  # the same step is reached again
    assert checkpoints.steps() == [1, 2, 3]
    assert checkpoints.restore(targets_of(make_items(0))).progress["step"] == 3


def test_every_file_of_an_item_is_watched(opened):
    checkpoints = opened()
    save(checkpoints, 1, 0.5)
    folder = checkpoints.directory / "1"
    parts = ("params", "optimizer", "progress", "metrics")
    files = [
        path
        for part in parts
        for path in (folder / part).rglob("*")
        if path.is_file() and path.stat().st_size
    ]
    assert damage(folder, parts) is None
    noticed = set()
    for path in files:
        flip(path)
        if damage(folder, parts):
            noticed.add(path)
        flip(path)
    assert {path.name for path in files if path not in noticed} <= {"commit_success.txt"}
    assert damage(folder, parts) is None


def test_a_damaged_best_gives_way_to_the_next_best(opened, caplog):
    checkpoints = opened(keep_best=2)
    for step, metric in enumerate([0.8, 0.9, 0.1, 0.2], start=1):
        save(checkpoints, step, metric)
    flip(data_file(checkpoints.directory / "2" / "params"))
    _, progress = opened(keep_best=2).restore_best(targets_of(make_items(0)))
    assert progress["step"] == 1


def test_old_damage_does_not_stop_saving(opened, caplog):
    """Orbax reads the metrics of every step when it starts, and fails on one that is not JSON."""
    checkpoints = opened(keep=3)
    save(checkpoints, 1, 0.1)
    save(checkpoints, 2, 0.2)
    (checkpoints.directory / "1" / "metrics" / "metrics").write_text("{")
    again = opened(keep=3)
    save(again, 3, 0.3)
    assert again.steps() == [2, 3]


def test_nothing_good_left_is_an_error_that_changes_nothing(opened):
    checkpoints = opened()
    for step in (1, 2):
        save(checkpoints, step)
        flip(data_file(checkpoints.directory / str(step) / "params"))
    for _ in range(2):  # and again, when it is started again
        with pytest.raises(UserError, match=r"no good checkpoint: 1: .*; 2: .*") as caught:
            opened().restore(targets_of(make_items(0)))
        assert len(caught.value.lines) == 2
    assert checkpoints.steps() == [1, 2]


def test_read_only_passes_over_damage_without_touching_it(opened, caplog):
    writer = opened()
    for step in (1, 2):
        save(writer, step)
    flip(data_file(writer.directory / "2" / "params"))
    _, progress = opened(read_only=True).restore(targets_of(make_items(0)))
    assert progress["step"] == 1
    assert writer.steps() == [1, 2]


def test_left_over_temporary_folders_are_ignored_and_cleaned_up(opened):
    checkpoints = opened()
    save(checkpoints, 1)
    left_over = checkpoints.directory / "2.orbax-checkpoint-tmp"
    shutil.copytree(checkpoints.directory / "1", left_over)
    again = opened()
    assert again.restore(targets_of(make_items(0))).progress["step"] == 1
    save(again, 2)
    assert again.steps() == [1, 2]
    assert not left_over.exists()


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


@contextlib.contextmanager
def full_disk():
    """The operating system refuses files over 2 kB; unlike a permission, root is refused, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the other writes that failed
def test_a_full_disk_stops_with_a_clear_line_and_costs_no_checkpoint(opened):
    checkpoints = opened(keep=1)
    save(checkpoints, 1, 0.9)
    with full_disk():
        checkpoints.save(2, make_items(2), {})  # fails in the background
        with pytest.raises(UserError, match=r"checkpoint 2 could not be saved: File too large\n") as caught:
            checkpoints.wait()
    assert len(caught.value.lines) == 2
    assert "good ones there: 1;" in caught.value.lines[1]
    assert checkpoints.steps() == [1]
    assert checkpoints.restore(targets_of(make_items(0))).progress["step"] == 1
    save(checkpoints, 3)  # there is room again
    assert checkpoints.steps() == [1, 3]


def test_a_read_only_disk_stops_with_a_clear_line_and_costs_no_checkpoint(opened, monkeypatch):
    checkpoints = opened(keep=1)
    save(checkpoints, 1, 0.9)
    real = os.mkdir

    def refused(path, *args, **kwargs):
        if str(path).startswith(str(checkpoints.directory)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", refused)
        with pytest.raises(UserError, match="checkpoint 2 could not be saved: Read-only file system"):
            save(checkpoints, 2)
    assert checkpoints.restore(targets_of(make_items(0))).progress["step"] == 1
    save(checkpoints, 3)
    assert checkpoints.steps() == [1, 3]


def test_an_evaluation_may_be_added_to_a_checkpoint_that_is_saved(opened):
    checkpoints = opened(keep=1)
    save(checkpoints, 1)
    save(checkpoints, 2)  # without an evaluation
    checkpoints.rate(2, {"accuracy": 0.5})
    save(checkpoints, 3, 0.4)
    assert (checkpoints.best_step(), checkpoints.steps()) == (2, [2, 3])
    restored, progress = checkpoints.restore_best(targets_of(make_items(0)))
    assert progress["step"] == 2
    assert_same(restored, make_items(2))


def test_config_problems():
    assert list(problems(CheckpointConfig())) == []
    bad = CheckpointConfig(every=Duration.parse("0 steps"), every_minutes=0.0, keep=0, keep_best=-1)
    assert [line.split("=")[0] for line in problems(bad)] == ["every", "every_minutes", "keep", "keep_best"]
