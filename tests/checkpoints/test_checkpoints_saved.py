"""When checkpoints are there, and which of them are kept."""

import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.saved import assert_same, make_items, save, sharding, targets_of

from jaxformer import checkpoint_items
from jaxformer.checkpoint_items import METRICS_FILE, PROGRESS_FILE, TEMPORARY, damage
from jaxformer.config.checkpoints import CheckpointConfig
from jaxformer.config.durations import Duration
from jaxformer.config.schema import problems


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
    real = checkpoint_items.write_digests

    def held_up(folder):
        written.set()
        assert go_on.wait(30)
        real(folder)

    monkeypatch.setattr(checkpoint_items, "write_digests", held_up)
    checkpoints.save(2, make_items(2), {})  # returns although the writing is held up
    assert written.wait(30)
    assert checkpoints.steps() == [1]  # the old one is there, the new one is not yet
    go_on.set()
    checkpoints.wait()
    assert checkpoints.steps() == [2]


def test_orbaxs_own_names_are_those_that_the_package_goes_by(opened, monkeypatch):
    """The folder that is being written, and the files in which Orbax keeps JSON: its next version may rename them."""
    checkpoints, seen = opened(), []
    real = checkpoint_items.write_digests

    def noted(folder):
        seen.append(folder.name)
        real(folder)

    monkeypatch.setattr(checkpoint_items, "write_digests", noted)
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
        assert checkpoints.by_rank()[0] == min(step, 2)
    assert checkpoints.steps() == [2, 7, 8]  # of two that are equally good, the earlier one
    again = opened()  # a run that goes on knows the best from the disk
    save(again, 9, 0.1)
    assert again.steps() == [2, 8, 9]
    save(again, 10, 0.95)
    assert (again.steps(), again.by_rank()[0]) == ([9, 10], 10)
    restored, progress = again.restore_best(targets_of(make_items(0)))
    assert progress["step"] == 10
    assert_same(restored, make_items(10))


def test_best_may_be_the_least(opened):
    checkpoints = opened(monitor="accuracy", mode="min", keep=1)
    for step, metric in enumerate([0.5, 0.2, 0.6, 0.7], start=1):
        save(checkpoints, step, metric)
    assert (checkpoints.steps(), checkpoints.by_rank()[0]) == ([2, 4], 2)


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


def test_an_evaluation_may_be_added_to_a_checkpoint_that_is_saved(opened):
    checkpoints = opened(keep=1)
    save(checkpoints, 1)
    save(checkpoints, 2)  # without an evaluation
    checkpoints.rate(2, {"accuracy": 0.5})
    save(checkpoints, 3, 0.4)
    assert (checkpoints.by_rank()[0], checkpoints.steps()) == (2, [2, 3])
    restored, progress = checkpoints.restore_best(targets_of(make_items(0)))
    assert progress["step"] == 2
    assert_same(restored, make_items(2))


def test_config_problems():
    assert list(problems(CheckpointConfig())) == []
    bad = CheckpointConfig(every=Duration.parse("0 steps"), every_minutes=0.0, keep=0, keep_best=-1)
    assert [line.split("=")[0] for line in problems(bad)] == ["every", "every_minutes", "keep", "keep_best"]
