"""Our CoAtNet and MaxViT with timm's weights give timm's logits and gradients; presets are as large as timm's."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.timm_reference import timm

from jaxformer.config.schema import load, resolve
from jaxformer.errors import UserError
from jaxformer.models import MODELS
from jaxformer.models.presets import preset
from jaxformer.weights.timm import MAXXVIT

SIZE, CLASSES = 48, 5
COMMON = {
    "stage_sizes": (2, 2, 1), "widths": (16, 24, 32), "stem_widths": (16, 16), "head_dim": 8, "num_classes": CLASSES,
    "representation": 32,
}  # fmt: skip
COATNET = {**COMMON, "blocks": ("mbconv", "attention", "attention"), "image_size": SIZE}


def coatnet(**changes):
    """Our fields of a small CoAtNet, and timm's."""
    from timm.models.maxxvit import MaxxVitCfg, MaxxVitTransformerCfg

    config = MaxxVitCfg(
        embed_dim=(16, 24, 32), depths=(2, 2, 1), block_type=("C", "T", "T"), stem_width=16, head_hidden_size=32,
        transformer_cfg=MaxxVitTransformerCfg(dim_head=8),
    )  # fmt: skip
    return preset("coatnet-0", **COATNET, **changes), config


def coatnet_rw():
    """Of timm's own form."""
    from dataclasses import replace

    from timm.models.maxxvit import model_cfgs

    config = model_cfgs["coatnet_0_rw"]
    config = replace(
        config, embed_dim=(16, 24, 32), depths=(2, 2, 1), block_type=("C", "T", "T"), stem_width=(8, 16),
        transformer_cfg=replace(config.transformer_cfg, dim_head=8),
    )  # fmt: skip
    return preset("coatnet-0-rw", **{**COATNET, "stem_widths": (8, 16), "representation": None}), config


def maxvit():
    """Of Google's form."""
    from dataclasses import replace

    from timm.models.maxxvit import model_cfgs

    config = model_cfgs["maxvit_tiny_tf"]
    config = replace(
        config, embed_dim=(16, 24), depths=(1, 1), block_type=("M", "M"), stem_width=16, head_hidden_size=32,
        transformer_cfg=replace(config.transformer_cfg, dim_head=8, window_size=(3, 3)),
    )  # fmt: skip
    fields = {**COMMON, "stage_sizes": (1, 1), "widths": (16, 24), "window": 3}
    return preset("maxvit-t", **fields), config


def build(fields):
    """Our model, as a config would build it."""
    errors = []
    fields = dict(fields)
    model = resolve(load(MODELS[fields.pop("name")]), fields, "model", errors)
    assert not errors, errors
    return model


def shapes_of(model, size=SIZE):
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


def reference_of(config):
    """timm's model, with no zero and no one left in it."""
    import torch
    from timm.models.maxxvit import MaxxVit

    torch.manual_seed(0)
    reference = MaxxVit(config, img_size=SIZE, num_classes=CLASSES)
    with torch.no_grad():
        for name, tensor in reference.state_dict().items():
            if name.endswith("running_var"):
                tensor.mul_(0.5 + torch.rand(tensor.shape))
            elif tensor.is_floating_point():
                tensor.add_(0.1 * torch.randn(tensor.shape))
    return reference.eval()


@pytest.fixture(scope="module", params=["coatnet", "coatnet_rw", "maxvit"])
def both(request):
    """Our model, timm's, its tensors, and images."""
    timm()
    fields, config = {"coatnet": coatnet, "coatnet_rw": coatnet_rw, "maxvit": maxvit}[request.param]()
    reference = reference_of(config)
    source = {name: tensor.numpy().copy() for name, tensor in reference.state_dict().items()}
    image = np.random.default_rng(0).normal(size=(3, SIZE, SIZE, 3)).astype(np.float32)
    return build(fields), reference, source, image


def channels_first(image):
    import torch

    return torch.from_numpy(image.transpose(0, 3, 1, 2).copy())


def test_logits_and_maps_are_those_of_timm(both):
    import torch

    model, reference, source, image = both
    variables = MAXXVIT.read(source, shapes_of(model))
    with torch.no_grad():
        expected = reference(channels_first(image)).numpy()
        maps = reference.forward_intermediates(channels_first(image), intermediates_only=True)[1:]
    outputs = jax.jit(model.apply)(variables, image)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max())
    assert len(outputs.maps) == len(maps)
    for ours, theirs in zip(outputs.maps, maps):
        theirs = theirs.numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5 * np.abs(theirs).max())


def test_gradients_in_training_are_those_of_timm(both):
    """With the statistics of the batch, through all layers."""
    import torch

    model, reference, source, image = both
    weights = np.random.default_rng(1).normal(size=(3, CLASSES)).astype(np.float32)
    reference.train().zero_grad()
    torch.sum(reference(channels_first(image)) * torch.from_numpy(weights)).backward()
    reference.eval()
    gradients = {name: parameter.grad.numpy() for name, parameter in reference.named_parameters()}
    variables = MAXXVIT.read(source, shapes_of(model))
    expected = MAXXVIT.read({**source, **gradients}, shapes_of(model))["params"]

    def loss(params):
        outputs, _ = model.apply({**variables, "params": params}, image, False, mutable=["batch_stats"])
        return jnp.sum(outputs.logits * weights)

    found = flatten_dict(jax.jit(jax.grad(loss))(variables["params"]), sep="/")
    expected = flatten_dict(expected, sep="/")
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for path, ours in found.items():
        theirs = expected[path]
        # Some are 0 but for rounding: of a bias of keys, which the softmax does not see.
        atol = max(1e-4 * np.abs(theirs).max(), 1e-6 * largest)
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=atol, err_msg=path)


def test_what_does_not_fit_is_listed(both):
    model, _, source, _ = both
    source = dict(source)
    del source["stem.conv2.weight"]
    source["stages.9.blocks.0.pre_norm.weight"] = np.zeros(3)
    source["head.fc.bias"] = np.zeros(CLASSES + 1)
    with pytest.raises(UserError) as caught:
        MAXXVIT.read(source, shapes_of(model))
    text = str(caught.value)
    assert len(caught.value.lines) == 3
    assert "conv_stem_2/kernel: stem.conv2.weight is missing" in text
    assert "stages.9.blocks.0.pre_norm.weight: in the checkpoint" in text
    assert "head.fc.bias has shape (6,); this model needs (5,)" in text


# Of timm 1.0.31's coatnet_0_224 to coatnet_4_224, coatnet_0_rw_224 and maxvit_tiny_tf_224 to maxvit_large_tf_224:
# sum(p.numel() for p in timm.create_model(name).parameters()).
COUNTS = {
    "coatnet-0": 25_036_820,
    "coatnet-1": 42_225_776,
    "coatnet-2": 74_684_744,
    "coatnet-3": 166_966_264,
    "coatnet-4": 275_425_288,
    "coatnet-0-rw": 27_435_562,
    "maxvit-t": 30_916_528,
    "maxvit-s": 68_927_956,
    "maxvit-b": 119_467_708,
    "maxvit-l": 211_785_560,
}
SLOW = ("coatnet-3", "coatnet-4", "maxvit-b", "maxvit-l")  # many layers to trace


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in COUNTS]
)
def test_presets_have_as_many_parameters_as_timms(name):
    params = shapes_of(build(preset(name)), 224)["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == COUNTS[name]
