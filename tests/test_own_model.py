"""A model of the user's own, in one file: it trains, is described, explained and sharded like any other."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from jaxformer import cli
from jaxformer.config import files
from jaxformer.config.sections import resolve
from jaxformer.errors import ConfigError
from jaxformer.experiment import Experiment
from jaxformer.models.attention import Attention
from jaxformer.models.base import ImageModel, Model
from jaxformer.models.outputs import ImageOutputs

CONFIG = """
import ml_collections

from jaxformer.config.files import read

def get_config():
    c = read("vit_digits")
    c["model"] = {"name": "test_own_model:MyModel", "depth": 2}
    c["data"] |= {"data_dir": "DIGITS", "batch_size": 16}
    c["train"] |= {"total": "2 steps"}
    c["eval"] |= {"split": "test[:32]", "every": "1 step"}
    c["checkpoint"] = {"every": "1 step", "keep": 1}
    c["optimizer"] = {"name": "adamw", "learning_rate": 1e-3}
    c["parallel"] = {"mesh": {"data": 2, "fsdp": 4}}
    return ml_collections.ConfigDict(c)
"""


class MyModel(ImageModel):
    """Pixels as tokens, mixed by attention, and weights of names that nobody knows."""

    depth: int = 1
    """Number of layers."""
    num_classes: int = 10
    """Number of classes."""

    @nn.compact
    def __call__(self, image, deterministic=True):
        batch, height, width, channels = image.shape
        strange = self.param("strange", nn.initializers.normal(0.1), (channels, 16), self.param_dtype)
        x = image.reshape(batch, -1, channels).astype(self.dtype) @ strange.astype(self.dtype)  # [B, T, 16]
        for i in range(self.depth):
            x = x + Attention(2, **self.dtypes, name=f"mine_{i}")(x, deterministic=deterministic)[0]
        features = jnp.mean(x, axis=1)
        guess = self.param("guess", nn.initializers.zeros, (16, self.num_classes), self.param_dtype)
        logits = features.astype(jnp.float32) @ guess.astype(jnp.float32)
        return ImageOutputs(logits, features, x, (x.reshape(batch, height, width, 16),))


class NoModel(nn.Module):
    """A linen module that knows nothing of the contract."""

    width: int = 3


class Called(ImageModel):
    """A model that does what the contract says, unless a subclass does not."""

    num_classes: int = 10
    """Number of classes."""

    @nn.compact
    def __call__(self, image, deterministic=True):
        features = jnp.mean(image, axis=(1, 2))
        return ImageOutputs(nn.Dense(self.num_classes)(features), features, image)


class Uncalled(ImageModel):
    """Nothing can be computed."""

    num_classes: int = 10
    """Number of classes."""


class Heedless(Called):
    """Knows nothing of training and evaluation."""

    @nn.compact
    def __call__(self, image):
        return super().__call__(image)


class Bare(Called):
    """Gives logits alone."""

    @nn.compact
    def __call__(self, image, deterministic=True):
        return super().__call__(image, deterministic).logits


class Countless(Model):
    """Has a fixed head."""

    kind = "image"

    @nn.compact
    def __call__(self, image, deterministic=True):
        return ImageOutputs(nn.Dense(10)(image.mean((1, 2))), image.mean((1, 2)), image)


UNMET = {
    "Uncalled": "Uncalled cannot be called with image, deterministic",
    "Heedless": "Heedless cannot be called with image, deterministic",
    "Bare": "Bare returns .*; expected one of the classes of jaxformer/models/outputs.py",
    "Countless": "Countless has no field num_classes",
}


@pytest.mark.parametrize("name", ["Called", *UNMET])
def test_a_model_that_does_not_do_what_the_contract_says_is_refused_in_a_line(name, digits_dir):
    config = files.read("vit_digits", {"data.data_dir": str(digits_dir)})
    experiment = Experiment(resolve(config | {"model": {"name": f"test_own_model:{name}"}}))
    if name not in UNMET:
        experiment.check()
        return
    with pytest.raises(ConfigError, match=UNMET[name]) as refused:
        experiment.check()
    (line,) = refused.value.lines
    assert "jaxformer/models/base.py describes the contract" in line


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits_dir):
    folder = tmp_path_factory.mktemp("own")
    config = folder / "own.py"
    config.write_text(CONFIG.replace("DIGITS", str(digits_dir)))
    assert cli.main(["train", "--config", str(config), "--workdir", str(folder / "run")]) == 0
    return config, folder / "run"


def test_it_trains_and_is_named_in_the_runs_config(run):
    result = json.loads((run[1] / "result.json").read_text())
    assert result["status"] == "completed"
    assert result["step"] == 2
    config = json.loads((run[1] / "config.json").read_text())["config"]
    assert config["model"] == {
        "name": "test_own_model:MyModel",
        "depth": 2,
        "num_classes": 10,
        "pretrained": None,
    }
    assert type(resolve(config).model).__name__ == "MyModel"


def test_it_is_sharded_by_the_shapes_of_its_parameters(run, capsys, caplog):
    caplog.set_level("INFO", logger="jaxformer")
    assert cli.main(["describe", "--config", str(run[0])]) == 0
    said = capsys.readouterr().out
    assert "MyModel with a head of 10 outputs" in said
    assert "strange" in said
    assert sum("no sharding rule takes" in record.message for record in caplog.records) == 1


def test_it_is_explained(run, tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "digit.png")
    explained = tmp_path / "seen"
    assert cli.main(["explain", str(run[1]), str(tmp_path / "digit.png"), "--output", str(explained)]) == 0
    (line,) = (explained / "explanations.jsonl").read_text().splitlines()
    shown = {each["image"] for each in json.loads(line)["images"]}
    assert any("rollout" in name for name in shown)


def test_what_is_no_model_is_refused(run):
    config = json.loads((run[1] / "config.json").read_text())["config"]
    with pytest.raises(ConfigError, match=r"'test_own_model:NoModel' lacks .*jaxformer/models/base\.py"):
        resolve(config | {"model": {"name": "test_own_model:NoModel"}})


def test_the_test_has_devices_to_shard_over():
    assert jax.device_count() == 8
