"""Distillation: its losses, the step with a teacher on every layout, and training with a run as teacher."""

import json
import shutil
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.stepping import assert_close, gradient_of

from jaxformer.config.sections import resolve
from jaxformer.errors import ConfigError, UserError
from jaxformer.experiment import Experiment
from jaxformer.models.vit import ViT
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh
from jaxformer.runs import Run
from jaxformer.state import init_state, init_variables
from jaxformer.step import make_train_step
from jaxformer.tasks.classification import Classification
from jaxformer.tasks.losses import Distillation
from jaxformer.teacher import LoadedTeacher, load_teacher
from jaxformer.train import train

CLASSES = 5
TINY = {"image_size": 8, "patch_size": 4, "width": 16, "depth": 1, "num_heads": 2, "num_classes": CLASSES}


def test_losses_are_those_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ours, theirs = (rng.normal(size=(6, CLASSES)).astype(np.float32) * 3 for _ in range(2))
    student, teacher = torch.from_numpy(ours), torch.from_numpy(theirs)
    t = 2.5
    soft = torch.nn.functional.kl_div(
        torch.log_softmax(student / t, 1),
        torch.log_softmax(teacher / t, 1),
        log_target=True,
        reduction="none",
    )  # as DeiT's losses.py
    hard = torch.nn.functional.cross_entropy(student, teacher.argmax(1), reduction="none")
    found = Distillation("run", kind="soft", temperature=t).per_example(ours, theirs)
    np.testing.assert_allclose(found, t * t * soft.sum(1).numpy(), rtol=1e-5, atol=1e-6)
    found = Distillation("run", kind="hard").per_example(ours, theirs)
    np.testing.assert_allclose(found, hard.numpy(), rtol=1e-5, atol=1e-6)


def test_a_student_like_its_teacher_loses_nothing():
    logits = np.random.default_rng(0).normal(size=(4, CLASSES)).astype(np.float32)
    np.testing.assert_allclose(Distillation("run", kind="soft").per_example(logits, logits), 0, atol=1e-5)


# The step


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (16, 8, 8, 3), np.uint8),
        "labels": rng.integers(0, CLASSES, 16).astype(np.int32),
        "example_mask": np.arange(16) % 5 != 4,  # padding, unequal on the devices
    }


@cache
def variables(seed):
    """Of the tiny model, the head's among them, which is zero at first."""
    inputs = {"image": jnp.zeros((1, 8, 8, 3))}
    found = jax.jit(lambda: init_variables(ViT(**TINY), inputs, jax.random.key(seed)))()
    leaves, tree = jax.tree.flatten(found)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [leaf + 0.3 * rng.normal(size=leaf.shape).astype("f") for leaf in leaves])


def stepped(batch, task, mode="jit", devices=8, accumulate=1):
    """The gradient of one step with a teacher, and the metrics."""
    layout = Layout(mode, make_mesh({"data": -1}, jax.devices()[:devices]))
    optimizer = optax.with_extra_args_support(optax.sgd(1.0))
    before = jax.device_get(init_state(variables(0), optimizer))
    teacher = LoadedTeacher(1, jax.device_put(variables(1), layout.replicated), ViT(**TINY), Classification())
    step = make_train_step(
        ViT(**TINY), task, optimizer, seed=0, accumulate=accumulate, teacher=teacher, axis=layout.axis
    )
    state = jax.device_put(before, layout.shardings(before))
    state, metrics = layout.train_step(step, state, others=1)(
        state, layout.shard_batch(batch), teacher.variables
    )
    return gradient_of(before, state), jax.device_get(metrics)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_the_gradient_is_that_of_the_two_losses(kind, batch):
    task = Classification(distillation=Distillation("run", kind=kind, weight=0.3, temperature=2.0))
    model, real = ViT(**TINY), batch["example_mask"]
    image = Classification().inputs(batch)["image"]
    theirs = jax.jit(model.apply)(variables(1), image).logits

    def loss(params):
        logits = model.apply({"params": params}, image).logits
        labels = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        if kind == "hard":
            taught = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.argmax(theirs, -1))
        else:
            taught = 4 * optax.kl_divergence(jax.nn.log_softmax(logits / 2), jax.nn.softmax(theirs / 2))
        return jnp.mean((0.7 * labels + 0.3 * taught)[real])

    value, expected = jax.jit(jax.value_and_grad(loss))(variables(0)["params"])
    found, metrics = stepped(batch, task)
    assert_close(found, expected, 1e-4)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)


@pytest.mark.parametrize("changes", [{"devices": 1}, {"mode": "pmap"}, {"accumulate": 2}], ids=str)
def test_every_layout_computes_the_same(changes, batch):
    task = Classification(distillation=Distillation("run", kind="soft"))
    expected, _ = stepped(batch, task)
    assert_close(stepped(batch, task, **changes)[0], expected, 1e-4)


# A run as teacher


def experiment(folder, **task):
    return resolve(
        {
            "task": {"name": "classification", **task},
            "model": {"name": "vit", **TINY, "num_classes": 10},
            "data": {
                "name": "digits",
                "data_dir": str(folder),
                "batch_size": 64,
                "train_split": "train[:320]",
            },
            "eval": {"split": "test[:64]", "every": "5 steps"},
            "optimizer": {"name": "adamw", "learning_rate": 3e-3},
            "schedule": {"name": "constant"},
            "train": {"total": "5 steps", "log_every": "1 step"},
            "checkpoint": {"every": "5 steps"},
        }
    )


@pytest.fixture(scope="module")
def teacher(digits_dir, tmp_path_factory):
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("teacher")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_shown", "write_report"):
            patch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)
        assert train(Experiment(experiment(digits_dir)), folder)["status"] == "completed"
    return folder


def test_a_run_teaches_another(teacher, digits_dir, tmp_path, monkeypatch):
    for name in ("write_shown", "write_report"):
        monkeypatch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)
    config = experiment(
        digits_dir, distillation={"run": str(teacher), "checkpoint": "latest", "kind": "soft"}
    )
    result = train(Experiment(config), tmp_path / "student")
    assert result["status"] == "completed"
    assert '"train/distillation"' in (tmp_path / "student" / "metrics.jsonl").read_text()
    assert Run.open(tmp_path / "student").read_config() == config


def test_a_teacher_that_does_not_fit_is_refused(teacher, digits_dir, tmp_path):
    with pytest.raises(
        UserError, match=r"task\.distillation\.run=.*: the teacher cannot be read\n.*nowhere: not a run"
    ):
        load_teacher(Experiment(experiment(digits_dir, distillation={"run": str(tmp_path / "nowhere")})))
    config = experiment(digits_dir, distillation={"run": str(teacher)})
    larger = replace(config.model, image_size=16)
    resized = replace(config.data, transforms=resize(16), eval_transforms=resize(16))
    with pytest.raises(
        ConfigError, match=r"takes image of shape \(8, 8, 1\), the student's is \(16, 16, 1\)"
    ):
        load_teacher(Experiment(replace(config, model=larger, data=resized)))
    with pytest.raises(ConfigError, match="has 10 classes, the student 12"):
        load_teacher(Experiment(replace(config, model=replace(config.model, num_classes=12))))


def test_a_teacher_of_another_version_is_named(teacher, digits_dir, tmp_path):
    old = shutil.copytree(teacher, tmp_path / "old")
    about = json.loads((old / "config.json").read_text())
    about["config"]["data"]["image_feature"] = "image"
    (old / "config.json").write_text(json.dumps(about))
    with pytest.raises(UserError) as error:
        load_teacher(Experiment(experiment(digits_dir, distillation={"run": str(old)})))
    assert error.value.lines[0].endswith("the teacher cannot be read")
    assert error.value.lines[1].startswith(f"{old}/config.json: is not a config of this version of jaxformer")
    assert "image_feature" in error.value.lines[2]


def resize(size):
    from jaxformer.data.transforms import Resize

    return (Resize(size),)
