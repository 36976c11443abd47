"""ViT and MLP-Mixer: what comes out for each choice of fields, dtypes, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import images, random_params

from jaxformer.config import schema
from jaxformer.models import patches
from jaxformer.models.mlp_mixer import MLPMixer
from jaxformer.models.patches import PatchEmbedding
from jaxformer.models.vit import ViT

TINY = {"image_size": 8, "patch_size": 4, "width": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
MIXER = {
    "image_size": 8, "patch_size": 4, "width": 16, "depth": 2, "token_mlp_dim": 6, "channel_mlp_dim": 24,
    "num_classes": 5,
}  # fmt: skip


def outputs_and_params(model):
    """Shapes of what the model returns, and of its parameters."""
    outputs, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images())
    return outputs, variables["params"]


@pytest.mark.parametrize(
    ("fields", "tokens", "features", "rows"),
    [
        ({}, 5, 16, 5),
        ({"registers": 3}, 8, 16, 5),  # no positions for registers
        ({"pool": "average"}, 4, 16, 4),
        ({"pool": "average", "registers": 3}, 7, 16, 4),
        ({"pool": "map"}, 4, 16, 4),
        ({"representation": 12}, 5, 12, 5),
        ({"layer_scale": 1e-4, "qk_norm": True, "scan": True}, 5, 16, 5),
        ({"positions": "sincos2d"}, 5, 16, None),
        ({"distillation_token": True, "registers": 3}, 9, 16, 6),
    ],
    ids=str,
)
def test_shapes(fields, tokens, features, rows):
    outputs, params = outputs_and_params(ViT(**TINY, **fields))
    assert outputs.logits.shape == (2, 5)
    assert outputs.features.shape == (2, features)
    assert outputs.tokens.shape == (2, tokens, 16)
    assert [found.shape for found in outputs.maps] == [(2, 2, 2, 16)]
    assert (outputs.distilled is not None) == ("head_distilled" in params) == ("distillation_token" in fields)
    assert ("position_embedding" in params) == (rows is not None)
    assert ("class_token" in params) == (fields.get("pool", "cls") == "cls")
    assert ("pool" in params) == (fields.get("pool") == "map")
    if rows is not None:
        assert params["position_embedding"].shape == (1, rows, 16)
    if "layer_scale" in fields:
        assert params["encoder"]["blocks"]["layer_scale_2"]["scale"].shape == (2, 16)


def test_a_fresh_model_finds_every_class_equally_likely():
    variables = jax.jit(ViT(**TINY).init)(jax.random.key(0), images())
    np.testing.assert_array_equal(jax.jit(ViT(**TINY).apply)(variables, images()).logits, np.zeros((2, 5)))


@pytest.mark.parametrize(
    "model",
    [ViT(**TINY, distillation_token=True, registers=2), MLPMixer(**MIXER)],
    ids=["vit", "mixer"],
)
def test_without_classes_there_is_no_head_and_all_else_is_the_same(model):
    """Of an image that is not square: the maps have the patches in their places."""
    image = np.random.default_rng(1).normal(size=(2, 8, 12, 3)).astype(np.float32)
    params = random_params(model, image)
    bare = model.clone(num_classes=0)
    without = {name: leaf for name, leaf in params.items() if not name.startswith("head")}
    shapes = jax.eval_shape(bare.init, jax.random.key(0), image)["params"]
    assert jax.tree.structure(shapes) == jax.tree.structure(without)
    outputs = jax.jit(bare.apply)({"params": without}, image)
    expected = jax.jit(model.apply)({"params": params}, image)
    assert outputs.logits is None
    assert outputs.distilled is None
    np.testing.assert_allclose(outputs.features, expected.features, rtol=1e-5, atol=1e-6)
    (found,) = expected.maps
    assert found.shape == (2, 2, 3, 16)
    prefix = getattr(model, "prefix_tokens", 0)
    np.testing.assert_array_equal(found[:, 1, 2], expected.tokens[:, prefix + 5])
    assert not list(schema.problems(bare))


@pytest.mark.parametrize("model", [ViT(**TINY, pool="map"), MLPMixer(**MIXER)], ids=["vit", "mixer"])
def test_bfloat16_computes_nearly_the_same(model):
    half = model.clone(dtype=jnp.bfloat16)
    outputs, params = outputs_and_params(half)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert outputs.features.dtype == jnp.bfloat16
    params = random_params(model, images())
    expected = jax.jit(model.apply)({"params": params}, images()).logits
    logits = jax.jit(half.apply)({"params": params}, images()).logits
    assert logits.dtype == jnp.float32
    error = np.abs(logits - expected).max() / np.abs(expected).max()
    assert 0 < error < 0.05


def test_gradients_of_positions_are_added_up_over_the_batch_in_float32():
    """A number of bfloat16 has 8 bits, and the sum of several has more."""
    half = ViT(**TINY, dtype=jnp.bfloat16)
    params = random_params(half, images())
    gradients = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(half.apply({"params": p}, images()).logits))))(
        params
    )
    for name in ("position_embedding", "class_token"):
        exact = gradients[name]
        assert jnp.any(exact != exact.astype(jnp.bfloat16).astype(jnp.float32))


def test_patches_are_embedded_alike_as_a_convolution_and_as_a_product(monkeypatch):
    layer, image = PatchEmbedding(4, 6), jnp.asarray(images())
    params = random_params(layer, image)

    def on(platform):
        monkeypatch.setattr(patches, "platform", lambda: platform)
        loss = lambda params: jnp.sum(jnp.sin(layer.apply({"params": params}, image)))  # noqa: E731
        return layer.apply({"params": params}, image), jax.grad(loss)(params)

    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), on("tpu"), on("cpu"))


@pytest.mark.parametrize(
    "fields",
    [{}, {"layer_scale": 0.5, "remat": "full"}, {"distillation_token": True, "registers": 2}, {"scan": True}],
    ids=str,
)
def test_heads_read_the_tokens_that_the_model_returns(fields):
    model = ViT(**TINY, **fields)
    params = random_params(model, images())
    found = jax.jit(model.apply)({"params": params}, images())
    np.testing.assert_allclose(found.features, found.tokens[:, 0], rtol=1e-5, atol=1e-5)
    if "distillation_token" in fields:
        head = jax.tree.map(np.asarray, params["head_distilled"])
        expected = np.asarray(found.tokens[:, 1]) @ head["kernel"] + head["bias"]
        np.testing.assert_allclose(found.distilled, expected, rtol=1e-5, atol=1e-5)


def test_the_last_mlp_of_tokens_that_nothing_reads_is_left_out():
    """Of three products of the MLP's size, forwards and backwards, in one layer of 16 patches and a class token."""
    model = ViT(**TINY | {"image_size": 16, "depth": 1, "mlp_dim": 256})
    image = jnp.zeros((2, 16, 16, 3))
    params = random_params(model, image)

    def flops(read):
        gradient = jax.jit(jax.grad(lambda params: jnp.sum(read(model.apply({"params": params}, image)))))
        return gradient.lower(params).compile().cost_analysis()["flops"]

    left_out = flops(lambda outputs: outputs.tokens) - flops(lambda outputs: outputs.features)
    mlp = 2 * 2 * 17 * 16 * 256  # FLOPs of one of its two products, of all tokens
    assert left_out > 0.8 * 3 * 2 * mlp * 16 / 17


def test_mixer_mixes_patches():
    """A change in the last patch reaches the first token."""
    model = MLPMixer(**MIXER)
    params = random_params(model, images())
    apply = jax.jit(lambda x: model.apply({"params": params}, x).tokens)
    changed = images()
    changed[:, 4:, 4:] += 1
    assert np.abs(apply(changed)[:, 0] - apply(images())[:, 0]).max() > 1e-4
