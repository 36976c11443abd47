"""The moving average of the parameters: in short trainings it follows them, and old runs go on as they were begun."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxformer.config.files import read
from jaxformer.config.schema import to_dict
from jaxformer.config.sections import resolve
from jaxformer.experiment import Experiment
from jaxformer.models.vit import ViT
from jaxformer.state import init_state, init_variables
from jaxformer.step import make_train_step, moving_average
from jaxformer.tasks.classification import Classification
from jaxformer.train import train

STEPS = 25


@pytest.fixture(scope="module")
def path():
    """Parameters on a way of 25 updates, float64 [26, 3]: far from where they began."""
    return np.random.default_rng(0).normal(1.0, 0.1, (STEPS + 1, 3)).cumsum(axis=0)


def averaged(path, average, dtype=jnp.float32):
    found = {"w": jnp.asarray(path[0], dtype)}
    for count, params in enumerate(path[1:]):
        found = average(found, None, {"w": jnp.asarray(params, dtype)}, jnp.int32(count))
    return np.asarray(found["w"])


@pytest.mark.parametrize("decay", [0.5, 0.99, 0.9999])
def test_the_average_follows_a_short_training(path, decay):
    expected = path[0]
    for count, params in enumerate(path[1:]):
        kept = min(decay, (1 + count) / (10 + count))
        expected = kept * expected + (1 - kept) * params
    np.testing.assert_allclose(averaged(path, moving_average(decay)), expected, rtol=1e-5)
    from_start, from_end = (np.abs(expected - path[end]).max() for end in (0, -1))
    assert from_end < 0.2 * from_start


def test_without_the_warm_up_it_stays_near_the_beginning(path):
    expected = 0.99**STEPS * path[0] + sum(0.01 * 0.99 ** (STEPS - t) * path[t] for t in range(1, STEPS + 1))
    np.testing.assert_allclose(averaged(path, moving_average(0.99, warmup=False)), expected, rtol=1e-5)


def test_the_average_keeps_its_number_format(path):
    for warmup in (True, False):
        assert averaged(path, moving_average(0.9, warmup), jnp.bfloat16).dtype == jnp.bfloat16


def test_an_update_that_is_skipped_is_no_part_of_the_warm_up():
    """Two updates, and between them a batch that is not finite."""
    model = ViT(image_size=8, patch_size=4, width=8, depth=1, num_heads=1, mlp_dim=8, num_classes=3)
    variables = init_variables(model, {"image": jnp.zeros((1, 8, 8, 1))}, jax.random.key(0))
    optimizer, average = optax.with_extra_args_support(optax.sgd(0.1)), moving_average(0.99)
    task = Classification(mean=(0.5,), std=(0.5,))
    step = jax.jit(make_train_step(model, task, optimizer, seed=0, average=average))
    states = [init_state(variables, optimizer, with_average=True)]
    image = np.random.default_rng(0).random((8, 8, 8, 1), np.float32)
    for factor in (1.0, np.nan, 1.0):
        batch = {"image": image * np.float32(factor), "labels": np.zeros(8, np.int32)}
        states.append(step(states[-1], batch)[0])
    first, one, same, two = (jax.device_get(state.params) for state in states)
    jax.tree.map(np.testing.assert_array_equal, one, same)
    expected = jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, first, one)
    expected = jax.tree.map(lambda a, b: 2 / 11 * a + 9 / 11 * b, expected, two)
    found = jax.device_get(states[-1].average)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)


def tiny(**changes):
    model = {"model.width": 16, "model.depth": 1, "model.mlp_dim": 32, "data.train_split": "train[:64]"}
    short = {
        "data.batch_size": 16,
        "eval.split": "test[:64]",
        "train.total": "6 steps",
        "data.transforms": [],
    }
    fixed = {"train.ema_decay": 0.9, "eval.every": "3 steps", "checkpoint.every": "3 steps"}
    return resolve(read("vit_digits", {**model, **short, **fixed, **changes}))


def test_a_run_of_a_version_without_the_warm_up_goes_on_without_it(digits_dir, monkeypatch, tmp_path, caplog):
    """As the same command does: its config has today's default."""
    caplog.set_level("INFO", logger="jaxformer")
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    for name in ("write_shown", "write_report"):
        monkeypatch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)
    whole = train(Experiment(tiny(**{"train.ema_warmup": False})), tmp_path / "whole")
    old = to_dict(tiny(**{"train.ema_warmup": False}))
    del old["train"]["ema_warmup"]
    stopped = tmp_path / "stopped"
    (tmp_path / "whole").rename(stopped)
    for name in ("result.json", "evaluation.json"):
        (stopped / name).unlink()
    shutil.rmtree(stopped / "checkpoints" / "6")
    (stopped / "config.json").write_text(json.dumps({"config": old}))
    built = Experiment(tiny())
    assert train(built, stopped)["final"] == whole["final"]
    assert built.config == tiny()
    assert "train.ema_warmup=False, as the run was begun with" in caplog.text
    assert json.loads((stopped / "config.json").read_text())["config"]["train"]["ema_warmup"] is False
    assert train(built, stopped)["final"] == whole["final"]  # and is finished, under the same command
