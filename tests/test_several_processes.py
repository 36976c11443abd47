"""Several processes train one model: the same losses as one, exact restarts, and one end for all."""

import fcntl
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import full_disk
from helpers.several import Several

from jaxformer import cli
from jaxformer.observe.writers import read_metrics

CONFIG = str(Path(__file__).parent.parent / "configs" / "vit_digits.py")
STEPS = 10
TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.1,
    "data.train_split": "train[:64]",
    "data.batch_size": 16,
    "eval.split": "test[:61]",
    "eval.every": "4 steps",
    "train.total": f"{STEPS} steps",
    "train.log_every": "1 step",
    "checkpoint.every": "3 steps",
    "parallel.timeouts.start": 60,
    "parallel.timeouts.heartbeat": 10,
}


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    with Several(tmp_path_factory.mktemp("said")) as several:
        yield several


def words(folder, **changed):
    leaves = TINY | {name.replace("__", "."): value for name, value in changed.items()}
    for axis, size in leaves.pop("parallel.mesh", {"data": -1}).items():
        leaves[f"parallel.mesh.{axis}"] = size
    overrides = [f"--config.{leaf}={value}" for leaf, value in leaves.items()]
    return ["train", "--config", CONFIG, "--workdir", str(folder), *overrides]


def curves(folder):
    """Name -> (steps, values), without what the clock measures."""
    found = read_metrics(folder)
    return {name: found[name] for name in found if not name.endswith("per_second")}


@pytest.fixture(scope="module")
def whole(several, tmp_path_factory):
    """A run of 2 processes with 4 devices each that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert several.run([words(folder)] * 2, devices=4) == [0, 0], several.said()
    return folder


def assert_close(folder, other, tolerance):
    ours, theirs = curves(folder), curves(other)
    assert ours.keys() == theirs.keys()
    for name, (steps, values) in ours.items():
        np.testing.assert_array_equal(steps, theirs[name][0])
        if name in ("train/loss", "eval/loss", "train/gradient_norm", "eval/accuracy"):
            np.testing.assert_allclose(values, theirs[name][1], rtol=tolerance, err_msg=name)


def test_two_processes_have_the_losses_of_one(whole, tmp_path):
    assert cli.main(words(tmp_path / "run")) == 0
    assert len(curves(whole)["train/loss"][0]) == STEPS
    assert_close(whole, tmp_path / "run", 1e-5)


def test_process_0_alone_writes_and_each_has_a_log(whole):
    steps = [json.loads(line)["step"] for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert len(list((whole / "tensorboard").iterdir())) == 1
    logs = {file.name: file.read_text() for file in (whole / "logs").iterdir()}
    assert sorted(logs) == ["process-0000.log", "process-0001.log"]
    assert all("2 processes" in text for text in logs.values())
    assert not (whole / ".lock").exists()


@pytest.mark.slow  # tests/debugging/test_chaos.py has six such kills
def test_restarts_after_signals_and_kills_are_exact(several, whole, tmp_path):
    """One process gets SIGTERM, then the other SIGKILL; and then one process alone goes on with the run."""
    command = [words(tmp_path / "run")] * 2
    started = several.start(command, devices=4)
    several.wait_for("evaluation at step 4")
    os.kill(started[1], signal.SIGTERM)
    assert several.ask(wait=started) == [75, 75], several.said()
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["status"] == "preempted"
    assert 4 <= saved["step"] < STEPS
    shutil.copytree(tmp_path / "run", tmp_path / "alone")

    started = several.start(command, devices=4)
    several.wait_for("going on from step")
    os.kill(started[0], signal.SIGKILL)
    killed, other = several.ask(wait=started)
    assert killed == -signal.SIGKILL
    assert other in (
        -signal.SIGABRT,
        -signal.SIGSEGV,
    )  # JAX's client ends the process, now and then in a hurry

    assert several.run(command, devices=4) == [0, 0], several.said()
    for name, (steps, values) in curves(whole).items():
        np.testing.assert_array_equal(steps, curves(tmp_path / "run")[name][0])
        np.testing.assert_array_equal(values, curves(tmp_path / "run")[name][1], err_msg=name)

    assert cli.main(words(tmp_path / "alone")) == 0
    assert_close(whole, tmp_path / "alone", 1e-5)


def test_processes_of_different_configs_stop_and_say_the_field(several, tmp_path):
    folder = tmp_path / "run"
    commands = [words(folder), words(folder, optimizer__learning_rate=0.2)]
    assert several.run(commands, devices=4) == [2, 2], several.said()
    differs = "optimizer.learning_rate: 0.1 on process 0, 0.2 on process 1"
    for process in range(2):
        said = several.said(process).splitlines()
        assert f"jaxformer: {differs}; all processes of a run need the same" in said
    assert not folder.exists()


@pytest.mark.slow
def test_all_processes_find_the_programs_that_process_0_has_kept(several, tmp_path):
    for again in ("first", "second"):
        command = words(tmp_path / again, train__total="2 steps")
        assert several.run([command] * 2, devices=4, faults=["count_programs"] * 2) == [0, 0]
    assert all("a compiled program is found" in several.said(process) for process in range(2))


FAULTS = {"arrays": 1, "digests": 0, "folders": 0}  # and the process that meets them


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_full_disk_ends_one_process_at_once_and_the_other_after_it_and_costs_no_step(
    several, whole, tmp_path, fault
):
    folder, meets = tmp_path / "run", FAULTS[fault]
    command = [words(folder)] * 2
    faults = [fault if process == meets else None for process in range(2)]
    begun = time.monotonic()
    codes = several.run(command, devices=4, faults=faults)
    assert time.monotonic() - begun < 60
    assert codes[meets] == 74, several.said(meets)
    assert codes[1 - meets] == -signal.SIGABRT
    (line,) = [line for line in several.said(meets).splitlines() if line.startswith("jaxformer: ")]
    assert line.startswith(
        f"jaxformer: {folder}/checkpoints: checkpoint 4 could not be saved: {full_disk.WHY}, "
    )
    assert re.search(r" of \d+ .iB are free; it takes [\d.]+ KiB and more; make room, and train again", line)
    saved = [path.name for path in (folder / "checkpoints").iterdir() if path.name.isdecimal()]
    assert saved == ["3"]
    assert several.run(command, devices=4) == [0, 0], several.said()
    for name, (steps, values) in curves(whole).items():
        np.testing.assert_array_equal(steps, curves(folder)[name][0])
        np.testing.assert_array_equal(values, curves(folder)[name][1], err_msg=name)


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_start_ends_all_as_ones_that_may_start_again(several, tmp_path):
    codes = several.run([words(tmp_path / "run")] * 2, devices=4, faults=["config", None])
    assert codes == [74, 74], several.said()
    assert "No space left on device" in several.said(1)


MESHES = {
    "fsdp": {"parallel.mesh": {"fsdp": 8}},
    "all axes": {"parallel.mesh": {"data": 2, "fsdp": 2, "tensor": 2}},
    "a copy over both": {"parallel.mesh": {"tensor": 8}, "model.num_heads": 8},
    "pmap": {"parallel.mode": "pmap"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MESHES)
def test_every_mesh_has_the_losses_of_one_process(several, tmp_path, name):
    ours, theirs = tmp_path / "two", tmp_path / "one"
    assert several.run([words(ours, **MESHES[name])] * 2, devices=4) == [0, 0], several.said()
    assert cli.main(words(theirs, **MESHES[name])) == 0
    assert_close(ours, theirs, 1e-5)


@pytest.mark.slow
def test_more_processes_go_on_with_a_run(several, whole, tmp_path):
    folder = tmp_path / "run"
    [alone] = several.start([words(folder)], devices=8)
    several.wait_for("evaluation at step 4")
    os.kill(alone, signal.SIGTERM)
    assert several.ask(wait=[alone]) == [75], several.said()
    assert several.run([words(folder)] * 4, devices=2) == [0] * 4, several.said()
    assert_close(whole, folder, 1e-5)


@pytest.mark.slow
def test_a_signal_at_any_moment_saves_the_same_step_on_all(several, whole, tmp_path):
    """From the start of the first step on: compiling, training, evaluating and saving; for either process."""
    for number, seconds in enumerate(np.linspace(0.0, 6.0, 12)):
        folder = tmp_path / str(number)
        command = words(folder, train__total="2000 steps")
        started = several.start([command] * 2, devices=4)
        several.wait_for("memory ")
        time.sleep(seconds)
        os.kill(started[number % 2], signal.SIGTERM)
        begun = time.monotonic()
        assert several.ask(wait=started) == [75, 75], several.said()
        assert time.monotonic() - begun < 30
        saved = json.loads((folder / "result.json").read_text())["step"]
        assert (folder / "checkpoints" / str(saved) / "digests.json").exists()


@pytest.mark.slow
def test_a_killed_process_ends_the_other_as_one_that_may_start_again(several, tmp_path):
    """Among others in the middle of saves, which are not the user's mistakes then."""
    for number, seconds in enumerate(np.linspace(0.0, 2.0, 6)):
        folder = tmp_path / str(number)
        command = words(folder, train__total="2000 steps", checkpoint__every="1 step")
        started = several.start([command] * 2, devices=4)
        several.wait_for("evaluation at step 8")
        time.sleep(seconds)
        killed = number % 2
        os.kill(started[killed], signal.SIGKILL)
        begun = time.monotonic()
        codes = several.ask(wait=started)
        assert (codes[killed], codes[1 - killed]) == (-signal.SIGKILL, -signal.SIGABRT), several.said(
            1 - killed
        )
        assert time.monotonic() - begun < 15


OTHERS = {
    "data.eval_batch_size": (
        {"data.eval_batch_size": 32},
        "data.eval_batch_size: None on process 0, 32 on process 1",
    ),
    "dataset": ({"data.train_split": "test[:64]"}, "data of train_split, first examples: "),
    "batch": ({"data.batch_size": 12}, "data.batch_size=12 is not a multiple of 8 devices: use 16"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_what_differs_stops_all(several, tmp_path, name):
    changed, said = OTHERS[name]
    commands = [words(tmp_path / "run"), words(tmp_path / "run", **changed)]
    assert several.run(commands, devices=4) == [2, 2]
    assert all(said in several.said(process) for process in range(2)), several.said()


@pytest.mark.slow
def test_a_mesh_that_runs_across_processes_is_refused(several, tmp_path):
    mesh = {"parallel.mesh": {"data": 3, "tensor": 2}, "data.batch_size": 12}
    assert several.run([words(tmp_path / "run", **mesh)] * 2, devices=3) == [2, 2]
    assert "jaxformer: parallel.mesh: the devices of a process hold " in several.said(1)


@pytest.mark.slow
def test_folders_that_cannot_be_written_or_are_taken(several, whole, tmp_path):
    (tmp_path / "file").write_text("")
    assert several.run([words(tmp_path / "file" / "run")] * 2, devices=4) == [2, 2]
    for process in range(2):
        lines = several.said(process).splitlines()
        assert sum(line.startswith("jaxformer: ") for line in lines) == 1, lines
    with open(whole / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert several.run([words(whole)] * 2, devices=4) == [2, 2]
    assert "process 0: " in several.said(1)
    assert "another training is running in this folder" in several.said(1)
