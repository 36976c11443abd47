"""Grad-CAM against PyTorch's gradients at the same place of the same network."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers.image_parity import channels_first, images, randomised, shapes_of, tensors_of
from helpers.timm_reference import timm
from test_timm_resnet import SIZE, ours, their_resnet
from test_timm_vit import FIELDS, THEIRS
from test_timm_vit import SIZE as VIT_SIZE

from jaxformer.inference.attention_layers import calls_of
from jaxformer.inference.grad_cam import find_target, with_activation
from jaxformer.models.vit import ViT
from jaxformer.weights.timm import RESNET, VIT

CLASS = 3


def theirs(reference, layer, image):
    """ReLU of the sum of channels, each weighted by its gradient's mean over places: PyTorch's, and the logits.

    Tokens [1, T, C] are weighted by the mean over all but the first, the class token.
    """
    kept = []
    handle = layer.register_forward_hook(lambda module, args, output: kept.append(output))
    logits = reference(channels_first(image))
    handle.remove()
    import torch

    (gradient,) = torch.autograd.grad(logits[0, CLASS], kept[0])
    activation, gradient = kept[0][0].detach(), gradient[0]
    if activation.ndim == 2:  # [T, C] as [C, h, w]
        side = round((len(activation) - 1) ** 0.5)
        activation, gradient = (x[1:].T.reshape(-1, side, side) for x in (activation, gradient))
    weights = gradient.mean(dim=(1, 2))
    cam = (weights[:, None, None] * activation).sum(dim=0).relu()
    return cam.numpy(), logits.detach().numpy()


def check_same(model, variables, reference, layer, size):
    image = images(size, batch=1)
    expected, expected_logits = theirs(reference, layer, image)

    def run():
        return model.apply(variables, image)

    target = find_target(model, calls_of(run)[0])
    outputs, found = jax.jit(lambda: with_activation(target, run, lambda outputs: outputs.logits[0, CLASS]))()
    np.testing.assert_allclose(
        outputs.logits, expected_logits, rtol=1e-4, atol=1e-5 * np.abs(expected_logits).max()
    )
    assert expected.max() > 0
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_resnet():
    reference = randomised(their_resnet())
    model = ours()
    variables = RESNET.read(tensors_of(reference), shapes_of(model, SIZE))
    check_same(model, variables, reference, reference.layer2, SIZE)


def test_vit_whose_class_token_decides():
    timm()
    import torch
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    reference = randomised(VisionTransformer(**THEIRS))
    model = ViT(**FIELDS)
    variables = VIT.read(tensors_of(reference), shapes_of(model, VIT_SIZE))
    check_same(model, variables, reference, reference.blocks[-1].norm1, VIT_SIZE)
