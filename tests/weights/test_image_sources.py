"""Image models of transformers: read from a folder they compute the same, and written they load there whole."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.image_parity import channels_first, randomised
from helpers.timm_reference import timm

import jaxformer as jf
from jaxformer.errors import UserError
from jaxformer.weights.export import write_pretrained

SIDE = 32
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
}
VIT = {**SMALL, "intermediate_size": 24, "num_labels": 3}
DINO = {**SMALL, "mlp_ratio": 2, "layerscale_value": 0.5}
RESNET = {"embedding_size": 8, "hidden_sizes": [32, 64], "depths": [1, 2], "num_labels": 3}
BASIC = {**RESNET, "hidden_sizes": [8, 16], "layer_type": "basic"}
BACKBONE = {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [16, 32], "depths": [1, 2],
            "out_features": ["stage2"]}  # fmt: skip
DETR = {
    "backbone_config": BACKBONE, "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 7,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "num_labels": 3, "use_timm_backbone": False,
}  # fmt: skip
SWIN = {
    "image_size": SIDE,
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [1, 2],
    "window_size": 4,
    "num_labels": 3,
}
SEGFORMER = {
    "depths": [1, 2, 1, 1], "hidden_sizes": [8, 16, 16, 24], "num_attention_heads": [1, 2, 2, 3],
    "sr_ratios": [4, 2, 2, 1], "decoder_hidden_size": 24, "num_labels": 3,
}  # fmt: skip
# Of transformers: a config, its settings, and the class of the model.
MODELS = {
    "vit": ("ViTConfig", VIT, "ViTForImageClassification"),
    "vit, no head": ("ViTConfig", VIT, "ViTModel"),
    "deit": ("DeiTConfig", VIT, "DeiTForImageClassificationWithTeacher"),
    "dinov2": ("Dinov2Config", DINO, "Dinov2Model"),
    "dinov2, gated": ("Dinov2Config", {**DINO, "mlp_ratio": 4, "use_swiglu_ffn": True}, "Dinov2Model"),
    "dinov2, registers": ("Dinov2WithRegistersConfig", DINO, "Dinov2WithRegistersModel"),
    "siglip": ("SiglipVisionConfig", {**SMALL, "intermediate_size": 24}, "SiglipVisionModel"),
    "clip": ("CLIPVisionConfig", {**SMALL, "intermediate_size": 24}, "CLIPVisionModel"),
    "resnet": ("ResNetConfig", RESNET, "ResNetForImageClassification"),
    "resnet, basic": ("ResNetConfig", BASIC, "ResNetForImageClassification"),
    "bit": ("BitConfig", {**RESNET, "num_groups": 4}, "BitForImageClassification"),
    "convnext": (
        "ConvNextConfig", {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2, "num_labels": 3},
        "ConvNextForImageClassification",
    ),
    "swin": ("SwinConfig", SWIN, "SwinForImageClassification"),
    "segformer": ("SegformerConfig", SEGFORMER, "SegformerForSemanticSegmentation"),
    "segformer, classes": ("SegformerConfig", SEGFORMER, "SegformerForImageClassification"),
    "segformer, no head": ("SegformerConfig", SEGFORMER, "SegformerModel"),
    "detr": ("DetrConfig", DETR, "DetrForObjectDetection"),
}  # fmt: skip


def made(name):
    """A randomised model of transformers."""
    timm()  # transformers' image models need torchvision to import
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    config, settings, cls = MODELS[name]
    torch.manual_seed(0)
    return randomised(getattr(transformers, cls)(getattr(transformers, config)(**settings)))


def picture():
    return np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)


def their_answers(model, image):
    """What a model of transformers gives: logits (and boxes), or what is pooled and the tokens."""
    import torch

    with torch.no_grad():
        found = model(channels_first(image))
    named = ("logits", "pred_boxes") if "logits" in found else ("pooler_output", "last_hidden_state")
    named = (
        named[:1] if model.config.model_type == "clip_vision_model" else named
    )  # its tokens are not normalised
    return [found[each].numpy() for each in named if found.get(each) is not None]


def our_answers(model, variables, image, theirs):
    """The same of ours."""
    found = jax.jit(model.apply)(variables, image)
    if model.kind == "detector":
        return [found.logits[-1], found.boxes[-1]]
    if model.num_classes:
        return [np.moveaxis(found.logits, -1, 1)]  # a segmenter's are of places
    if isinstance(model.num_heads, tuple):
        return [np.moveaxis(found.maps[-1], -1, 1)]
    if getattr(model, "embedding_norm", False):
        return [found.features]
    pooled = model.representation is not None or model.pool == "map"
    answers = [found.features, found.tokens] if len(theirs) == 2 else [found.tokens]
    if len(theirs) == 2 and not pooled:
        answers[0] = found.tokens[:, 0]
    return answers


def check(model, variables, reference):
    image = picture()
    expected = their_answers(reference, image)
    for ours, theirs in zip(our_answers(model, variables, image, expected), expected, strict=True):
        assert np.abs(theirs).max() > 0.1
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=3e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("name", MODELS)
def test_both_ways(name, tmp_path):
    reference = made(name)
    reference.save_pretrained(tmp_path / "theirs")
    found = jf.load_pretrained(tmp_path / "theirs")
    check(found.model, found.variables, reference)

    write_pretrained(found.model, found.described[0], found.variables, tmp_path / "ours")
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert written["architectures"] == [MODELS[name][2]]
    there, loading = type(reference).from_pretrained(tmp_path / "ours", output_loading_info=True)
    missing = {
        each for each in loading["missing_keys"] if not each.endswith(("num_batches_tracked", "mask_token"))
    }
    assert not any((missing, loading["unexpected_keys"], loading["mismatched_keys"]))
    check(found.model, found.variables, there.eval())
    again = jf.load_pretrained(tmp_path / "ours")
    assert again.model == found.model
    expected, back = flatten_dict(found.variables), flatten_dict(again.variables)
    assert expected.keys() == back.keys()
    assert all(np.array_equal(back[path], array) for path, array in expected.items())


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_several_files_and_bfloat16(name, tmp_path):
    import torch

    reference = made(name).to(torch.bfloat16)
    reference.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    found = jf.load_pretrained(tmp_path)
    assert {leaf.dtype for leaf in jax.tree.leaves(found.variables)} == {np.dtype(np.float32)}
    tensors = {np.asarray(each).dtype for each in found.tensors.values() if each.ndim}
    assert tensors == {np.dtype(ml_dtypes.bfloat16)}
    check(found.model, found.variables, reference.float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architectures": ["ViTForMaskedImageModeling"]},
            "no such model here; there are: ViTForImageClassification",
        ),
        ({"qkv_bias": False}, "qkv_bias=False: there is no such model here"),
        ({"image_size": [32, 16]}, r"image_size=\[32, 16\]: there is no such model here; expected a square"),
        ({"hidden_act": "mish"}, "the activation 'mish' is not known"),
        ({"hidden_size": None}, "width"),
        (
            {"model_type": "beit"},
            "model_type='beit': no table for such checkpoints",
        ),
    ],
)
def test_what_no_model_here_does_is_refused_by_name(change, message, tmp_path):
    made("vit").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError, match=message):
        _ = jf.load_pretrained(tmp_path).model
