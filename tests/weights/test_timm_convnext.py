"""Our ConvNeXt with timm's weights gives timm's logits and gradients; the real ones have as many parameters."""

import jax
import numpy as np
import pytest
from helpers.image_parity import (
    channels_first,
    check_same,
    count_of,
    images,
    randomised,
    shapes_of,
    tensors_of,
)
from helpers.parity import build
from helpers.timm_reference import timm

from jaxformer.weights.timm import CONVNEXT

SIZE = 35  # the stem leaves three pixels out, the last stage's convolution has one place to look at
FIELDS = {"stage_sizes": (1, 2, 1, 1), "width": 8, "num_classes": 5}


@pytest.fixture(scope="module")
def reference():
    timm()
    from timm.models.convnext import ConvNeXt

    return randomised(ConvNeXt(depths=(1, 2, 1, 1), dims=(8, 16, 32, 64), num_classes=5))


def test_logits_and_gradients_are_those_of_timm(reference):
    check_same(build("convnext", FIELDS), CONVNEXT, reference, SIZE)


def test_maps_are_those_of_timm(reference):
    import torch

    model, image = build("convnext", FIELDS), images(SIZE)
    with torch.no_grad():
        maps = reference.forward_intermediates(channels_first(image), intermediates_only=True)
    variables = CONVNEXT.read(tensors_of(reference), shapes_of(model, SIZE))
    outputs = jax.jit(model.apply)(variables, image)
    for ours, theirs in zip(outputs.maps, maps[-4:], strict=True):
        theirs = theirs.numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


# Of timm 1.0.31's convnext_tiny and so on: sum(p.numel() for p in timm.create_model(name).parameters()).
COUNTS = {
    "convnext-t": 28_589_128,
    "convnext-s": 50_223_688,
    "convnext-b": 88_591_464,
    "convnext-l": 197_767_336,
    "convnext-xl": 350_196_968,
}


@pytest.mark.parametrize("name", COUNTS)
def test_presets_have_as_many_parameters_as_timms(name):
    assert count_of(name) == COUNTS[name]
