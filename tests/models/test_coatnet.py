"""CoAtNet: shapes, maps, synchronised statistics, positions, and what the rules by path make of its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import images, random_params

from jaxformer.models.attention import ATTENTION_MAPS
from jaxformer.models.coatnet import CoAtNet
from jaxformer.models.mbconv import MBConv, MBConvSettings
from jaxformer.models.resampling import halved
from jaxformer.optim.masks import NO_DECAY, layer_indices, path_mask
from jaxformer.parallel.rules import param_specs
from jaxformer.paths import leaves_by_path

TINY = {
    "stage_sizes": (1, 2), "widths": (8, 16), "blocks": ("mbconv", "attention"), "stem_widths": (8, 8), "head_dim": 8,
    "image_size": 32, "num_classes": 5, "representation": None,
}  # fmt: skip


def shapes_of(model, size=32):
    return jax.eval_shape(model.init, jax.random.key(0), images(1, size))


def variables_of(model, size=32):
    """Random parameters, and running statistics of 1."""
    stats = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), shapes_of(model, size)["batch_stats"])
    return {"params": random_params(model, images(1, size)), "batch_stats": stats}


@pytest.mark.parametrize("representation", [None, 12])
def test_shapes(representation):
    model = CoAtNet(**{**TINY, "representation": representation})
    outputs = jax.eval_shape(model.init_with_output, jax.random.key(0), images(2, 30))[0]
    assert outputs.logits.shape == (2, 5)
    assert outputs.features.shape == (2, representation or 16)
    assert [x.shape for x in outputs.maps] == [(2, 8, 8, 8), (2, 4, 4, 16)]
    assert outputs.tokens.shape == (2, 4, 4, 16)


def test_a_backbone_has_no_head():
    outputs, variables = jax.eval_shape(
        CoAtNet(**{**TINY, "num_classes": 0}).init_with_output, jax.random.key(0), images(2, 32)
    )
    assert outputs.logits is None
    assert "head" not in variables["params"]


def test_statistics_are_those_of_all_devices():
    """On two halves of a batch, with an axis, as on the whole of it."""
    whole = CoAtNet(**TINY)
    variables, batch = variables_of(whole), images(4, 32)
    parts = CoAtNet(**TINY, axis_name="batch")

    def train(model, image):
        outputs, moved = model.apply(variables, image, False, mutable=["batch_stats"])
        return outputs.logits, moved["batch_stats"]

    logits, stats = jax.jit(lambda x: train(whole, x))(batch)
    split = jax.vmap(lambda x: train(parts, x), axis_name="batch")
    split_logits, split_stats = jax.jit(split)(batch.reshape(2, 2, 32, 32, 3))
    np.testing.assert_allclose(
        split_logits.reshape(4, 5), logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max()
    )
    for ours, expected in zip(jax.tree.leaves(split_stats), jax.tree.leaves(stats)):
        np.testing.assert_allclose(ours[0], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(ours[0], ours[1])
        assert np.abs(expected - 1).max() > 1e-3


def test_paths_are_dropped_in_training_alone():
    model = CoAtNet(**TINY, drop_path=0.9)
    variables = variables_of(model)

    @jax.jit
    def train(key):
        apply = model.apply(variables, images(2, 32), False, mutable=["batch_stats"], rngs={"dropout": key})
        return apply[0].logits

    first, again, other = train(jax.random.key(0)), train(jax.random.key(0)), train(jax.random.key(3))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    jax.eval_shape(model.apply, variables, images(2, 32))  # needs no key


def test_attention_maps_are_sown_when_asked_for():
    model = CoAtNet(**TINY)
    variables = variables_of(model)
    _, sown = jax.eval_shape(lambda v: model.apply(v, images(2, 32), mutable=[ATTENTION_MAPS]), variables)
    assert {path: leaf.shape for path, leaf in leaves_by_path(sown[ATTENTION_MAPS]).items()} == {
        "stage_2_block_0/attention/weights": (2, 2, 16, 16),
        "stage_2_block_1/attention/weights": (2, 2, 16, 16),
    }


def test_images_larger_than_the_tables_are_refused():
    model = CoAtNet(**TINY)
    variables = shapes_of(model)
    assert jax.eval_shape(model.apply, variables, images(1, 24)).logits.shape == (1, 5)
    with pytest.raises(ValueError, match=r"6 x 6.*for 4; raise image_size"):
        jax.eval_shape(model.apply, variables, images(1, 48))


@pytest.mark.parametrize("size", [4, 5])
def test_halving(size):
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    for pool, reduce in (("mean", np.mean), ("max", np.max)):
        found = np.asarray(halved(jnp.asarray(x), pool))
        assert found.shape == (2, -(-size // 2), -(-size // 2), 3)
        for i, j in np.ndindex(found.shape[1:3]):
            expected = reduce(x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2], axis=(1, 2))
            np.testing.assert_allclose(found[:, i, j], expected, rtol=1e-5, atol=1e-6)


def test_each_maximums_gradient_goes_to_one_place():
    """Shared among the equals, it would be 0 / 0 where XLA computes the input twice and rounds it differently."""
    x = np.random.default_rng(0).integers(0, 2, (2, 6, 6, 3)).astype(np.float32)  # full of equals
    weights = np.random.default_rng(1).normal(size=(2, 3, 3, 3)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(halved(x, "max") * weights)))(x)
    fours = np.asarray(gradient).reshape(2, 3, 2, 3, 2, 3).transpose(0, 1, 3, 5, 2, 4).reshape(2, 3, 3, 3, 4)
    np.testing.assert_array_equal(fours.sum(axis=-1), weights)
    assert (np.count_nonzero(fours, axis=-1) == 1).all()


def mbconv(channels):
    """A block that halves [2, 8, 8, 3], and variables of ones, but for a last convolution of zeros."""
    block, x = MBConv(channels, 2, MBConvSettings(pool="max")), jnp.asarray(images(2, 8))
    shapes = jax.eval_shape(lambda key: block.init(key, x, True), jax.random.key(0))
    variables = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), shapes)
    variables["params"]["conv_3"] = jax.tree.map(jnp.zeros_like, variables["params"]["conv_3"])
    return jax.jit(lambda v: block.apply(v, x, True)), variables, halved(x, "max")


def test_an_mbconv_of_zeros_is_its_shortcut():
    apply, variables, pooled = mbconv(3)
    assert "conv_shortcut" not in variables["params"]
    np.testing.assert_array_equal(apply(variables), pooled)
    apply, variables, pooled = mbconv(4)
    projected = jnp.sum(pooled, axis=-1, keepdims=True) + 1  # a kernel and a bias of ones
    np.testing.assert_allclose(apply(variables), jnp.broadcast_to(projected, (2, 4, 4, 4)), rtol=1e-5)


def test_rules_by_path_cover_every_parameter():
    params = shapes_of(CoAtNet(**{**TINY, "representation": 12}))["params"]
    specs = param_specs(params, jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor")))
    assert tuple(specs["stage_2_block_0/attention/query/kernel"]) == ("fsdp", "tensor", None)
    spared = leaves_by_path(path_mask(NO_DECAY, params))
    assert all(spared[path] == path.endswith(("bias", "scale", "relative_bias/embedding")) for path in spared)
    layers, lasts = layer_indices(params)
    assert layers["conv_stem_2/kernel"] == layers["norm_stem/scale"] == 0
    assert layers["stage_1_block_0/mlp_squeeze/up/kernel"] == 1
    assert layers["stage_2_block_1/mlp/up/kernel"] == 3
    assert layers["head/kernel"] == lasts["head/kernel"] == 4
