"""Trainings that differ in numbers alone are one program, found again in the cache, and give what constants give."""

import jax
import numpy as np
import pytest
from helpers.numbered import moved
from helpers.stepping import assert_close
from jax.experimental.compilation_cache import compilation_cache

from jaxformer.config import files
from jaxformer.config.sections import resolve
from jaxformer.experiment import Experiment
from jaxformer.numbers import numbers_of

ALL_ON = {
    "model": {
        "name": "vit",
        "image_size": 8,
        "patch_size": 4,
        "width": 16,
        "depth": 2,
        "num_heads": 2,
        "mlp_dim": 32,
        "num_classes": 10,
        "scan": True,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "drop_path": 0.1,
    },
    "data.batch_size": 16,
    "data.transforms": [],
    "task.mixup": 0.2,
    "task.cutmix": 1.0,
    "task.label_smoothing": 0.1,
    "optimizer": {
        "name": "adamw",
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "layer_decay": 0.8,
        "l1": 1e-4,
        "l2": 1e-3,
    },
    "train.total": "6 steps",
    "train.ema_decay": 0.99,
}


@pytest.fixture(autouse=True)
def environment(digits_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))


def built(config=None, devices=1, **changes):
    config = config or resolve(files.read("vit_digits", {**ALL_ON, **changes}))
    return Experiment(config, jax.devices()[:devices])


def lowered(experiment):
    return experiment.train_step().lower(experiment.state_shapes, experiment.batch_shapes)


def test_other_numbers_are_the_same_train_step():
    experiment = built()
    other = built(moved(experiment.config, by=0.5))
    assert len(numbers_of(experiment.config)) == 19
    assert {numbers_of(e.config)["optimizer.learning_rate"] for e in (experiment, other)} == {0.01, 0.005}
    assert lowered(experiment).as_text() == lowered(other).as_text()


def test_numbers_as_inputs_give_what_constants_give():
    momentum = {key: value for key, value in ALL_ON["optimizer"].items() if key != "name"} | {
        "name": "momentum"
    }
    experiment = built(
        optimizer=momentum
    )  # Adam makes large steps of a key's bias, whose gradient is rounding
    batch = experiment.layout.shard_batch(experiment.train_data[0])
    found, start = experiment.init_state(), jax.jit(experiment._fresh_state)()
    jax.tree.map(np.testing.assert_array_equal, found, start)
    step, of_constants, expected = experiment.train_step(), jax.jit(experiment._step(None)), start
    for _ in range(3):
        found, metrics = step(found, batch)
        expected, expected_metrics = of_constants(expected, batch)
    assert int(found.step) == 3
    assert [a.dtype for a in jax.tree.leaves(found)] == [b.dtype for b in jax.tree.leaves(expected)]
    for name in ("params", "average"):
        assert_close(getattr(found, name), jax.device_get(getattr(expected, name)), 1e-6)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, expected_metrics[name], rtol=2e-6, err_msg=name)


@pytest.fixture
def cache(tmp_path):
    """The files of an empty compilation cache."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (str(tmp_path), 0.0)):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield lambda: {path.name for path in tmp_path.glob("jit_train_step-*-cache")}
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_another_learning_rate_and_seed_are_found_in_the_cache(cache):
    plain = {"model.depth": 1, "optimizer": {"name": "sgd", "learning_rate": 0.1}, "train.ema_decay": None}
    plain |= {"task.mixup": 0.0, "task.cutmix": 0.0, "model.dropout": 0.0, "model.attention_dropout": 0.0}
    lowered(built(**plain)).compile()
    (entry,) = cache()
    lowered(built(**plain, seed=3, **{"optimizer.learning_rate": 0.2, "task.label_smoothing": 0.2})).compile()
    assert cache() == {entry}
    lowered(built(**plain, **{"optimizer.weight_decay": 0.1})).compile()  # 0 left it out
    assert len(cache()) == 2
