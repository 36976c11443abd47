"""Folders as timm writes them for the Hub: read, they compute the same."""

import json

import jax
import numpy as np
import pytest
from helpers.image_parity import channels_first, randomised
from helpers.timm_reference import timm

import jaxformer as jf
from jaxformer.errors import UserError

TINY = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 3}
MODELS = {
    "vit_base_patch8_224": TINY,
    "deit_tiny_distilled_patch16_224": TINY,
    "vit_small_patch14_dinov2": {**TINY, "img_size": 28, "num_classes": 0},
    "vit_small_patch14_reg4_dinov2": {**TINY, "img_size": 28, "num_classes": 0},
    "resnet18": {"num_classes": 3},
    "convnext_tiny": {"depths": [1, 1, 2, 1], "dims": [8, 16, 32, 64], "num_classes": 3},
    "swin_tiny_patch4_window7_224": {
        "img_size": 56, "window_size": 7, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "num_classes": 3,
    },
}  # fmt: skip


def saved(name, arguments, folder):
    """A randomised model of timm in a folder."""
    package = timm()
    from timm.models._hub import save_for_hf

    model = randomised(package.create_model(name, **arguments))
    save_for_hf(model, folder, safe_serialization=True, model_args=arguments)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_of_timm_computes_the_same(name, tmp_path):
    import torch

    reference = saved(name, MODELS[name], tmp_path)
    found = jf.load_pretrained(tmp_path)
    side = found.model.image_size or MODELS[name].get("img_size", 64)
    image = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        expected = reference(channels_first(image)).numpy()
    outputs = jax.jit(found.model.apply)(found.variables, image)
    ours = outputs.logits if found.model.num_classes else outputs.features
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=3e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "change", [{"architecture": "vit_base_patch16_clip_224"}, {"model_args": {"fc_norm": True}}]
)
def test_what_no_model_here_does_is_refused_by_name(change, tmp_path):
    config = {"architecture": "resnet18", "num_classes": 3, "pretrained_cfg": {}, **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"no table for such models|no such model here"):
        jf.load_pretrained(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": ["resnet18"]},
        {"architecture": "resnet18", "model_args": 5},
        {"architecture": "resnet18", "model_args": [["layers", 2]]},
        {"architecture": "convnext_tiny", "model_args": {"dims": []}},
        {"architecture": "vit_tiny_patch16_224", "model_args": {"mlp_ratio": "four"}},
        {"architecture": "resnet18", "num_classes": "many"},
        {
            "model_type": "resnet",
            "embedding_size": "8",
            "hidden_sizes": 3,
            "depths": [1],
            "layer_type": "basic",
        },
        {"model_type": "swin", "mlp_ratio": None},
        {"model_type": "dinov2", "hidden_size": 16, "mlp_ratio": "2"},
        {"model_type": "detr", "backbone_config": 7},
    ],
)
def test_broken_configs_are_told_in_a_line(config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        _ = jf.load_pretrained(tmp_path).model
    assert len(caught.value.lines) <= 2
