"""Adapters and prefixes: what they compute, and models that cannot have them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers.parity import build, text

from jaxformer.config.schema import problems
from jaxformer.models.base import replaced
from jaxformer.models.block import Bottleneck as Layers
from jaxformer.optim.adapters import Bottleneck, Prefix, Prompt
from jaxformer.paths import ADAPTERS, matches
from jaxformer.weights.transformers_text import GPT2

SIZES = {"vocab_size": 41, "width": 24, "depth": 2, "num_heads": 4}


def fitted(adapter, model):
    return replaced(model, **adapter.of_model)


def variables_of(model, **inputs):
    """Random numbers around those that a training begins with."""
    variables = jax.eval_shape(model.init, jax.random.key(0), **inputs)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3, leaf.dtype), variables)


def test_a_bottleneck_is_two_layers_around_a_residual():
    x = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32)
    variables = variables_of(Layers(4), x=x)
    down, up = jax.device_get((variables["params"]["down"], variables["params"]["up"]))
    hidden = (x @ down["kernel"] + down["bias"]).astype(np.float64)
    hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    expected = x + hidden @ up["kernel"] + up["bias"]
    np.testing.assert_allclose(Layers(4).apply(variables, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scan", [False, True])
def test_a_model_whose_adapters_give_nothing_is_what_it_was(scan):
    tokens, mask = text(2, 9, 41, (9, 6))
    inputs = {"tokens": jnp.asarray(tokens), "token_mask": jnp.asarray(mask)}
    plain = build("bert", {**SIZES, "head": "none", "scan": scan})
    model = fitted(Bottleneck(width=3), plain)
    flat = flatten_dict(variables_of(model, **inputs), sep="/")
    added = [path for path in flat if matches(ADAPTERS, path)]
    assert len(added) == (8 if scan else 16)
    without = unflatten_dict({path: leaf for path, leaf in flat.items() if path not in added}, sep="/")
    silent = {path: 0 * leaf if path in added and "/up/" in path else leaf for path, leaf in flat.items()}
    given, nothing, alone = (
        np.asarray(jax.jit(each.apply)(variables, **inputs).logits)[mask]
        for each, variables in (
            (model, unflatten_dict(flat, sep="/")),
            (model, unflatten_dict(silent, sep="/")),
            (plain, without),
        )
    )
    np.testing.assert_allclose(nothing, alone, rtol=1e-5, atol=1e-5)
    assert np.abs(given - alone).max() > 0.1


def test_prefixes_are_past_keys_and_values_of_transformers():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=41, n_embd=24, n_layer=2, n_head=4, n_positions=32)
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    tokens = text(2, 9, 41, (9, 9))[0]
    model = fitted(Prefix(length=5), build("gpt", {**SIZES, "context_length": 32}))
    flat = flatten_dict(variables_of(model, tokens=jnp.asarray(tokens)), sep="/")
    shapes = {path: leaf for path, leaf in flat.items() if not matches(ADAPTERS, path)}
    tensors = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    read = flatten_dict(GPT2.read(tensors, unflatten_dict(shapes, sep="/")), sep="/")
    ours = jax.jit(model.apply)(unflatten_dict({**flat, **read}, sep="/"), jnp.asarray(tokens)).logits

    past = transformers.DynamicCache(config=config)
    for i in range(2):
        inside = f"params/decoder/block_{i}/attention/prefix_"
        key, value = (torch.tensor(np.array(flat[inside + name]))[None] for name in ("key", "value"))
        past.update(key.repeat(2, 1, 1, 1), value.repeat(2, 1, 1, 1), i)
    places = torch.arange(9)[None].repeat(2, 1)
    with torch.no_grad():
        found = theirs(torch.tensor(tokens), past_key_values=past, position_ids=places).logits
    np.testing.assert_allclose(ours, found.numpy(), rtol=1e-4, atol=1e-4)


def test_texts_are_written_with_prefixes_token_by_token():
    """With a cache, the logits are those of the whole text."""
    model = fitted(
        Prefix(length=5), build("gpt", {**SIZES, "context_length": 32, "window": 4, "window_every": 2})
    )
    tokens = jnp.asarray(text(2, 9, 41, (9, 9))[0])
    variables = variables_of(model, tokens=tokens)
    whole = jax.jit(model.apply)(variables, tokens).logits
    step = jax.jit(lambda cache, tokens: model.apply(variables, tokens, cache=cache))
    outputs = step(model.start(2, 9), tokens[:, :6])
    np.testing.assert_allclose(outputs.logits, whole[:, :6], rtol=1e-4, atol=1e-4)
    outputs = step(outputs.cache, tokens[:, 6:])
    np.testing.assert_allclose(outputs.logits, whole[:, 6:], rtol=1e-4, atol=1e-4)


def test_models_without_such_blocks_are_refused():
    image = jnp.zeros((1, 8, 8, 3))
    model = build("mlp_mixer", {"image_size": 8, "patch_size": 4, "width": 8, "depth": 1, "num_classes": 3})
    params = jax.eval_shape(fitted(Bottleneck(), model).init, jax.random.key(0), image)["params"]
    for adapter, name in ((Bottleneck(), "bottleneck"), (Prefix(), "prefix"), (Prompt(), "prompt")):
        (line,) = adapter.problems_with(params)
        assert line == f'name="{name}": this model takes none; take "lora"'
    assert "width=0" in problems(Bottleneck(width=0))[0]
    assert "length=0" in problems(Prefix(length=0))[0]
