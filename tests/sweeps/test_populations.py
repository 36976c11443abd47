"""Populations: trainings at once give what each gives alone, and each has a run of its own."""

import json
import shutil

import jax
import numpy as np
import pytest

import jaxformer as jf
from jaxformer.config import files, sections
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.sweeps.checks import config_of
from jaxformer.sweeps.halving import Task
from jaxformer.sweeps.kept import Kept
from jaxformer.sweeps.spaces import Halving, Sweep, choice
from jaxformer.sweeps.study import Study
from jaxformer.sweeps.workers import groups
from jaxformer.train import train

TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "model.dropout": 0.1,
    "data.train_split": "train[:64]",
    "data.batch_size": 16,
    "eval.split": "test[:40]",
    "eval.every": "3 steps",
    "optimizer": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
    "schedule": {"name": "constant"},
    "train.total": "6 steps",
    "train.log_every": "1 steps",
    "train.stop_after_skipped": 1,
    "checkpoint.every": "3 steps",
}
RATE = "optimizer.learning_rate"


pytestmark = pytest.mark.usefixtures("digits_without_reports")


@pytest.fixture(scope="module")
def config():
    return files.read("vit_digits", TINY)


SPACE = {RATE: choice([0.01, 0.002]), "model.dropout": choice([0.1, 0.4])}


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """A sweep of four trials with two seeds in one population."""
    folder = tmp_path_factory.mktemp("populations") / "sweep"
    return folder, jf.sweep(config, Sweep(SPACE, seeds=2, population=8), folder)


def curves(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    unequal = ("time", "train/examples_per_second")
    return [{name: value for name, value in record.items() if name not in unequal} for record in records]


def assert_same_curves(ours, others):
    ours, others = curves(ours), curves(others)
    assert [record.keys() for record in ours] == [record.keys() for record in others]
    for one, other in zip(ours, others):
        for name, value in one.items():
            np.testing.assert_allclose(float(value), float(other[name]), rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("task", [Task(0, 0, 0), Task(3, 1, 0)])
def test_a_member_gives_what_it_gives_alone(trained, task, tmp_path):
    study = Study.open(trained[0])
    one_device = jax.local_devices()[:1]
    alone = train(Experiment(study.config(task), one_device), tmp_path / "alone")
    assert_same_curves(study.run(task), tmp_path / "alone")
    result = json.loads((study.run(task) / "result.json").read_text())
    assert (result["status"], result["step"]) == ("completed", 6)
    assert result["final"] == pytest.approx(alone["final"], rel=1e-5)


def test_members_differ_and_all_have_their_runs(trained):
    folder, outcome = trained
    assert len({run["metrics"]["loss"] for trial in outcome["trials"] for run in trial["runs"]}) == 8
    for run in (folder / "trials").iterdir():
        assert {"config.json", "metrics.jsonl", "evaluation.json", "result.json"} <= {
            p.name for p in run.iterdir()
        }
        assert {p.name for p in (run / "checkpoints").glob("[!.]*")} >= {"6"}


def test_a_member_is_restored_alone(trained):
    study = Study.open(trained[0])
    task = Task(2, 1, 0)
    found = jf.load_run(study.run(task), "latest").evaluate().metrics
    saved = json.loads((study.run(task) / "evaluation.json").read_text())["metrics"]
    assert found == pytest.approx(saved, rel=1e-5)


def test_train_goes_on_with_a_members_run(trained, tmp_path):
    study, task = Study.open(trained[0]), Task(1, 0, 0)
    whole, half = study.run(task), tmp_path / "half"
    shutil.copytree(whole, half)
    shutil.rmtree(half / "checkpoints" / "6")
    (half / "result.json").unlink()
    result = train(Experiment(study.config(task), jax.local_devices()[:1]), half)
    assert (result["status"], result["step"]) == ("completed", 6)
    assert_same_curves(half, whole)
    ours, before = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (half, whole)
    )
    kept = [record["step"] for record, other in zip(ours, before) if record["time"] == other["time"]]
    assert max(kept) == 3  # it began there, and not anew


@pytest.mark.slow
def test_a_population_pauses_and_its_best_go_on(config, tmp_path):
    space = Sweep(
        {RATE: choice([1e-6, 0.01, 1e38, 0.02])}, population=4, halving=Halving(2, 2), metric="loss"
    )
    momentum = config_of(config, {"optimizer": {"name": "momentum", "learning_rate": 0.1}})
    outcome = jf.sweep(momentum, space, tmp_path / "sweep")
    assert sorted(trial["status"] for trial in outcome["trials"]) == [
        "completed",
        "completed",
        "failed",
        "paused",
    ]
    study = Study.open(tmp_path / "sweep")
    best = Task(outcome["best"], 0, 1)
    train(Experiment(study.config(best), jax.local_devices()[:1]), tmp_path / "alone")
    assert_same_curves(study.run(best), tmp_path / "alone")
    failed = next(trial for trial in outcome["trials"] if trial["status"] == "failed")
    assert "gradients were not finite" in failed["runs"][0]["line"]


def test_only_one_program_and_one_step_are_trained_at_once(config, tmp_path):
    space = Sweep({"model.depth": choice([1, 2]), RATE: choice([0.1, 0.2, 0.3])}, population=2)
    study = Study.begin(tmp_path / "sweep", config, space)
    found = list(groups(study, study.due(), {}))
    assert [[task.trial for task in group] for group in found] == [[0, 1], [2], [3, 4], [5]]
    (study.run(Task(1, 0, 0)) / "checkpoints" / "3").mkdir(parents=True)
    found = list(groups(study, study.due(), {}))
    assert [[task.trial for task in group] for group in found] == [[0, 2], [1], [3, 4], [5]]


WRONG = {
    "other programs": ({"model.depth": choice([1, 2])}, {}, "each trial is another program .model.depth."),
    "pmap": ({RATE: choice([0.1, 0.2])}, {"parallel.mode": "pmap"}, "is for parallel.mode='jit'"),
    "a split model": (
        {RATE: choice([0.1, 0.2])},
        {"parallel.mesh": {"data": -1, "tensor": 2}},
        "each training is on one device; leave parallel.mesh.tensor=2 out",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_a_population_is_said_before_anything_starts(case, config, tmp_path):
    parameters, changes, message = WRONG[case]
    with pytest.raises(UserError, match=f"population=2: {message}"):
        jf.sweep(config_of(config, changes), Sweep(parameters, population=2), tmp_path / "sweep")
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_said_before_anything_starts(config, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxformer.sweeps.together.memory_limit", lambda: 200_000)
    space = Sweep({RATE: choice([0.1, 0.2])}, population=2)
    with pytest.raises(UserError, match=r"population=2: needs .* a device, and a device has 195 KiB; use 1"):
        jf.sweep(config, space, tmp_path / "sweep")
    assert not list((tmp_path / "sweep" / "trials").iterdir())


def test_the_second_trial_of_a_worker_compiles_nothing(config, tmp_path):
    compiled = []

    def note(name, *_, **__):
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(name)

    def between(experiment, folder):
        before = len(compiled)
        train(experiment, folder)
        return len(compiled) - before

    kept, counts = Kept(), []
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        for rate, seed in ((0.01, 0), (0.02, 1)):
            resolved = sections.resolve(config_of(config, {RATE: rate, "seed": seed}))
            counts.append(between(Experiment(resolved, shared=kept.of(resolved)), tmp_path / str(seed)))
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert counts[0] > 3
    assert counts[1] == 0
    assert len(kept.programs) == len(kept.sources) == 1
