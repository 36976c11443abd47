"""A run that diverges names the step at which it went wrong, and the checkpoint from which one can go on."""

import json
import shlex
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformer import cli
from jaxformer.checkpoints import Checkpoints
from jaxformer.config.files import read
from jaxformer.config.sections import resolve
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.optim.schedule import Schedule
from jaxformer.state import all_finite, to_items
from jaxformer.train import NotFinite, train

STEPS, WRONG = 20, 8  # update 8 takes the parameters away


@dataclass(frozen=True)
class Jump(Schedule):
    """The whole rate for some updates; then one that no training survives."""

    def curve(self, spans, to_steps):
        return lambda count: jnp.where(count < WRONG - 1, 1.0, jnp.where(count < WRONG, 1e30, 1.0))


CHANGES = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "data.train_split": "train[:64]",
    "data.batch_size": 16,
    "data.transforms": [],
    "eval.split": "test[:64]",
    "eval.every": "20 steps",
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "schedule": {"name": "constant"},
    "train.total": f"{STEPS} steps",
    "train.log_every": "1 step",
    "train.stop_after_skipped": 4,
    "checkpoint.every": "2 steps",
}
JUMP = {"schedule": {"name": f"{__name__}:Jump"}}
LAYOUTS = {
    "float16": {"precision": "float16"},
    "pmap": {"parallel.mode": "pmap"},
    "sharded": {"parallel.mesh": {"data": 2, "fsdp": 4}},
    "accumulation": {"train.accumulate": 2},
}


@pytest.fixture(autouse=True, scope="module")
def environment(digits_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(digits_dir))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        for name in ("write_shown", "write_report"):
            patch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)
        yield


def built(**changes):
    devices = None if "parallel.mesh" in changes or "parallel.mode" in changes else jax.devices()[:1]
    return Experiment(resolve(read("vit_digits", {**CHANGES, **changes})), devices)


def saved(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdecimal())


def losses(folder):
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {record["step"]: record["train/loss"] for record in records if "train/loss" in record}


def state_at(folder, step, **changes):
    experiment = built(**changes)
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        return experiment, checkpoints.restore(to_items(experiment.state_shapes), step)


@pytest.mark.parametrize(
    "name", ["float32", "float16", *(pytest.param(n, marks=pytest.mark.slow) for n in list(LAYOUTS)[1:])]
)
def test_a_diverged_run_names_its_last_good_checkpoint_and_goes_on_from_it(name, tmp_path):
    changes, folder = {**JUMP, **LAYOUTS.get(name, {})}, tmp_path / "run"
    with pytest.raises(NotFinite) as caught:
        train(built(**changes), folder)
    assert caught.value.lines[0] == (
        f"step {WRONG + 4}: the last 4 updates were skipped, their gradients were not finite "
        f"(the last that was applied is of step {WRONG}); the last good checkpoint is of step {WRONG - 2}"
    )
    # Step 8 was saved before anything was known to be wrong; those behind it replaced none.
    assert saved(folder) == [WRONG - 2, WRONG, WRONG + 2]
    assert caught.value.checkpoint == folder / "checkpoints" / str(WRONG - 2)

    lower = {**LAYOUTS.get(name, {}), "optimizer.learning_rate": 0.01}
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    result = train(built(**lower), tmp_path / "lower", start_from=caught.value.checkpoint)
    assert (result["status"], result["step"]) == ("completed", STEPS)
    assert np.isfinite(result["final"]["loss"])
    found, before = losses(tmp_path / "lower"), losses(folder)
    assert list(found) == [*range(WRONG - 1, STEPS + 1)]
    assert found[WRONG - 1] == before[WRONG - 1]  # the same parameters, on the same batch
    assert files == {path: path.stat().st_mtime_ns for path in files}  # the other run is as it was
    again = train(built(**lower), tmp_path / "lower", start_from=caught.value.checkpoint)
    assert again == result


def test_the_command_that_goes_on_is_printed(tmp_path, capsys):
    flags = [f"--config.{key}={value}" for key, value in {**CHANGES, **JUMP}.items()]
    assert cli.main(["train", "--config", "vit_digits", "--run", str(tmp_path / "run"), *flags]) == 1
    *_, remedy, command = capsys.readouterr().err.splitlines()
    assert "--start-from" in remedy
    words = shlex.split(command)
    assert words[:2] == ["jaxformer", "train"]
    assert words[-5:] == [
        "--config.optimizer.learning_rate=0.01",
        "--workdir",
        str(tmp_path / "run-from-6"),
        "--start-from",
        str(tmp_path / "run" / "checkpoints" / "6"),
    ]
    words = [word for word in words if "schedule" not in word]  # Jump would ruin any rate
    assert cli.main([*words[1:], "--config.schedule={'name': 'constant'}"]) == 0
    assert json.loads((tmp_path / "run-from-6" / "result.json").read_text())["status"] == "completed"


def test_a_run_that_diverges_at_once_has_no_good_checkpoint(tmp_path):
    changes = {"optimizer.learning_rate": 1e30, "checkpoint.every": "1 step", "eval.every": "1 step"}
    with pytest.raises(NotFinite) as caught:
        train(built(**changes), tmp_path)
    assert "(the last that was applied is of step 1); there is no good checkpoint yet" in str(caught.value)
    assert caught.value.checkpoint is None


class Faulty(Experiment):
    """An experiment whose steps go wrong as `fault(step, state, batch)` says, which gives a state and a batch."""

    fault = staticmethod(lambda step, state, batch: (state, batch))

    def train_step(self, teacher=None):
        step = super().train_step(teacher)

        def wrong(state, batch):
            number = int(state.step) + 1
            batch = {**batch, "image": batch["image"].astype(jnp.float32)}
            state, batch = self.fault(number, state, batch)
            return step(state, batch)

        return wrong


def faulty(fault, **changes):
    experiment = Faulty(resolve(read("vit_digits", {**CHANGES, **changes})), jax.devices()[:1])
    experiment.fault = fault
    return experiment


def times_nan(tree):
    return jax.tree.map(lambda x: x * jnp.nan, tree)


def test_a_single_bad_batch_is_no_divergence(tmp_path):
    def fault(step, state, batch):
        return state, {**batch, "image": times_nan(batch["image"])} if step in (6, 7, 8, 20) else batch

    result = train(faulty(fault), tmp_path)
    assert (result["status"], result["step"]) == ("completed", STEPS)
    assert np.isfinite(result["final"]["loss"])
    assert saved(tmp_path) == [16, 18, 20]  # the last update was skipped: the end is there, and replaces none
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.good_steps() == [16, 18]


@pytest.mark.parametrize("part", ["average", "params"])
def test_a_state_that_is_not_finite_is_not_good(part, tmp_path):
    """NaN in the moving average alone is not seen by any train step."""

    def fault(step, state, batch):
        return (state.replace(**{part: times_nan(getattr(state, part))}) if step == 13 else state), batch

    changes = {"train.ema_decay": 0.9, "train.stop_after_skipped": 100}
    train(faulty(fault, **changes), tmp_path)
    assert saved(tmp_path) == [10, 12, 20]
    _, (items, _) = state_at(tmp_path, 12, **changes)
    assert all_finite(items["params"])
    _, (items, _) = state_at(tmp_path, 20, **changes)
    assert not all_finite(items["params"][part])


def test_an_evaluation_that_is_not_finite_makes_no_good_checkpoint(tmp_path, monkeypatch):
    real = Experiment.evaluate

    def evaluate(self, state, *rest):
        found = real(self, state, *rest)
        if 6 < int(state.step) < 20:
            found.metrics["loss"] = float("nan")
        return found

    monkeypatch.setattr(Experiment, "evaluate", evaluate)
    changes = {"eval.every": "2 steps", "checkpoint.keep_best": 0, "train.total": "14 steps"}
    train(built(**changes), tmp_path)
    assert saved(tmp_path) == [4, 6, 14]


@pytest.mark.parametrize("path", ["nowhere/checkpoints/5", "run", "run/checkpoints/x"])
def test_what_is_no_checkpoint_is_refused_before_anything_is_made(path, tmp_path):
    (tmp_path / "run" / "checkpoints" / "x").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"start_from=.*no checkpoint; expected a folder RUN/checkpoints/STEP"
    ):
        train(built(), tmp_path / "new", start_from=tmp_path / path)
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_of_the_end_leaves_nothing_to_train(tmp_path):
    (tmp_path / "checkpoints" / str(STEPS)).mkdir(parents=True)
    with pytest.raises(UserError, match=r"start_from=.*train\.total is 20 steps, none is left"):
        train(built(), tmp_path / "new", start_from=tmp_path / "checkpoints" / str(STEPS))
