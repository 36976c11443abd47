"""Our Swin with timm's weights gives timm's logits and gradients; the real ones have as many parameters."""

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

from jaxformer.errors import UserError
from jaxformer.weights.timm import SWIN

SIZE = 32
FIELDS = {"stage_sizes": (2, 2, 2), "num_heads": (1, 2, 4), "width": 8, "window": 4, "num_classes": 5}


@pytest.fixture(scope="module")
def reference():
    """Maps of 8, 4 and 2 places a side: four windows that shift, one, and one that is smaller."""
    timm()
    from timm.models.swin_transformer import SwinTransformer

    return randomised(
        SwinTransformer(
            img_size=SIZE, window_size=4, depths=(2, 2, 2), num_heads=(1, 2, 4), embed_dim=8, num_classes=5,
            drop_path_rate=0,
        )
    )  # fmt: skip


def adapted(tensors):
    """timm's tables of the last stage are of windows of 2x2; that is the middle of ours of 4x4."""
    tensors = dict(tensors)
    for name, tensor in tensors.items():
        if name.startswith("layers.2.") and name.endswith("bias_table"):
            whole = np.zeros((7, 7, tensor.shape[1]), np.float32)
            whole[2:5, 2:5] = tensor.reshape(3, 3, -1)
            tensors[name] = whole.reshape(49, -1)
    return tensors


def test_logits_and_gradients_are_those_of_timm(reference):
    check_same(build("swin", FIELDS), SWIN, reference, SIZE, adapted=adapted)


def test_maps_and_tokens_are_those_of_timm(reference):
    import torch

    model, image = build("swin", FIELDS), images(SIZE)
    with torch.no_grad():
        last, maps = reference.forward_intermediates(channels_first(image))
    variables = SWIN.read(adapted(tensors_of(reference)), shapes_of(model, SIZE))
    outputs = jax.jit(model.apply)(variables, image)
    for ours, theirs in zip(outputs.maps, maps, strict=True):
        theirs = theirs.numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
    last = last.flatten(1, 2).numpy()
    np.testing.assert_allclose(outputs.tokens, last, rtol=1e-4, atol=1e-5 * np.abs(last).max())


def test_what_does_not_fit_is_listed(reference):
    source = adapted(tensors_of(reference))
    del source["layers.1.downsample.norm.bias"]
    source["layers.0.blocks.7.norm1.bias"] = np.zeros(8, np.float32)
    source["layers.0.blocks.1.attn_mask"] = np.zeros((4, 16, 16), np.float32)  # in older files
    with pytest.raises(UserError) as caught:
        SWIN.read(source, shapes_of(build("swin", FIELDS), SIZE))
    text = str(caught.value)
    assert len(caught.value.lines) == 2
    assert "stage_2_block_0/norm_merge/bias: layers.1.downsample.norm.bias is missing" in text
    assert "layers.0.blocks.7.norm1.bias: in the checkpoint" in text


# Of timm 1.0.31's swin_tiny_patch4_window7_224 and so on: sum(p.numel() for p in timm.create_model(name).parameters()).
COUNTS = {"swin-t": 28_288_354, "swin-s": 49_606_258, "swin-b": 87_768_224, "swin-l": 196_532_476}


@pytest.mark.parametrize("name", COUNTS)
def test_presets_have_as_many_parameters_as_timms(name):
    assert count_of(name) == COUNTS[name]
