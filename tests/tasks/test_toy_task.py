"""A task of the user's own, in one file and named in a config, trains, evaluates, predicts and is in the report."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxformer import cli
from jaxformer.config import schema
from jaxformer.inference.loaded import LoadedRun
from jaxformer.observe.report import write_report
from jaxformer.tasks import TASKS
from jaxformer.tasks.base import Evaluation, Task, example_mask, masked_sum

CONFIG = str(Path(__file__).parents[2] / "configs" / "vit_digits.py")


@dataclass(frozen=True)
class Brightness(Task):
    """Learns how bright an image is, 0 to 1, and nothing else: no method here has a default."""

    metric_names: ClassVar = ("loss",)

    def inputs(self, batch):
        return {"image": jnp.asarray(batch["image"], jnp.float32) / 255}

    def counts(self, batch):
        return {"squared_error": jnp.sum(example_mask(batch), dtype=jnp.float32)}

    def loss(self, outputs, batch):
        true = jnp.mean(self.inputs(batch)["image"], axis=(1, 2, 3))
        return {"squared_error": masked_sum(jnp.square(outputs.logits[:, 0] - true), example_mask(batch))}

    def eval_sums(self, outputs, batch):
        return {
            "loss": self.loss(outputs, batch)["squared_error"],
            "count": self.counts(batch)["squared_error"],
        }

    def summarize(self, sums, collected, data):
        return Evaluation({"loss": float(sums["loss"] / sums["count"])}, {})

    def predictions(self, outputs, batch):
        return {"brightness": outputs.logits[:, 0]}


@dataclass(frozen=True)
class Unfinished(Task):
    """Lacks most of what a task needs."""

    metric_names: ClassVar = ("loss",)

    def inputs(self, batch):
        return batch


def test_a_toy_task_does_all_that_a_task_does(digits_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    overrides = {
        "task": {"name": f"{__name__}:Brightness"},
        "model.width": 16,
        "model.depth": 1,
        "model.mlp_dim": 32,
        "data.transforms": [],
        "optimizer": {"name": "adamw", "learning_rate": 5e-3},
        "schedule": {"name": "constant"},
        "eval": {"split": "test[:128]", "every": "30 steps", "monitor": "loss", "mode": "min"},
        "train.total": "30 steps",
        "checkpoint.every": "30 steps",
    }
    folder = tmp_path / "toy"
    flags = [f"--config.{key}={value}" for key, value in overrides.items()]
    assert cli.main(["train", "--config", CONFIG, "--workdir", str(folder), *flags]) == 0, capsys.readouterr()
    loss = json.loads((folder / "evaluation.json").read_text())["metrics"]["loss"]
    assert 0 < loss < 0.05

    capsys.readouterr()
    assert cli.main(["evaluate", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(loss, rel=1e-5)

    dark, bright = (np.full((8, 8, 1), value, np.uint8) for value in (30, 220))
    first, second = LoadedRun(folder).predict([dark, bright])
    assert list(first) == list(second) == ["brightness"]
    assert second["brightness"] > first["brightness"]
    Image.fromarray(bright[..., 0]).save(tmp_path / "bright.png")
    assert cli.main(["predict", str(folder), str(tmp_path / "bright.png")]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line == {
        "file": str(tmp_path / "bright.png"),
        "brightness": pytest.approx(second["brightness"], rel=1e-5),
    }
    assert "Samples" in write_report(folder).read_text()


def test_a_task_that_lacks_something_is_refused_with_what_it_lacks():
    choices = schema.Choices(TASKS, "jaxformer.tasks.base:Task")
    errors = []
    assert schema.convert_choice(choices, f"{__name__}:Unfinished", "task", errors) is None
    assert errors == [
        f"task.name: '{__name__}:Unfinished' lacks counts, loss, eval_sums, summarize, predictions; "
        "jaxformer/tasks/base.py describes the contract"
    ]
    assert isinstance(schema.convert_choice(choices, f"{__name__}:Brightness", "task", []), Brightness)
