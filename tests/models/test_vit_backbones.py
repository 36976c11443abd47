"""ViTs on the feature maps of another model: which become tokens, whose parameters they are, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import images, random_params
from jax.sharding import Mesh

from jaxformer.config import schema
from jaxformer.config.schema import resolve, to_dict
from jaxformer.models.conv_stem import ConvStem
from jaxformer.models.resnet import ResNet
from jaxformer.models.vit import ViT
from jaxformer.optim.masks import decay_mask, layer_indices, trainable_mask
from jaxformer.optim.optimizers import AdamW
from jaxformer.parallel.rules import param_specs
from jaxformer.paths import leaves_by_path
from jaxformer.precision import in_precision

SIZE = 16
STEM = ConvStem(channels=(6, 8))  # gives 4 x 4
PYRAMID = ResNet(stage_sizes=(1, 1), width=8, block="basic", stem="small", num_classes=0)  # 16 x 16, 8 x 8
TINY = {"image_size": SIZE, "width": 16, "depth": 2, "num_heads": 2, "num_classes": 5}


def variables_of(model, size=SIZE):
    """Random parameters and running statistics around 1."""
    image = images(size=size)
    shapes = jax.eval_shape(lambda key: model.init(key, image), jax.random.key(0))
    generator = np.random.default_rng(2)
    statistics = jax.tree.map(
        lambda s: generator.uniform(0.5, 1.5, size=s.shape).astype(s.dtype), shapes.get("batch_stats", {})
    )
    return {"params": random_params(model, image), "batch_stats": statistics}


def test_the_stem_is_that_of_pytorchs_layers():
    torch = pytest.importorskip("torch")
    stem = ConvStem(channels=(6, 8, 8), strides=(2, 2, 1))
    variables = variables_of(stem)
    layers = []
    for i, (channels, stride) in enumerate(zip((6, 8, 8), (2, 2, 1)), 1):
        params, statistics = variables["params"], variables["batch_stats"][f"norm_stem_{i}"]
        kernel = params[f"conv_stem_{i}"]["kernel"].transpose(3, 2, 0, 1).copy()
        conv = torch.nn.Conv2d(kernel.shape[1], channels, 3, stride, padding=1, bias=False)
        norm = torch.nn.BatchNorm2d(channels)
        conv.load_state_dict({"weight": torch.from_numpy(kernel)})
        values = {"weight": params[f"norm_stem_{i}"]["scale"], "bias": params[f"norm_stem_{i}"]["bias"]}
        values |= {"running_mean": statistics["mean"], "running_var": statistics["var"]}
        norm.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()}, strict=False)
        layers += [conv, norm, torch.nn.ReLU()]
    image = images(size=SIZE)
    with torch.no_grad():
        expected = torch.nn.Sequential(*layers).eval()(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
    (found,) = jax.jit(stem.apply)(variables, image).maps
    assert expected.abs().max() > 0.1
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_a_map_is_cut_into_patches_as_an_image_is():
    model = ViT(**TINY, backbone=STEM, patch_size=2)
    variables = variables_of(model)
    (features,) = jax.jit(STEM.apply)(
        {name: tree.get("backbone", {}) for name, tree in variables.items()}, images(size=SIZE)
    ).maps
    rest = {name: leaf for name, leaf in variables["params"].items() if name != "backbone"}
    expected = ViT(**{**TINY, "image_size": 4}, patch_size=2)
    expected = jax.jit(expected.apply)({"params": rest}, features)
    outputs = jax.jit(model.apply)(variables, images(size=SIZE))
    assert model.grid == (2, 2)
    assert np.abs(expected.logits).max() > 0.1
    np.testing.assert_allclose(outputs.logits, expected.logits, rtol=1e-4, atol=1e-5)


def test_maps_of_several_levels_become_tokens_one_after_the_other():
    model = ViT(**TINY, backbone=PYRAMID, levels=(0, -1), patch_size=(4, 1), distillation_token=True)
    variables = variables_of(model)
    params = variables["params"]
    assert params["patch_embedding_0"]["kernel"].shape == (4, 4, 8, 16)
    assert params["patch_embedding_1"]["kernel"].shape == (1, 1, 16, 16)
    assert params["position_embedding"].shape == (1, 2 + 16 + 64, 16)
    outputs = jax.jit(model.apply)(variables, images(size=SIZE))
    assert [found.shape for found in outputs.maps] == [(2, 4, 4, 16), (2, 8, 8, 16)]
    np.testing.assert_array_equal(outputs.maps[0][:, 1, 2], outputs.tokens[:, 2 + 4 + 2])
    np.testing.assert_array_equal(outputs.maps[1][:, 3, 5], outputs.tokens[:, 2 + 16 + 3 * 8 + 5])
    assert model.grids == ((4, 4), (8, 8))
    assert model.tokens_before_grid == 2 + 16
    # The class token sees both.
    changed = {**params, "patch_embedding_1": jax.tree.map(lambda x: 2 * x, params["patch_embedding_1"])}
    again = jax.jit(model.apply)({**variables, "params": changed}, images(size=SIZE))
    assert np.abs(again.tokens[:, 0] - outputs.tokens[:, 0]).max() > 1e-4


@pytest.mark.parametrize("positions", ["learned", "sincos2d"])
def test_images_need_not_be_square(positions):
    model = ViT(**TINY, backbone=STEM, patch_size=1, positions=positions)
    image = np.random.default_rng(0).normal(size=(2, 16, 24, 3)).astype(np.float32)
    outputs = jax.eval_shape(model.init_with_output, jax.random.key(0), image)[0]
    assert outputs.maps[0].shape == (2, 4, 6, 16)
    assert outputs.tokens.shape == (2, 25, 16)


def test_the_backbone_learns_and_can_be_frozen_by_its_path():
    model = ViT(**TINY, backbone=STEM, patch_size=1)
    variables = variables_of(model)

    def loss(params):
        outputs, changed = model.apply(
            {**variables, "params": params}, images(size=SIZE), deterministic=False, mutable="batch_stats",
            rngs={"dropout": jax.random.key(0)},
        )  # fmt: skip
        return jnp.sum(outputs.logits), changed

    gradients, changed = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert np.abs(gradients["backbone"]["conv_stem_1"]["kernel"]).max() > 0
    before = variables["batch_stats"]["backbone"]["norm_stem_1"]["mean"]
    assert np.abs(changed["batch_stats"]["backbone"]["norm_stem_1"]["mean"] - before).max() > 1e-3
    trained = leaves_by_path(
        trainable_mask(AdamW(learning_rate=0.1, freeze=("backbone",)), variables["params"])
    )
    assert {path for path, taken in trained.items() if not taken} == {
        path for path in trained if path.startswith("backbone/")
    }


def test_rules_by_path_know_the_new_parameters():
    model = ViT(
        **TINY,
        backbone=PYRAMID,
        levels=(0, 1),
        patch_size=(2, 1),
        distillation_token=True,
    )
    params = jax.eval_shape(model.init, jax.random.key(0), images(size=SIZE))["params"]
    mesh = Mesh(np.asarray(jax.devices()[:4]).reshape(1, 2, 2), ("data", "fsdp", "tensor"))
    specs = param_specs(params, mesh)
    assert specs["distillation_token"] == specs["class_token"]
    assert specs["head_distilled/kernel"] == specs["head/kernel"]
    decays = leaves_by_path(decay_mask(AdamW(learning_rate=0.1), params))
    assert not decays["distillation_token"]
    assert decays["patch_embedding_1/kernel"]
    layers, _ = layer_indices(params)
    assert {layers[f"patch_embedding_{i}/kernel"] for i in range(2)} == {layers["distillation_token"]} == {0}


def test_a_config_chooses_the_backbone():
    errors = []
    given = {**TINY, "patch_size": 1, "backbone": {"name": "conv_stem", "channels": [6, 8]}}
    model = resolve(ViT, given, "model", errors)
    assert not errors
    assert model == ViT(**TINY, patch_size=1, backbone=STEM)
    assert to_dict(model)["backbone"]["name"] == "conv_stem"
    half = in_precision(model, "bfloat16", axis="batch")
    assert half.backbone.dtype == jnp.bfloat16
    assert half.backbone.axis_name == "batch"


def test_possible_fields_have_no_problems():
    assert not list(schema.problems(STEM))
    assert not list(schema.problems(ViT(**TINY, backbone=STEM, patch_size=2)))
