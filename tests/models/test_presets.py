"""Every preset has the published number of parameters (1000 classes, 224 pixels; shapes alone are computed)."""

import math

import jax
import jax.numpy as jnp
import pytest

from jaxformer.config.schema import load, resolve
from jaxformer.errors import UserError
from jaxformer.models import MODELS
from jaxformer.models.presets import PRESETS, preset

# Of pretrained models' weights: whole numbers are exact.
EXACT = {
    # timm: vit_tiny_patch16_224, vit_small_patch16_224 (and DeiT, Touvron et al. 2021)
    "vit-ti16": 5_717_416,
    "vit-s16": 22_050_664,
    # torchvision: vit_b_16, vit_b_32, vit_l_16, vit_l_32, vit_h_14 (num_params in their weights' meta)
    "vit-b16": 86_567_656,
    "vit-b32": 88_224_232,
    "vit-l16": 304_326_632,
    "vit-l32": 306_535_400,
    "vit-h14": 632_045_800,
    # vit_jax's own tests (models_test.py of google-research/vision_transformer)
    "r-vit-ti16": 6_337_704,
    "r26-vit-s32": 36_431_912,
    "r26-vit-b32": 101_383_976,
    "r50-vit-b16": 98_659_112,
    "r50-vit-l32": 328_994_856,
    # torchvision: resnet18 ... resnet152
    "resnet-18": 11_689_512,
    "resnet-34": 21_797_672,
    "resnet-50": 25_557_032,
    "resnet-101": 44_549_160,
    "resnet-152": 60_192_808,
}
# timm's results tables (results-imagenet.csv, param_count), in millions and to as many digits as stand here.
MILLIONS = {
    "vit-s32": "22.88",
    "vit-b8": "86.58",
    "vit-l14": "304.20",
    "vit-g14": "1012.6",
    "vit-G14": "1844.4",
    "deit-ti16": "5.72",
    "deit-s16": "22.05",
    "deit-b16": "86.57",
    "deit-ti16-distilled": "5.91",
    "deit-s16-distilled": "22.44",
    "deit-b16-distilled": "87.34",
    # Xiao et al. 2021
    "vit-c-1gf": "4.6",
    "vit-c-4gf": "17.8",
    "vit-c-18gf": "81.6",
    "vit-c-36gf": "167.8",
    "mixer-s16": "18.53",
    "mixer-s32": "19.10",
    "mixer-b16": "59.88",
    "mixer-b32": "60.29",
    "mixer-l16": "208.20",
    "mixer-l32": "206.94",
    "resnetv2-18": "11.69",
    "resnetv2-34": "21.80",
    "resnetv2-50": "25.55",
    "resnetv2-101": "44.54",
    "resnetv2-152": "60.19",
}


def count_parameters(name, **overrides):
    fields, errors = preset(name, **overrides), []
    model = resolve(load(MODELS[fields.pop("name")]), fields, "model", errors)
    assert not errors, errors
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def test_no_preset_is_left_out():
    tokens = {name for name, fields in PRESETS.items() if fields["name"] in ("vit", "mlp_mixer")}
    assert tokens <= set(EXACT) | set(MILLIONS)


@pytest.mark.parametrize("name", [*EXACT, *MILLIONS])
def test_number_of_parameters(name):
    scan = {"scan": True} if PRESETS[name]["name"] == "vit" else {}  # the same parameters, traced once
    count = count_parameters(name, **scan)
    if name in EXACT:
        assert count == EXACT[name]
    else:
        digits = len(MILLIONS[name].split(".")[1])
        assert f"{count / 1e6:.{digits}f}" == MILLIONS[name]


def test_unrolled_layers_have_the_same_number():
    assert count_parameters("vit-ti16") == EXACT["vit-ti16"]


def test_fields_are_replaced_and_the_table_is_not():
    assert preset("vit-b16", num_classes=10) == {**PRESETS["vit-b16"], "num_classes": 10}
    assert "num_classes" not in PRESETS["vit-b16"]
    preset("vit-c-1gf")["backbone"]["channels"] = ()
    assert preset("vit-c-1gf")["backbone"]["channels"] == (24, 48, 96, 192)


def test_a_misspelt_preset_names_the_nearest():
    with pytest.raises(UserError, match="vit-b16"):
        preset("vit-b-16")
