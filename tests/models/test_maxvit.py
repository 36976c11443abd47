"""MaxViT: which places see each other, padding, shapes, and what the rules by path make of its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import images

from jaxformer.models.attention import ATTENTION_MAPS
from jaxformer.models.maxvit import MaxViT
from jaxformer.models.windows import WindowBlock
from jaxformer.optim.masks import NO_DECAY, layer_indices, path_mask
from jaxformer.parallel.rules import param_specs
from jaxformer.paths import leaves_by_path

TINY = {
    "stage_sizes": (1, 1), "widths": (8, 16), "stem_widths": (8, 8), "window": 2, "head_dim": 8, "num_classes": 5,
    "representation": 12,
}  # fmt: skip
BLOCK = {
    "window": 2, "num_heads": 2, "mlp_ratio": 1, "activation": "gelu_tanh", "norm_epsilon": 1e-5, "drop_path": 0.0,
    "dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip


def shapes_of(model, size=32):
    return jax.eval_shape(model.init, jax.random.key(0), images(1, size))


def block_and_params(parts, width=8):
    """A block, and random parameters."""
    block = WindowBlock(windows=parts, **BLOCK)
    x = jax.ShapeDtypeStruct((1, 4, 4, width), jnp.float32)
    shapes = jax.eval_shape(lambda key, x: block.init(key, x, True), jax.random.key(0), x)
    generator = np.random.default_rng(0)
    return block, jax.tree.map(lambda s: generator.normal(size=s.shape).astype(s.dtype), shapes)


@pytest.mark.parametrize(
    ("parts", "size", "seen"),
    [
        ("block", 4, {(2, 0), (2, 1), (3, 0), (3, 1)}),
        ("grid", 4, {(0, 0), (0, 2), (2, 0), (2, 2)}),
        # Padded to 4: the place's part has padding in it, and nothing more.
        ("block", 3, {(2, 0), (2, 1)}),
        ("grid", 3, {(0, 0), (0, 2), (2, 0), (2, 2)}),
    ],
)
def test_what_a_place_sees(parts, size, seen):
    """Gradients of what comes out at row 2, column 0 reach its part, and no other place."""
    block, params = block_and_params(parts)
    x = np.random.default_rng(1).normal(size=(1, size, size, 8)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(block.apply(params, x, True)[0, 2, 0]))))(x)
    reached = {(int(i), int(j)) for i, j in np.argwhere(np.abs(gradient[0]).max(-1) > 0)}
    assert reached == seen


def test_padding_is_not_seen():
    """In a part of its own, beside padding, a place gives what it gives alone."""
    block, params = block_and_params("block")
    x = np.random.default_rng(1).normal(size=(2, 3, 3, 8)).astype(np.float32)
    apply = jax.jit(lambda x: block.apply(params, x, True))
    np.testing.assert_allclose(apply(x)[:, 2:, 2:], apply(x[:, 2:, 2:]), rtol=1e-4, atol=1e-4)


def test_shapes():
    outputs, variables = jax.eval_shape(MaxViT(**TINY).init_with_output, jax.random.key(0), images(2, 36))
    assert outputs.logits.shape == (2, 5)
    assert outputs.features.shape == (2, 12)
    assert [x.shape for x in outputs.maps] == [(2, 9, 9, 8), (2, 5, 5, 16)]
    assert set(variables["params"]["stage_2_block_0"]) == {"mbconv", "block", "grid"}
    backbone = jax.eval_shape(
        MaxViT(**{**TINY, "num_classes": 0}).init_with_output, jax.random.key(0), images(2, 32)
    )
    assert backbone[0].logits is None
    assert "head" not in backbone[1]["params"]


def test_attention_maps_are_sown_when_asked_for():
    model = MaxViT(**TINY)
    _, sown = jax.eval_shape(
        lambda v: model.apply(v, images(2, 32), mutable=[ATTENTION_MAPS]), shapes_of(model)
    )
    found = {path: leaf.shape for path, leaf in leaves_by_path(sown[ATTENTION_MAPS]).items()}
    assert found["stage_1_block_0/block/attention/weights"] == (2 * 16, 1, 4, 4)
    assert found["stage_2_block_0/grid/attention/weights"] == (2 * 4, 2, 4, 4)
    assert len(found) == 4


def test_rules_by_path_cover_every_parameter():
    params = shapes_of(MaxViT(**TINY))["params"]
    specs = param_specs(params, jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor")))
    assert tuple(specs["stage_2_block_0/grid/mlp/up/kernel"]) == ("fsdp", "tensor")
    spared = leaves_by_path(path_mask(NO_DECAY, params))
    assert all(spared[path] == path.endswith(("bias", "scale", "relative_bias/embedding")) for path in spared)
    layers, lasts = layer_indices(params)
    assert layers["conv_stem_1/kernel"] == 0
    assert layers["stage_2_block_0/block/attention/out/kernel"] == 2
    assert layers["representation/kernel"] == lasts["head/kernel"] == 3
