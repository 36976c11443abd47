"""Our ResNets with timm's weights give timm's logits and gradients: plain, with attention inside, BiT."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.image_parity import channels_first, images, randomised, shapes_of, tensors_of
from helpers.timm_reference import timm

from jaxformer.models.cnn_attention import (
    CBAM,
    BottleneckAttention,
    EfficientChannelAttention,
    Placement,
    SqueezeExcitation,
)
from jaxformer.models.resnet import ResNet
from jaxformer.weights.timm import RESNET

SIZE = 17


def their_resnet(block="Bottleneck", **kwargs):
    """A ResNet of timm with two stages and 7 classes."""
    timm()
    import torch
    from timm.models import resnet

    torch.manual_seed(0)
    model = resnet.ResNet(getattr(resnet, block), (1, 1), num_classes=7, channels=(64, 128), **kwargs)
    model.layer3, model.layer4 = torch.nn.Identity(), torch.nn.Identity()
    return model


def check_same(model, reference, size=SIZE, train=False):
    """Our logits are the reference's, and so are the gradients of all parameters, each as a whole.

    Rounding turns a few ReLUs, and so changes single numbers of a gradient by more than itself.
    """
    import torch

    source, shapes, image = tensors_of(reference), shapes_of(model, size), images(size)
    reference.train(train)
    expected = reference(channels_first(image))
    weights = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    torch.sum(expected * torch.from_numpy(weights)).backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in reference.named_parameters()}
    variables = RESNET.read(source, shapes)

    def loss(params):
        outputs, _ = model.apply({**variables, "params": params}, image, not train, mutable=["batch_stats"])
        return jnp.sum(outputs.logits * weights), outputs.logits

    found, logits = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    expected = expected.detach().numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    wanted = flatten_dict(RESNET.read({**source, **gradients}, shapes)["params"], sep="/")
    for path, of_ours in flatten_dict(found, sep="/").items():
        difference, norm = np.linalg.norm(of_ours - wanted[path]), np.linalg.norm(wanted[path])
        assert difference < 0.02 * norm, (path, difference, norm)


def ours(**fields):
    return ResNet(stage_sizes=(1, 1), num_classes=7, **fields)


@pytest.mark.parametrize("train", [False, True])
def test_resnet(train):
    check_same(ours(), randomised(their_resnet()), train=train)


def test_basic_blocks():
    check_same(ours(block="basic"), randomised(their_resnet("BasicBlock")))


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("se", SqueezeExcitation(reduction=8)),
        ("eca", EfficientChannelAttention()),
        ("cbam", CBAM(reduction=8, use_bias=False)),
    ],
)
def test_gates(name, module):
    timm()
    from timm.layers import get_attn

    kind = get_attn(name)
    layer = kind if name == "eca" else lambda channels, **kwargs: kind(channels, rd_ratio=1 / 8, **kwargs)
    reference = randomised(their_resnet(block_args={"attn_layer": layer}))
    check_same(ours(attention=(Placement(module),)), reference)


def test_botnet():
    """timm's `BottleneckAttn` in the place of the 3x3 in the second stage, which halves the map, 8x8."""
    timm()
    from timm.layers.bottleneck_attn import BottleneckAttn

    reference = their_resnet()
    reference.layer2[0].conv2 = BottleneckAttn(
        128, feat_size=(8, 8), stride=2, num_heads=4, scale_pos_embed=True
    )
    model = ours(attention=(Placement(BottleneckAttention(), stages=(2,)),))
    check_same(model, randomised(reference), 32)


def test_bit():
    timm()
    import torch
    from timm.layers import StdConv2d
    from timm.models.resnetv2 import ResNetV2

    torch.manual_seed(0)
    conv = partial(StdConv2d, eps=1e-8)  # as in resnetv2_50x1_bit
    reference = ResNetV2((1, 1), (256, 512), num_classes=7, stem_type="fixed", conv_layer=conv)
    model = ours(version=2, norm="group", stem="bit", standardize="timm")
    check_same(model, randomised(reference))
