"""What is frozen costs nothing and stays as it is, bit for bit, in a training that is killed and goes on, too."""

import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.text_runs import config_of, write_texts

import jaxformer as jf
from jaxformer.config.schema import to_dict
from jaxformer.config.sections import resolve
from jaxformer.errors import ConfigError, UserError
from jaxformer.experiment import Experiment
from jaxformer.optim.lora import ADDED, LoRA, of_model
from jaxformer.paths import leaves_by_path
from jaxformer.train import train
from jaxformer.weights.export import write_pretrained

LORA = {"name": "lora", "kernels": ["attention/(query|value)", "mlp/up"], "rank": 2}
WAYS = {
    "the head alone": ({"train_only": ["head"], "weight_decay": 0.1}, None),
    "biases and the head": ({"train_only": ["[^/]*bias", "head"], "weight_decay": 0.1}, None),
    "frozen": ({"freeze": ["encoder", "token_embedding"], "weight_decay": 0.1}, None),
    "LoRA": ({"weight_decay": 0.1}, LORA),
    "DoRA": ({}, {**LORA, "name": "dora"}),
    "adapters": ({}, {"name": "bottleneck", "width": 3}),
    "prefixes": ({}, {"name": "prefix", "length": 3}),
    "prompts": ({}, {"name": "prompt", "length": 3}),
}
MOVES = {
    "the head alone": lambda path: path.startswith("head"),
    "biases and the head": lambda path: path.endswith("bias") or path.startswith("head"),
    "frozen": lambda path: not path.startswith(("encoder", "token_embedding")),
    "LoRA": lambda path: "_lora_" in path or path.startswith(("head", "pooler")),
}
MOVES["DoRA"] = MOVES["LoRA"]
MOVES["adapters"] = lambda path: "adapter_" in path or "norm" in path or path.startswith(("head", "pooler"))
MOVES["prefixes"] = lambda path: "prefix_" in path or path.startswith(("head", "pooler"))
MOVES["prompts"] = lambda path: path.startswith(("prompt_tokens", "head", "pooler"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frozen")
    write_texts(folder)
    return folder


def experiment_of(data, way="LoRA", **sections):
    rules, adapter = WAYS[way]
    config = config_of("classes", data)
    config["optimizer"] = {**config["optimizer"], **rules}
    config["train"] |= {"accumulate": 2, "ema_decay": 0.5}
    config["data"]["batch_size"] = 16
    config["checkpoint"] = {"every": "1 step", "keep": 3}
    return Experiment(resolve({**config, "adapter": adapter, **sections}))


@pytest.mark.parametrize("way", ["the head alone", "DoRA", "adapters", "prefixes", "prompts"])
def test_what_is_frozen_does_not_move_by_a_bit(way, data, tmp_path, monkeypatch):
    for name in ("write_shown", "write_report"):
        monkeypatch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)
    experiment = experiment_of(data, way)
    before = jax.device_get(experiment.init_state().params)
    train(experiment, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "3")  # as if it had been killed after the second step
    (tmp_path / "run" / "result.json").unlink()
    train(experiment, tmp_path / "run")
    loaded = jf.load_run(tmp_path / "run", "latest")
    assert loaded.step == 3
    seen = flatten_dict(loaded.variables["params"], sep="/")
    assert seen.keys() == flatten_dict(of_model(before), sep="/").keys()
    low_rank = isinstance(experiment.config.adapter, LoRA)
    adapted = experiment.config.adapter.matrices(before) if low_rank else {}
    for path, leaf in flatten_dict(of_model(before), sep="/").items():
        # Evaluated is the average, in which what is frozen stays, too.
        if MOVES[way](path) or path in adapted:
            assert np.any(seen[path] != leaf), path
        else:
            np.testing.assert_array_equal(np.asarray(seen[path]).view(np.int32), leaf.view(np.int32), path)
    if experiment.config.adapter and not low_rank:
        with pytest.raises(UserError, match=r"model\.(bottleneck|prefix|prompt)=3: transformers' bert has 0"):
            write_pretrained(loaded.model, "bert", loaded.variables, tmp_path / "exported")
        return
    # What is exported has the products in its kernels.
    write_pretrained(loaded.model, "bert", loaded.variables, tmp_path / "exported")
    exported = flatten_dict(jf.load_pretrained(tmp_path / "exported").variables["params"], sep="/")
    assert exported.keys() == seen.keys()
    for path, leaf in seen.items():
        np.testing.assert_array_equal(exported[path], leaf, path)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_frozen_has_no_state_in_the_optimizer(way, data):
    shapes = experiment_of(data, way).state_shapes
    moments = {path.partition("/mu/")[2] for path in leaves_by_path(shapes.opt_state) if "/mu/" in path}
    assert moments == {path for path in leaves_by_path(shapes.params) if MOVES[way](path)}


def test_no_gradient_of_what_is_frozen_is_computed(data):
    def flops(way):
        experiment = experiment_of(data, way)
        step = experiment.train_step().lower(experiment.state_shapes, experiment.batch_shapes).compile()
        return step.cost_analysis()["flops"]

    # Without a backward pass, which costs as much again as the forward pass even where no kernel has a gradient.
    assert flops("the head alone") < 0.6 * flops("LoRA")


def test_lora_has_to_fit_the_model(data):
    with pytest.raises(ConfigError) as caught:
        experiment_of(data, adapter={"name": "lora", "kernels": ["atention/query"]}).check()
    (line,) = caught.value.lines
    assert line.startswith("adapter.kernels: 'atention/query' takes no kernel; nearest: attention/query, ")


@pytest.mark.parametrize(
    "adapter", [{"name": "prompt", "length": 3}, {"name": "lora", "kernels": ["mlp/up"], "rank": 2}]
)
def test_of_a_decoder_without_a_head_the_adapter_alone_is_trained(adapter, data):
    experiment = Experiment(resolve({**config_of("language", data), "adapter": adapter}))
    experiment.check()
    assert experiment.config.optimizer.train_only == experiment.config.adapter.own


def test_further_parameters_are_trained_beside_lora(data):
    config = experiment_of(
        data, optimizer={"name": "sgd", "learning_rate": 1.0, "train_only": ["norm_1"]}
    ).config
    again = resolve(to_dict(config))  # as the config of a run is read
    assert again.optimizer.train_only == config.optimizer.train_only == ("norm_1", ADDED)
