"""The table of published models: every one can be described, and has as many parameters as its source says."""

import json
import math

import jax
import pytest

import jaxformer as jf
from jaxformer import cli
from jaxformer.weights.timm_config import architectures, timm_model_of
from jaxformer.weights.zoo import PUBLISHED

QUICK = (  # a small one of each kind; the others are slow
    "resnet18", "seresnet50", "resnetv2_50x1", "deit_tiny_patch16", "deit_tiny_distilled", "vit_tiny_r_", "swin_tiny",
    "convnext_tiny", "coatnet_0", "tf_efficientnet_lite0",
)  # fmt: skip
OF_TIMM = [
    pytest.param(each, id=name, marks=() if name.startswith(QUICK) else pytest.mark.slow)
    for each in PUBLISHED
    if each.size.endswith("pixels") and (name := each.source.removeprefix("timm/")) != each.source
]


def count(model, side):
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jax.numpy.zeros((1, side, side, 3))))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("each", OF_TIMM)
def test_parameters_are_as_many_as_timm_counts(each):
    _, name, fields = timm_model_of({"architecture": each.source.removeprefix("timm/").split(".")[0]})
    side = int(each.size.split()[0])
    if "image_size" in fields:
        fields["image_size"] = side
    assert count(jf.create_model(name, **fields), side) / 1e6 == pytest.approx(each.millions, abs=0.006)


OF_OTHERS = [
    pytest.param(each, id=each.source, marks=pytest.mark.slow if "512" in each.source else ())
    for each in PUBLISHED
    if each.by == "OpenCLIP" or each.source.startswith(("hf:nvidia/segformer", "hf:facebook/detr"))
]


@pytest.mark.parametrize("each", OF_OTHERS)
def test_presets_have_as_many_parameters_as_their_source_counts(each):
    """CLIP and SigLIP to what OpenCLIP rounds to, SegFormer and DETR to what the papers do (shapes alone)."""
    model = jf.create_model(each.preset)
    side = int(each.size.split()[0])
    texts = ()
    if model.kind == "two-towers":
        model = model.clone(image=model.image.clone(scan=True), text=model.text.clone(scan=True))
        texts = (jax.ShapeDtypeStruct((1, model.context_length), jax.numpy.int32),)
    image = jax.ShapeDtypeStruct((1, side, side, 3), jax.numpy.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), image, *texts)["params"]
    found = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) / 1e6
    exact = each.by == "OpenCLIP"
    close = {"abs": 0.006} if exact else {"rel": 0.015}
    assert found == pytest.approx(each.millions, **close)


@pytest.mark.slow
def test_every_architecture_makes_a_model():
    for name in architectures():
        _, ours, fields = timm_model_of({"architecture": name})
        jf.create_model(ours, **fields)


def test_the_models_are_listed_and_shown(capsys):
    found = jf.list_models("timm/vit_*", pretrained=True)
    assert "timm/vit_base_patch16_224.augreg_in21k_ft_in1k" in found
    assert jf.list_models("resnet-50", pretrained=True) == ["timm/resnet50.a1_in1k"]
    assert cli.main(["models", "timm/swin*"]) == 0
    shown = capsys.readouterr().out
    assert "timm/swin_tiny_patch4_window7_224.ms_in1k" in shown
    assert "81.4%" in shown
    assert cli.main(["models", "show", "timm/resnet50.a1_in1k"]) == 0
    assert json.loads(capsys.readouterr().out)["license"] == "apache-2.0"
    assert cli.main(["models", "nothing"]) == 2
    assert cli.main(["models", "show", "timm/resnet5"]) == 2
    assert "did you mean" in capsys.readouterr().err
