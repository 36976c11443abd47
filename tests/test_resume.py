"""A run that is killed anywhere goes on as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.several import Several

from jaxformer.checkpoints import Checkpoints
from jaxformer.verbs.common import cpu_devices

ROOT = Path(__file__).parent.parent
STEPS = 240
TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "model.dropout": 0.1,
    "train.total": f"{STEPS} steps",
    "train.ema_decay": 0.9,
    "train.log_every": "1 step",
    "eval.every": "60 steps",
    "checkpoint.every": "2 steps",
}
SELDOM = {"checkpoint.every": "60 steps"}  # where nobody is killed: 120 saves take most of a training's time


def words(folder, **changes):
    overrides = [f"--config.{key}={value}" for key, value in {**TINY, **changes}.items()]
    return ["train", "--config", str(ROOT / "configs" / "vit_digits.py"), "--run", str(folder), *overrides]


@pytest.fixture(scope="module")
def environment(digits_dir):
    """One device, a shared compilation cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(digits_dir))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
        yield {**os.environ, **cpu_devices(1)}


@pytest.fixture(scope="module")
def several(tmp_path_factory, environment):
    """Starts processes that have imported everything."""
    with Several(tmp_path_factory.mktemp("said")) as several:
        yield several


def start(folder, environment, **changes):
    return subprocess.Popen(
        [sys.executable, "-m", "jaxformer", *words(folder, **changes)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder, environment, **changes):
    process = start(folder, environment, **changes)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, several):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert several.run([words(folder, **SELDOM)], devices=1) == [0], several.said()
    return folder


def records(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines() if (folder / "metrics.jsonl").exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def wait_for_progress(folder, step, ended=lambda: False):
    """Until the run has written a step past `step`, or has ended."""
    deadline = time.monotonic() + 120
    while not ended() and time.monotonic() < deadline:
        if (found := records(folder)) and found[-1]["step"] > step:
            return
        time.sleep(0.01)


def saved_arrays(folder):
    """Every array of the newest checkpoint, without asking the model what it expects."""
    import orbax.checkpoint as ocp

    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        step = checkpoints.latest_step()
    with ocp.StandardCheckpointer() as reader:
        items = {}
        for name in ("params", "optimizer"):
            shapes = reader.metadata(folder / "checkpoints" / str(step) / name).item_metadata.tree
            one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            target = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=one), shapes)  # noqa: B023
            items[name] = jax.device_get(reader.restore(folder / "checkpoints" / str(step) / name, target))
    return step, items


def assert_same_run(found, expected):
    step, items = saved_arrays(found)
    assert step == STEPS
    jax.tree.map(np.testing.assert_array_equal, items, saved_arrays(expected)[1])
    losses, wanted = (
        [(r["step"], r["train/loss"]) for r in records(f) if "train/loss" in r] for f in (found, expected)
    )
    assert losses == wanted  # every step once, in order, bit for bit
    assert json.loads((found / "evaluation.json").read_text()) == json.loads(
        (expected / "evaluation.json").read_text()
    )


@pytest.mark.slow
def test_killed_at_ten_random_moments(tmp_path, environment, uninterrupted):
    folder, rng, killed = tmp_path / "run", random.Random(0), 0
    for _ in range(10):
        process = start(folder, environment)
        before = ((found := records(folder)) and found[-1]["step"]) or 0
        wait_for_progress(folder, max(0, before - 3), lambda: process.poll() is not None)  # noqa: B023
        time.sleep(rng.uniform(0, 0.12))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert killed >= 8, "the run ended before it could be killed: make it longer"
    assert records(folder)[-1]["step"] < STEPS
    finish(folder, environment, **SELDOM)
    assert_same_run(folder, uninterrupted)


def test_sigterm_saves_and_says_try_again(tmp_path, several, uninterrupted):
    folder = tmp_path / "run"
    command = words(folder, **{"checkpoint.every": "None"})
    for _ in range(2):
        [process] = several.start([command], devices=1)
        wait_for_progress(folder, records(folder)[-1]["step"] if records(folder) else 0)
        asked = time.monotonic()
        os.kill(process, signal.SIGTERM)
        assert several.ask(wait=[process]) == [75], several.said()
        assert time.monotonic() - asked < 30  # the notice that clouds give before they take a machine back
        assert json.loads((folder / "result.json").read_text())["status"] == "preempted"
        assert "training in the same folder goes on from there" in several.said()
    assert several.run([command], devices=1) == [0], several.said()
    assert_same_run(folder, uninterrupted)


def test_a_finished_run_does_nothing_and_says_so(uninterrupted, several):
    before = {
        p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*") if p.is_file() and p.name != "config.json"
    }
    assert several.run([words(uninterrupted, **SELDOM)], devices=1) == [0]
    assert "is finished (completed at step 240): nothing to do" in several.said()
    assert before == {
        p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*") if p.is_file() and p.name != "config.json"
    }


@pytest.mark.slow  # tests/checkpoints has each kind of damage
def test_a_damaged_checkpoint_costs_a_few_steps_and_nothing_else(tmp_path, environment, uninterrupted):
    folder = tmp_path / "run"
    process = start(folder, environment)
    wait_for_progress(folder, 20, lambda: process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    steps = sorted(int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdecimal())
    files = [p for p in (folder / "checkpoints" / str(steps[-1]) / "params").rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    (folder / "checkpoints" / str(steps[-1] + 2)).mkdir()  # an empty step
    output = finish(folder, environment)
    assert f"{steps[-1]}.corrupt" in output
    assert_same_run(folder, uninterrupted)
