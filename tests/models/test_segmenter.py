"""Segmenter: every decoder on maps of one or several sizes, windows, and what rules by path make of its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny import random_params

from jaxformer.config.schema import load, resolve, to_dict
from jaxformer.models import MODELS
from jaxformer.models.attention import ATTENTION_MAPS
from jaxformer.models.presets import preset
from jaxformer.models.segmenter import Segmenter, window_places
from jaxformer.optim.masks import NO_DECAY, layer_indices, path_mask
from jaxformer.parallel.rules import param_specs
from jaxformer.paths import leaves_by_path
from jaxformer.precision import in_precision

CNN = {
    "name": "resnet",
    "stage_sizes": (1, 1),
    "block": "basic",
    "width": 8,
    "stem": "small",
    "num_classes": 0,
}
VIT = {
    "name": "vit", "image_size": 16, "patch_size": 4, "width": 8, "depth": 1, "num_heads": 2, "num_classes": 0,
}  # fmt: skip
DECODERS = {
    "linear": {},
    "pup": {"width": 8, "steps": 1},
    "mlp": {"width": 8, "dropout": 0.0},
    "fpn": {"width": 8},
    "mask_transformer": {"width": 8, "depth": 1, "num_heads": 2},
}
K = 3


def resolved(**fields):
    """The model that a config makes of these fields, and what is wrong with them."""
    errors = []
    return resolve(load(MODELS["segmenter"]), {"num_classes": K, **fields}, "model", errors), errors


def build(decoder, backbone=CNN, **fields):
    model, errors = resolved(decoder={"name": decoder, **DECODERS[decoder]}, backbone=backbone, **fields)
    assert not errors
    return model


def images(height, width, batch=2):
    return np.random.default_rng(1).normal(size=(batch, height, width, 3)).astype(np.float32)


def variables_of(model, image):
    """Random parameters, and running statistics of 1."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    stats = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), shapes.get("batch_stats", {}))
    return {"params": random_params(model, image, scale=0.4), "batch_stats": stats}


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_cnn_segments_images_of_any_size(decoder):
    """With the same parameters; logits are float32, whatever is computed in."""
    model = in_precision(build(decoder), "bfloat16")
    shapes = jax.eval_shape(model.init, jax.random.key(0), images(16, 16))
    for height, width in ((16, 16), (17, 26)):
        outputs = jax.eval_shape(model.apply, shapes, images(height, width))
        grids = [x.shape[1:3] for x in outputs.maps]
        assert grids == [(height, width), (-(-height // 2), -(-width // 2))]
        own = {"mlp": grids[0], "fpn": grids[0], "pup": tuple(2 * n for n in grids[1])}
        assert outputs.logits.shape == (2, *own.get(decoder, grids[1]), K)
        assert outputs.logits.dtype == jnp.float32
        whole = jax.eval_shape(lambda o, size=(height, width): o.at(size), outputs)
        assert whole.shape == (2, height, width, K)


@pytest.mark.parametrize("decoder", ["linear", "pup", "mask_transformer"])
def test_a_vit_segments_images_of_its_size(decoder):
    model = build(decoder, VIT)
    outputs = jax.eval_shape(model.init_with_output, jax.random.key(0), images(16, 16))[0]
    assert outputs.logits.shape == (2, *((8, 8) if decoder == "pup" else (4, 4)), K)


@pytest.mark.parametrize("decoder", ["mlp", "fpn"])
def test_decoders_of_several_maps_refuse_a_plain_vit(decoder):
    _, errors = resolved(decoder={"name": decoder}, backbone=VIT)
    assert len(errors) == 1
    assert "joins maps of several sizes, and gets 1;" in errors[0]


def test_one_can_choose_the_map():
    fine, coarse = (
        jax.eval_shape(
            resolved(decoder={"name": "linear", "level": level}, backbone=CNN)[0].init_with_output,
            jax.random.key(0), images(16, 16),
        )[0]
        for level in (0, -1)
    )  # fmt: skip
    assert (fine.logits.shape[1], coarse.logits.shape[1]) == (16, 8)


def test_the_decoder_gets_the_levels_of_the_backbone():
    model = build("fpn", {**CNN, "stage_sizes": (1, 1, 1)}, levels=(1, 2))
    variables = variables_of(model, images(16, 16))
    outputs = jax.jit(model.apply)(variables, images(16, 16))
    assert [len(x[0]) for x in outputs.maps] == [16, 8, 4]
    of_decoder = {name: tree["decoder"] for name, tree in variables.items()}
    alone = model.decoder.apply(of_decoder, outputs.maps[1:], K, True)
    assert alone.shape == (2, 8, 8, K)
    np.testing.assert_allclose(outputs.logits, alone, rtol=1e-5, atol=1e-6)


# Of models without a decoder for several maps.
WRONG = [
    ({"backbone": {**CNN, "num_classes": 5}}, "model.backbone.num_classes=5: a backbone's own head"),
    ({"decoder": {"name": "linear", "level": 2}}, "model.decoder.level=2: the decoder gets 2 maps, 0 to 1"),
    ({"levels": [0, 2]}, "model.levels: there is no 2; this backbone has 2 maps, 0 to 1"),
    (
        {"levels": [1], "decoder": {"name": "fpn"}},
        "model.decoder: FPN joins maps of several sizes, and gets 1;",
    ),
    ({"levels": [1], "decoder": {"name": "linear", "level": 1}}, "level=1: the decoder gets 1 maps"),
    ({"decoder": {"name": "mask_transformer", "num_heads": 5}}, "num_heads=5 does not divide width=192"),
    ({"num_classes": 0}, "model.num_classes=0: expected 1 or more"),
    ({"stride": [8, 8]}, "model.stride=[8, 8]: there is no window"),
    ({"window": [0, 8]}, "model.window[0]=0: expected 1 or more"),
    ({"window": [8, 8], "stride": [8, 9]}, "model.stride=[8, 9]: expected 1 to [8, 8] pixels"),
    ({"backbone": VIT, "window": [8, 8]}, "model.window=[8, 8]: the backbone takes images of 16x16"),
]


@pytest.mark.parametrize(("fields", "said"), WRONG)
def test_what_cannot_be_is_said(fields, said):
    _, errors = resolved(**{"decoder": {"name": "linear"}, "backbone": CNN, **fields})
    assert len(errors) == 1
    assert said in errors[0]


def test_a_config_comes_back():
    model = build("fpn", window=[8, 8])
    assert resolved(**to_dict(model))[0] == model


@pytest.mark.parametrize("decoder", ["fpn", "mask_transformer"])
def test_one_window_is_the_whole_image(decoder):
    image = images(16, 16)
    whole = build(decoder)
    variables = variables_of(whole, image)
    for window in ([16, 16], [20, 16]):
        ours = jax.jit(build(decoder, window=window).apply)(variables, image).at((16, 16))
        np.testing.assert_allclose(
            ours, jax.jit(whole.apply)(variables, image).at((16, 16)), rtol=1e-5, atol=1e-5
        )


def test_logits_of_windows_are_averaged_where_they_overlap():
    image = images(16, 24)
    model, window = build("linear", VIT), (16, 16)
    variables = {"params": random_params(model, images(16, 16))}
    ours = jax.jit(build("linear", VIT, window=window, stride=[16, 6]).apply)(variables, image).at((16, 24))
    apply = jax.jit(lambda part: model.apply(variables, part).at(window))
    total, count = np.zeros((2, 16, 24, K)), np.zeros(24)
    for left in (0, 6, 8):  # the last one ends with the image
        total[:, :, left : left + 16] += apply(image[:, :, left : left + 16])
        count[left : left + 16] += 1
    np.testing.assert_allclose(ours, total / count[None, None, :, None], rtol=1e-4, atol=1e-5)
    assert np.abs(ours[:, :, :6] - ours[:, :, 6:12]).max() > 1e-3


def test_training_sees_no_windows():
    image = images(16, 16)
    whole, windows = build("fpn"), build("fpn", window=[8, 8])
    variables = variables_of(whole, image)

    def train(model):
        return model.apply(variables, image, False, mutable=["batch_stats"])[0].logits

    np.testing.assert_array_equal(train(whole), train(windows))


@pytest.mark.parametrize("length", range(8, 30))
def test_windows_cover_the_image_and_stay_inside(length):
    for stride in (1, 3, 5, 8):
        lefts = [left for _, left in window_places((8, length), (8, 8), (8, stride))]
        covered = np.zeros(length, int)
        for left in lefts:
            assert 0 <= left <= length - 8
            covered[left : left + 8] += 1
        assert covered.min() > 0
        assert len(set(lefts)) == len(lefts)
        assert len(lefts) == 1 + -(-(length - 8) // stride)


def test_the_mask_transformer_is_the_authors():
    """As in their code (rstrudel/segmenter, segm/model/decoder.py), with the blocks left out of the comparison."""
    import torch
    from torch.nn import functional

    model, image = build("mask_transformer"), images(16, 16)
    variables = variables_of(model, image)
    outputs, inside = jax.jit(lambda: model.apply(variables, image, capture_intermediates=True))()
    of_decoder = inside["intermediates"]["decoder"]
    tokens = torch.from_numpy(np.array(of_decoder["norm"]["__call__"][0]))
    params = jax.tree.map(lambda x: torch.from_numpy(np.array(x)), variables["params"]["decoder"])

    patches, classes = tokens[:, :-K], tokens[:, -K:]
    patches, classes = patches @ params["head_patch"]["kernel"], classes @ params["head_class"]["kernel"]
    patches, classes = (functional.normalize(x, dim=-1) for x in (patches, classes))
    masks = functional.layer_norm(
        patches @ classes.transpose(1, 2), (K,), params["norm_mask"]["scale"], params["norm_mask"]["bias"]
    )
    np.testing.assert_allclose(outputs.logits, masks.reshape(2, 8, 8, K).numpy(), rtol=1e-4, atol=1e-4)
    went_in = of_decoder["conv_in"]["__call__"][0].reshape(2, 64, 8)
    assert of_decoder["encoder"]["__call__"][0][0].shape == (2, 64 + K, 8)
    assert np.abs(went_in).max() > 0


def test_pup_is_convolutions_and_interpolations():
    import torch
    from torch.nn import functional

    model, image = build("pup"), images(16, 16)
    model = model.clone(decoder=model.decoder.clone(steps=2))
    variables = variables_of(model, image)
    outputs = jax.jit(model.apply)(variables, image)
    params = jax.tree.map(lambda x: torch.from_numpy(np.array(x)), variables["params"]["decoder"])
    x = torch.from_numpy(np.array(outputs.maps[-1]))
    x = functional.layer_norm(x, x.shape[-1:], params["norm_in"]["scale"], params["norm_in"]["bias"], 1e-6)
    x = x.permute(0, 3, 1, 2)
    for i in (1, 2):
        x = functional.conv2d(x, params[f"conv_{i}"]["kernel"].permute(3, 2, 0, 1), padding=1)
        scale, bias = params[f"norm_{i}"]["scale"], params[f"norm_{i}"]["bias"]
        ones, zeros = torch.ones(8), variables["batch_stats"]["decoder"][f"norm_{i}"]["mean"]
        x = functional.relu(functional.batch_norm(x, torch.from_numpy(np.array(zeros)), ones, scale, bias))
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    expected = x.permute(0, 2, 3, 1) @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(outputs.logits, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_the_coarsest_map_reaches_the_finest_logits():
    """And the finest map its own place alone, but for the 3x3 on it."""
    model = build("fpn").decoder
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(1, n, n, 8)).astype(np.float32) for n in (16, 4)]
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), maps, K, True))
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes["params"])
    stats = jax.tree.map(lambda s: np.ones(s.shape, np.float32), shapes["batch_stats"])

    @jax.jit
    def reached(maps):
        def middle(maps):
            return jnp.sum(model.apply({"params": params, "batch_stats": stats}, maps, K, True)[0, 8, 8])

        return [jnp.any(g != 0, axis=(0, 3)) for g in jax.grad(middle)(maps)]

    fine, coarse = reached(maps)
    assert fine.sum() > 1
    assert not fine[:7].any()
    assert not fine[10:].any()
    assert coarse[0].any()
    assert coarse[-1].any()


def test_statistics_are_synchronised_in_every_part():
    model = in_precision(build("pup"), "float32", axis="batch")
    assert model.backbone.axis_name == model.decoder.axis_name == "batch"


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_parameter_has_a_sharding_rule(decoder):
    model = build(decoder)
    params = jax.eval_shape(model.init, jax.random.key(0), images(16, 16))["params"]
    mesh = jax.make_mesh((1, 1, 1), ("data", "fsdp", "tensor"))
    assert param_specs(params, mesh).keys() == leaves_by_path(params).keys()


def test_class_tokens_do_not_decay_and_learn_with_the_head():
    model = build("mask_transformer")
    params = jax.eval_shape(model.init, jax.random.key(0), images(16, 16))["params"]
    assert leaves_by_path(path_mask(NO_DECAY, params))["decoder/probe"]
    layers, lasts = layer_indices(params)
    assert layers["decoder/probe"] == lasts["decoder/probe"]
    assert layers["backbone/stage_1_block_0/conv_1/kernel"] < lasts["backbone/stage_1_block_0/conv_1/kernel"]


def test_attention_maps_are_there_if_asked_for():
    model, image = build("mask_transformer"), images(16, 16)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    apply = lambda v, x: model.apply(v, x, mutable=[ATTENTION_MAPS])  # noqa: E731
    maps = leaves_by_path(jax.eval_shape(apply, shapes, image)[1])
    assert [leaf.shape for leaf in maps.values()] == [(2, 2, 64 + K, 64 + K)]


# Of the ViTs alone, at 224 pixels with 1000 classes: timm's vit_{tiny,small}_patch16_224, torchvision's vit_{b,l}_16.
VITS = {"ti": 5_717_416, "s": 22_050_664, "b": 86_567_656, "l": 304_326_632}


@pytest.mark.parametrize("size", VITS)
def test_presets_have_the_parameters_of_their_parts(size):
    """The ViT without its head and with more positions, and the decoder, counted by hand."""
    fields = preset(f"segmenter-{size}16")
    model, errors = resolved(**{name: value for name, value in fields.items() if name != "name"})
    assert not errors
    side, width, classes = model.backbone.image_size, model.decoder.width, 150
    params = jax.eval_shape(model.init, jax.random.key(0), images(side, side, 1))["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    positions = ((side // 16) ** 2 - 14**2) * width
    attention, mlp, norms = 4 * (width + 1) * width, 8 * width**2 + 5 * width, 4 * width
    ends = (width + 1) * width + classes * width + 2 * width + 2 * width**2 + 2 * classes
    decoder = 2 * (attention + mlp + norms) + ends
    assert count == VITS[size] - (width + 1) * 1000 + positions + decoder


def test_without_a_number_of_classes_the_data_decide():
    assert Segmenter(backbone=None, decoder=None).num_classes is None
