"""`jaxformer replay`: a step of a run is done again, bit for bit, and what is not finite in it is named."""

import json
import shutil

import jax
import pytest

from jaxformer import cli
from jaxformer.config import files
from jaxformer.config.sections import resolve
from jaxformer.debugging.replay import replay
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.launching import ATTEMPTS
from jaxformer.observe.writers import METRICS
from jaxformer.train import train

OVERRIDES = {
    "model": {"name": "helpers.planted:Model"},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3},
    "data.batch_size": 16,
    "task.mixup": 0.2,
    "train": {"total": "9 steps", "log_every": "1 step", "stop_after_skipped": 3},
    "eval.split": "test[:16]",
    "eval.every": "9 steps",
    "checkpoint": {"every": "3 steps", "keep": 2},
}


@pytest.fixture(autouse=True, scope="module")
def environment():
    """Programs are compiled once for all tests, and runs write no reports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        for name in ("write_shown", "write_report"):
            patch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits_dir):
    """The folder of a run of 9 steps, with checkpoints of steps 6 and 9."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = resolve(files.read("vit_digits", OVERRIDES | {"data.data_dir": str(digits_dir)}))
    train(Experiment(config), folder)
    return folder


@pytest.mark.parametrize(("step", "start"), [(3, 0), (8, 6), (9, 6)])
def test_a_step_is_the_same_to_the_bit(run, step, start):
    again = replay(run, step)
    assert (again.start, again.differences, again.place) == (start, {}, None)
    assert {"train/loss", "train/gradient_norm", "train/learning_rate"} <= again.logged.keys()


def test_a_damaged_checkpoint_is_passed_over(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "checkpoints" / "6" / "progress" / "metadata").write_text("{}")
    again = replay(copy, 8)
    assert (again.start, again.differences) == (0, {})


def test_what_differs_is_said(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        if record["step"] == 8 and "train/loss" in record:
            record["train/loss"] += 1e-6
    (copy / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert cli.main(["replay", str(copy), "--step", "8"]) == 1
    out = capsys.readouterr().out
    assert "step 8 of" in out
    assert "not what the run wrote: train/loss was" in out
    assert "every number of the step is finite" in out


def changed(run, folder, share, **then):
    """A copy of a run in which step 8 had another loss, and which other devices trained."""
    copy = shutil.copytree(run, folder)
    for name, leaf in ((METRICS, "train/loss"), (ATTEMPTS, None)):
        lines = (copy / name).read_text().splitlines()
        records = [json.loads(line) for line in lines]
        for record in records:
            record |= then if name == ATTEMPTS else {}
            if leaf in record and record["step"] == 8:
                record[leaf] *= 1 + share
        (copy / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return copy


def test_other_devices_or_processes_may_round_otherwise(run, tmp_path, capsys):
    rounded = changed(run, tmp_path / "rounded", 8e-8, devices=8, processes=2)
    assert cli.main(["replay", str(rounded), "--step", "8"]) == 0
    said = capsys.readouterr().out
    assert "equal to what the run wrote, to rounding: 8e-08 of a metric at most" in said
    assert "the run had 8 devices in 2 processes, and now there are 8 devices in 1 process" in said
    further = changed(run, tmp_path / "further", 2e-5, devices=8, processes=2)
    assert cli.main(["replay", str(further), "--step", "8"]) == 1
    assert "not what the run wrote: train/loss was" in capsys.readouterr().out


def test_the_same_devices_round_alike(run, tmp_path):
    same = changed(run, tmp_path / "same", 8e-8)
    assert cli.main(["replay", str(same), "--step", "8"]) == 1
    unknown = changed(run, tmp_path / "unknown", 8e-8, devices=4, processes=0)
    assert cli.main(["replay", str(unknown), "--step", "8"]) == 1


def test_a_step_that_the_run_has_not(run):
    with pytest.raises(UserError, match="step=10: the training has the steps 1 to 9"):
        replay(run, 10)


@pytest.mark.slow
def test_the_command_of_a_run_that_is_not_finite_names_the_module(tmp_path, digits_dir, capsys):
    """The products of block_0/up are too large for float32: their sum is NaN, or where a compiler adds each up without
    rounding it first, infinite."""
    folder = tmp_path / "run"
    given = {**OVERRIDES, "schedule": {"name": "test_divergence:Jump"}, "data.data_dir": str(digits_dir)}
    given["model"] = {**OVERRIDES["model"], "fault": "unbounded", "faulty": 0}
    given["train"] = {**OVERRIDES["train"], "total": "20 steps"}
    flags = [f"--config.{leaf}={value!r}" for leaf, value in given.items()]
    assert cli.main(["train", "--config", "vit_digits", "--workdir", str(folder), *flags]) == 1
    command = next(line for line in capsys.readouterr().err.splitlines() if "jaxformer replay" in line)
    assert cli.main(command.split()[1:]) == 0
    out = capsys.readouterr().out
    assert "bit for bit" in out
    assert "comes from block_0/up (forwards, operation dot_general" in out
