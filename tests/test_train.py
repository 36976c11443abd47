"""The loop: when it stops, what it keeps and what it ends with; on any number of devices, in either mode."""

import json
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxformer import cli
from jaxformer.checkpoints import Checkpoints
from jaxformer.config import files as configfile
from jaxformer.config.sections import resolve
from jaxformer.errors import ConfigError, UserError
from jaxformer.evaluation.evaluator import Monitor, evaluate
from jaxformer.experiment import Experiment
from jaxformer.inference.loaded import LoadedRun
from jaxformer.preemption import Preempted
from jaxformer.reporting import announce
from jaxformer.runs import Run
from jaxformer.state import to_items
from jaxformer.tasks.classification import Classification
from jaxformer.train import NotFinite, restore_or_start, train

CONFIG = str(Path(__file__).parent.parent / "configs" / "vit_digits.py")
STEPS = 6
TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "data.train_split": "train[:64]",
    "data.batch_size": 16,
    "data.transforms": [],
    "eval.split": "test[:64]",
    "eval.every": "1 step",
    "optimizer": {"name": "momentum", "learning_rate": 0.3},
    "schedule": {"name": "constant"},
    "train.total": f"{STEPS} steps",
    "train.log_every": "1 step",
    "checkpoint.every": None,
}


@pytest.fixture(autouse=True, scope="module")
def environment(digits_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(digits_dir))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        for name in ("write_shown", "write_report"):  # tests/test_configs.py has them
            patch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)
        yield


def overrides(changes):
    return [f"--config.{key}={value}" for key, value in {**TINY, **changes}.items()]


def experiment(**changes):
    return resolve(configfile.read(CONFIG, {**TINY, **changes}))


def logged(folder, name):
    """Step -> the metrics of a kind, "train" or "eval", that metrics.jsonl holds."""
    found = {}
    for record in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        values = {k.removeprefix(f"{name}/"): v for k, v in record.items() if k.startswith(f"{name}/")}
        if values:
            assert record["step"] not in found
            found[record["step"]] = values
    return found


def saved(folder):
    return sorted(int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdecimal())


def restored(folder, step=None):
    """The config's experiment, and what a checkpoint holds."""
    experiment = LoadedRun(folder, "latest").opened()
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        return experiment, checkpoints.restore(to_items(experiment.state_shapes), step)


def evaluated(built, params):
    variables = {"params": params}
    found = evaluate(built.eval_step, variables, built.task, built.eval_data, built.layout)
    return found.metrics


# Stopping


def test_a_run_that_does_not_improve_stops_after_its_patience_and_is_then_finished(tmp_path, caplog):
    caplog.set_level("INFO", logger="jaxformer")
    patient = experiment(**{"eval.patience": 2, "eval.min_delta": 10.0})
    result = train(Experiment(patient), tmp_path)
    assert (result["status"], result["step"]) == ("stopped early", 3)
    assert list(logged(tmp_path, "eval")) == [1, 2, 3]  # the first is the best, and two more were waited for
    assert list(logged(tmp_path, "train")) == [1, 2, 3]
    assert saved(tmp_path) == [1, 3]  # the best and the last, with no other reason to save
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file() and p.name != "config.json"}
    assert train(Experiment(patient), tmp_path) == result
    assert f"{tmp_path} is finished (stopped early at step 3): nothing to do" in caplog.text
    assert files == {p: p.stat().st_mtime_ns for p in files}


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_monitor_waits_from_the_last_improvement_that_counts(mode):
    monitor = Monitor(mode, min_delta=0.1)
    sign = 1 if mode == "max" else -1
    for step, (value, best_step, waited) in enumerate(
        [
            (float("nan"), None, 1),
            (0.5, 2, 0),
            (0.59, 3, 1),
            (0.58, 3, 2),
            (0.61, 5, 0),
            (float("nan"), 5, 1),
        ],
        1,
    ):
        monitor = monitor.seen(step, sign * value)
        assert (monitor.best_step, monitor.waited) == (best_step, waited)
    assert monitor.best == sign * 0.61


def test_updates_that_are_not_finite_stop_the_run_and_leave_a_good_checkpoint(tmp_path, capsys):
    changes = {"optimizer.learning_rate": 1e30, "train.stop_after_skipped": 3, "checkpoint.every": "1 step"}
    argv = ["train", "--config", CONFIG, "--run", str(tmp_path), *overrides(changes)]
    assert cli.main(argv) == 1
    message = capsys.readouterr().err
    assert "jaxformer: step 4: the last 3 updates were skipped, their gradients were not finite" in message
    assert "(the last that was applied is of step 1); there is no good checkpoint yet\n" in message
    assert "jaxformer: lower optimizer.learning_rate" in message
    assert "Traceback" not in message
    assert [r["skipped_in_a_row"] for r in logged(tmp_path, "train").values()] == [0, 1, 2, 3]
    assert not (tmp_path / "result.json").exists()
    latest = saved(tmp_path)[-1]
    last, first = (restored(tmp_path, step)[1].items for step in (latest, 1))
    assert int(last["optimizer"]["step"]) == int(last["optimizer"]["skipped"]) + 1 == latest > 1
    jax.tree.map(np.testing.assert_array_equal, last["params"], first["params"])  # nothing moved meanwhile


def test_a_run_that_stops_before_its_first_checkpoint_says_that_there_is_none(tmp_path):
    changes = {"optimizer.learning_rate": 1e30, "train.stop_after_skipped": 2, "eval.every": "6 steps"}
    with pytest.raises(NotFinite, match=r"step 3: the last 2 updates .* there is no good checkpoint yet"):
        train(Experiment(experiment(**changes)), tmp_path)


# What a run says and ends with


@pytest.mark.parametrize("start", [0, 3])
def test_a_run_that_begins_names_its_size_and_the_step_it_goes_on_from(start, tmp_path, caplog):
    caplog.set_level("INFO", logger="jaxformer")
    built = Experiment(experiment())
    announce(built, Run(tmp_path), start)
    size = sum(leaf.size for leaf in jax.tree.leaves(built.variable_shapes["params"]))
    for part in (
        str(tmp_path),
        f"ViT, {size:,} parameters",
        "digits: 64 examples to train on, 64 to evaluate",
    ):
        assert part in caplog.text
    assert "6 (1.5 epochs), batches of 16" in caplog.text
    assert ("; going on from step 3" in caplog.text) == (start == 3)
    assert "FLOP a step, " in caplog.text
    assert "FLOP an example (forward + backward)" in caplog.text
    assert "KiB of train state a device" in caplog.text


def test_restore_best_ends_with_the_best_checkpoint(tmp_path, monkeypatch):
    """By the largest loss, so that it gets worse by learning."""
    monkeypatch.setattr(Classification, "lower_is_better", ())
    changes = {"eval.monitor": "loss", "eval.restore_best": True}
    result = train(Experiment(experiment(**changes)), tmp_path)
    metrics = logged(tmp_path, "eval")
    best = max(metrics, key=lambda step: metrics[step]["loss"])
    assert best < STEPS
    assert (result["status"], result["step"], result["best"]["step"]) == ("completed", STEPS, best)
    assert result["final"] == pytest.approx(metrics[best], rel=1e-6)
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert (written["step"], written["metrics"]) == (best, result["final"])
    trained = LoadedRun(tmp_path, "best")
    assert trained.step == best
    assert evaluated(trained.opened(), trained.variables["params"]) == pytest.approx(metrics[best], rel=1e-6)


def test_restore_best_needs_a_best_checkpoint():
    with pytest.raises(ConfigError, match=r"eval\.restore_best.*checkpoint\.keep_best"):
        experiment(**{"eval.restore_best": True, "checkpoint.keep_best": 0})


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A run with a moving average, saved by the clock alone, and always due."""
    folder = tmp_path_factory.mktemp("averaged")
    changes = {"checkpoint.every_minutes": 1e-9, "checkpoint.keep": STEPS, "eval.every": "6 steps"}
    train(Experiment(experiment(**changes, **{"train.ema_decay": 0.8})), folder)
    return folder


def test_checkpoints_are_saved_by_the_clock(averaged):
    assert saved(averaged) == [*range(1, STEPS + 1)]


def test_what_is_evaluated_is_the_average_and_that_is_said(averaged, caplog):
    caplog.set_level("INFO", logger="jaxformer")
    built, (items, _) = restored(averaged)
    (metrics,) = logged(averaged, "eval").values()
    found = {name: evaluated(built, items["params"][name]) for name in ("average", "params")}
    assert found["average"] == pytest.approx(metrics, rel=1e-6)
    assert abs(found["params"]["loss"] - metrics["loss"]) > 1e-3
    assert json.loads((averaged / "evaluation.json").read_text())["metrics"] == metrics
    announce(built, Run(averaged), 0)
    assert "evaluations, samples and predictions are those of the parameters' average" in caplog.text


def test_the_average_keeps_its_decay_a_step_after_a_warm_up(averaged):
    before, after = (restored(averaged, step)[1].items["params"] for step in (4, 5))
    kept = min(0.8, 5 / 14)  # four updates came before the one of step 5
    expected = jax.tree.map(lambda a, p: kept * a + (1 - kept) * p, before["average"], after["params"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), after["average"], expected
    )


# The same in every mode and on any number of devices


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return train(Experiment(experiment(**{"eval.every": "6 steps"})), folder), logged(folder, "train")


@pytest.mark.parametrize(
    "changes", [{"parallel.mode": "pmap"}, {"train.accumulate": 2}], ids=["pmap", "accumulate"]
)
def test_the_mode_and_the_microbatches_change_nothing(changes, plain, tmp_path):
    result = train(Experiment(experiment(**{"eval.every": "6 steps"}, **changes)), tmp_path)
    assert (result["status"], result["step"]) == ("completed", STEPS)
    for step, values in logged(tmp_path, "train").items():
        expected = plain[1][step]
        for name in ("loss", "accuracy", "gradient_norm", "update_norm"):
            assert values[name] == pytest.approx(expected[name], rel=1e-4), (step, name)
    assert result["final"]["loss"] == pytest.approx(plain[0]["final"]["loss"], rel=1e-4)


def on(count, **mesh):
    changes = {"parallel.mesh": mesh, "model.dropout": 0.1}
    return Experiment(experiment(**changes), jax.devices()[:count])


def steps(built, state, first, last):
    """The state after the steps from `first` up to `last`, and their losses."""
    train_step, losses = built.train_step(), []
    for step in range(first, last):
        state, metrics = train_step(state, built.layout.shard_batch(built.train_data[step]))
        losses.append(float(metrics["loss"]))
    return state, losses


@pytest.fixture(scope="module")
def half_way(tmp_path_factory):
    """Checkpoints after the first steps on 8 devices by their mesh, and the losses of all steps there."""
    folders, losses = {}, {}
    for name, mesh in {"data": {"data": 8}, "fsdp": {"fsdp": 4, "data": 2}}.items():
        built, folders[name] = on(8, **mesh), tmp_path_factory.mktemp(name)
        with Checkpoints(folders[name]) as checkpoints:
            state, losses[name] = steps(built, restore_or_start(built, checkpoints)[0], 0, 3)
            examples = built.train_data.num_examples
            progress = {"monitor": {}, "evaluation_due": False, "epoch_examples": examples}
            checkpoints.save(3, to_items(state), progress)
            losses[name] += steps(built, state, 3, STEPS)[1]
    return folders, losses


def test_fsdp_changes_no_loss(half_way):
    _, losses = half_way
    assert losses["fsdp"] == pytest.approx(losses["data"], rel=1e-5)


@pytest.mark.parametrize(("mesh", "count"), [("data", 8), ("data", 4), ("data", 1), ("fsdp", 4)])
def test_going_on_on_other_devices_changes_no_loss(mesh, count, half_way):
    folders, losses = half_way
    built = on(count, data=count)
    with Checkpoints(folders[mesh], read_only=True) as checkpoints:
        state, *_ = restore_or_start(built, checkpoints)
    assert int(state.step) == 3
    assert all(leaf.sharding.device_set == set(jax.devices()[:count]) for leaf in jax.tree.leaves(state))
    assert steps(built, state, 3, STEPS)[1] == pytest.approx(losses["data"][3:], rel=1e-5)


def test_sigterm_in_an_evaluation_saves_and_the_evaluation_is_made_up_for(tmp_path, monkeypatch):
    whole = train(Experiment(experiment()), tmp_path / "whole")

    def preempted(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments)

    monkeypatch.setattr(sys.modules["jaxformer.experiment"], "evaluate", preempted)
    folder = tmp_path / "run"
    for _ in range(2):  # once more, in the evaluation that is due
        with pytest.raises(Preempted):
            train(Experiment(experiment()), folder)
        assert Run(folder).status == "preempted"
        assert saved(folder) == [1]
    assert not logged(folder, "eval")
    monkeypatch.setattr(sys.modules["jaxformer.experiment"], "evaluate", evaluate)
    again = train(Experiment(experiment()), folder)
    assert (again["status"], again["final"], again["best"]) == ("completed", whole["final"], whole["best"])
    assert logged(folder, "eval") == logged(tmp_path / "whole", "eval")
    with Checkpoints(folder / "checkpoints", monitor="accuracy", read_only=True) as checkpoints:
        assert checkpoints.by_rank()[0] == whole["best"]["step"]


def test_a_folder_belongs_to_one_training_at_a_time(tmp_path):
    with Run(tmp_path).lock(), pytest.raises(UserError, match="another training is running in this folder"):
        train(Experiment(experiment()), tmp_path)
    assert train(Experiment(experiment()), tmp_path)["status"] == "completed"


def test_a_paused_run_becomes_the_one_that_never_paused(tmp_path):
    changes = {"eval.every": "4 steps", "eval.restore_best": True, "model.dropout": 0.1}
    whole = train(Experiment(experiment(**changes)), tmp_path / "whole")
    paused = train(Experiment(experiment(**changes)), tmp_path / "paused", pause_after=3)
    assert (paused["status"], paused["step"], saved(tmp_path / "paused")) == ("paused", 3, [3])
    assert Run.open(tmp_path / "paused").status == "paused"
    again = train(Experiment(experiment(**changes)), tmp_path / "paused", pause_after=2)
    assert (again["step"], again["final"]) == (3, paused["final"])
    ended = train(Experiment(experiment(**changes)), tmp_path / "paused")
    assert (ended["status"], ended["final"], ended["best"]) == ("completed", whole["final"], whole["best"])
    for name in ("train", "eval"):
        found, expected = (logged(tmp_path / each, name) for each in ("paused", "whole"))
        assert [{**v, "examples_per_second": 0} for v in found.values()] == [
            {**v, "examples_per_second": 0} for v in expected.values()
        ]
    found, expected = (restored(tmp_path / each)[1].items for each in ("paused", "whole"))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
