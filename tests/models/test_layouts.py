"""Stacked and unrolled layers hold the same numbers, and the model computes the same with either."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.stacking import stack_layers

from jaxformer.errors import UserError
from jaxformer.models.gpt import GPT
from jaxformer.models.layouts import unstack_layers
from jaxformer.models.mlp import Experts
from jaxformer.models.seq2seq import Seq2Seq
from jaxformer.models.vit import ViT

TINY = {"image_size": 8, "patch_size": 4, "width": 16, "depth": 3, "num_heads": 2, "num_classes": 5}


def random_like(shapes, seed=0):
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda s: generator.normal(size=s.shape).astype(s.dtype) * 0.3, shapes)


def shapes_of(model):
    image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_round_trip_is_exact():
    unrolled = random_like(shapes_of(ViT(**TINY, layer_scale=0.1)))
    assert_same(unstack_layers(stack_layers(unrolled)), unrolled)
    scanned = random_like(shapes_of(ViT(**TINY, layer_scale=0.1, scan=True)))
    assert_same(stack_layers(unstack_layers(scanned)), scanned)


def test_stacked_tree_is_the_scanned_models():
    stacked = stack_layers(random_like(shapes_of(ViT(**TINY))))
    expected = shapes_of(ViT(**TINY, scan=True))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), stacked) == jax.tree.map(
        lambda x: (x.shape, x.dtype), expected
    )


def test_layers_are_ordered_by_number_not_by_name():
    encoder = {f"block_{i}": {"scale": np.full((2,), i, np.float32)} for i in reversed(range(12))}
    stacked = stack_layers({"tower": {"encoder": encoder}})
    np.testing.assert_array_equal(stacked["tower"]["encoder"]["blocks"]["scale"][:, 0], np.arange(12))


def test_trees_without_an_encoder_are_left_alone():
    tree = {"block_0": {"norm": np.ones(2)}, "head": {"bias": np.zeros(3)}}
    assert_same(stack_layers(tree), tree)
    assert_same(unstack_layers(tree), tree)


def test_a_stack_of_several_depths_is_named():
    with pytest.raises(UserError, match="\\[2, 3\\] layers"):
        unstack_layers({"encoder": {"blocks": {"scale": np.ones((2, 4)), "bias": np.ones((3, 4))}}})


def test_scan_computes_what_the_unrolled_model_does():
    plain, scanned = ViT(**TINY), ViT(**TINY, scan=True)
    params = random_like(shapes_of(plain))
    image = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)

    def logits_and_gradients(model):
        def loss(params):
            logits = model.apply({"params": params}, image).logits
            return jnp.sum(jnp.sin(logits)), logits

        return jax.jit(jax.value_and_grad(loss, has_aux=True))

    (_, expected), gradients = logits_and_gradients(plain)(params)
    (_, logits), scanned_gradients = logits_and_gradients(scanned)(stack_layers(params))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert float(jnp.max(jnp.abs(gradients["encoder"]["block_0"]["mlp"]["up"]["kernel"]))) > 1e-3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        unstack_layers(scanned_gradients),
        gradients,
    )


TEXT = {"vocab_size": 11, "context_length": 8, "width": 16, "num_heads": 2, "mlp_dim": 24}
LOCAL = GPT(**TEXT, depth=3, window=2, window_every=2, positions="alibi")
MODELS = {
    "alternating masks": LOCAL.clone(remat="dots"),
    "experts": GPT(**TEXT, depth=2, experts=Experts(3, capacity=0.7)),
    "both towers": Seq2Seq(**TEXT, encoder_depth=2, decoder_depth=2, dropout=0.0, positions="relative"),
}


def inputs(model):
    """Tokens and a mask of padding: on both sides of a decoder, at the end of a source."""
    tokens = np.random.default_rng(2).integers(0, 11, (3, 2, 6)).astype(np.int32)
    mask = np.array([[True] * 6, [True] * 4 + [False] * 2])
    if isinstance(model, Seq2Seq):
        return tokens[0], tokens[1], mask
    return tokens[0], mask[:, ::-1] & mask[::-1]


def losses(model):
    """Of a model's parameters: a loss with its gradients, and what the model returns."""

    def loss(params):
        found = model.apply({"params": params}, *inputs(model))
        total = jnp.sum(jnp.sin(found.logits))
        if found.router is not None:
            total += jnp.sum(100 * found.router.balance + 100 * found.router.z)
        return total, (found.logits, found.router)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def attention_maps(model, params):
    """Of every tower and layer."""
    apply = jax.jit(lambda p: model.apply({"params": p}, *inputs(model), mutable=["attention_maps"])[1])
    return apply(params)["attention_maps"]


@pytest.mark.parametrize("name", MODELS)
def test_scanned_decoders_compute_what_unrolled_ones_do(name):
    model = MODELS[name]
    scanned = model.clone(scan=True)
    params = random_like(jax.eval_shape(model.init, jax.random.key(0), *inputs(model))["params"])
    stacked = stack_layers(params)
    shapes = jax.eval_shape(scanned.init, jax.random.key(0), *inputs(model))["params"]
    assert jax.tree.map(np.shape, stacked) == jax.tree.map(lambda x: x.shape, shapes)
    assert_same(unstack_layers(stacked), params)

    (_, (logits, router)), gradients = losses(model)(params)
    (_, (scanned_logits, scanned_router)), scanned_gradients = losses(scanned)(stacked)

    def close(ours, theirs):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)

    close(scanned_logits, logits)
    close(scanned_router, router)
    assert (router is None) == (name != "experts")
    close(unstack_layers(scanned_gradients), gradients)
    layers = gradients["decoder"]
    for i in range(len(layers)):
        assert np.abs(layers[f"block_{i}"]["attention"]["value"]["kernel"]).max() > 1e-3


def test_attention_maps_of_local_and_dense_layers():
    """Of padding, too; where a query sees nothing at all its weights are equal."""
    model = LOCAL.clone(scan=True)
    params = random_like(jax.eval_shape(model.init, jax.random.key(0), *inputs(model))["params"])
    weights = attention_maps(model, params)["decoder"]["blocks"]["attention"]["weights"]
    assert weights.shape == (3, 2, 2, 6, 6)  # [layers, B, heads, T, T]
    distance = np.arange(6)[:, None] - np.arange(6)
    _, mask = inputs(model)
    for layer, window in enumerate((6, 2, 6)):
        for row in range(2):
            seen = (distance >= 0) & (distance < window) & mask[row]
            np.testing.assert_array_equal(
                np.asarray(weights)[layer, row, 0] > 0, seen | ~seen.any(axis=1)[:, None]
            )
    unrolled = attention_maps(LOCAL, unstack_layers(params))["decoder"]
    for i in range(3):
        theirs = unrolled[f"block_{i}"]["attention"]["weights"]
        np.testing.assert_allclose(weights[i], theirs, rtol=1e-4, atol=1e-5)


def test_attention_maps_of_both_towers():
    model = MODELS["both towers"].clone(scan=True)
    params = random_like(jax.eval_shape(model.init, jax.random.key(0), *inputs(model))["params"])
    maps = attention_maps(model, params)
    found = jax.tree.map(np.shape, {side: maps[side]["blocks"] for side in ("encoder", "decoder")})
    weights = {"weights": (2, 2, 2, 6, 6)}
    assert found == {
        "encoder": {"attention": weights},
        "decoder": {"attention": weights, "cross_attention": weights},
    }
