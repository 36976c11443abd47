"""Published sizes, as tables of fields: those of image models here, of models of text in `presets_text.py`, of two
towers in `presets_pairs.py`."""

import math
from copy import deepcopy
from typing import Any

from jaxformer.config.schema import did_you_mean
from jaxformer.errors import UserError
from jaxformer.models.presets_pairs import PAIR_PRESETS
from jaxformer.models.presets_text import TEXT_PRESETS, table

# Ti and S: Touvron et al. 2021 (DeiT), table 1. B, L and H: Dosovitskiy et al. 2021, table 1. g and G: Zhai et al.
# 2022, table 2.
VIT_SIZES = {
    "vit": "width depth mlp_dim num_heads",
    "ti": (192, 12, 768, 3),
    "s": (384, 12, 1536, 6),
    "b": (768, 12, 3072, 12),
    "l": (1024, 24, 4096, 16),
    "h": (1280, 32, 5120, 16),
    "g": (1408, 40, 6144, 16),
    "G": (1664, 48, 8192, 16),
}
VIT_PATCHES = {
    "ti": [16],
    "s": [16, 32],
    "b": [8, 16, 32],
    "l": [14, 16, 32],
    "h": [14],
    "g": [14],
    "G": [14],
}
VITS = table(VIT_SIZES)
VIT = {f"vit-{n}{size}": VITS[n] | {"patch_size": size} for n, sizes in VIT_PATCHES.items() for size in sizes}
# Touvron et al. 2021 (DeiT), table 1; the GELU is that of PyTorch.
DEIT = {f"deit-{n}16": VIT[f"vit-{n}16"] | {"activation": "gelu_erf"} for n in ("ti", "s", "b")}
DISTILLED = {f"{name}-distilled": fields | {"distillation_token": True} for name, fields in DEIT.items()}

# Xiao et al. 2021, the models ViT_C: each costs as much as a ViT of one block more.
WIDE = {"channels": (64, 128, 128, 256, 256, 512), "strides": (2, 2, 1, 2, 1, 2)}
VIT_C_SIZES = {
    "vit": "backbone width depth mlp_dim num_heads",
    "vit-c-1gf": ({"name": "conv_stem", "channels": (24, 48, 96, 192), "strides": (2,)}, 192, 11, 576, 3),
    "vit-c-4gf": ({"name": "conv_stem", "channels": (48, 96, 192, 384), "strides": (2,)}, 384, 11, 1152, 6),
    "vit-c-18gf": ({"name": "conv_stem", **WIDE}, 768, 11, 3072, 12),
    "vit-c-36gf": ({"name": "conv_stem", **WIDE}, 1024, 13, 4096, 16),
}
# google-research/vision_transformer, configs/models.py and models_resnet.py: the ResNet's blocks by stage, the ViT's
# size, and its patches on the map. The number at the end of a name is the effective patch. R+Ti has 16 in its name
# there, but its effective patch is 32: a stem of stride 4 and patches of 8.
HYBRID_SIZES = {
    "r-vit-ti16": ((), "ti", 8),
    "r26-vit-s32": ((2, 2, 2, 2), "s", 1),
    "r26-vit-b32": ((2, 2, 2, 2), "b", 1),
    "r50-vit-b16": ((3, 4, 9), "b", 1),
    "r50-vit-l32": ((3, 4, 6, 3), "l", 1),
}
HYBRID_NORM = {"norm": "group", "norm_epsilon": 1e-6, "padding": "same", "standardize": "vit_jax"}
HYBRID_RESNET = {"name": "resnet", "num_classes": 0, **HYBRID_NORM}
HYBRIDS = {
    name: VITS[size] | {"patch_size": patch, "backbone": HYBRID_RESNET | {"stage_sizes": stage_sizes}}
    for name, (stage_sizes, size, patch) in HYBRID_SIZES.items()
}
# Tolstikhin et al. 2021, table 1.
MIXER_SIZES = {
    "mlp_mixer": "patch_size width depth token_mlp_dim channel_mlp_dim",
    "mixer-s16": (16, 512, 8, 256, 2048),
    "mixer-s32": (32, 512, 8, 256, 2048),
    "mixer-b16": (16, 768, 12, 384, 3072),
    "mixer-b32": (32, 768, 12, 384, 3072),
    "mixer-l16": (16, 1024, 24, 512, 4096),
    "mixer-l32": (32, 1024, 24, 512, 4096),
}

# He et al. 2016a, table 1.
RESNET_SIZES = {
    "resnet": "block stage_sizes",
    "resnet-18": ("basic", (2, 2, 2, 2)),
    "resnet-34": ("basic", (3, 4, 6, 3)),
    "resnet-50": ("bottleneck", (3, 4, 6, 3)),
    "resnet-101": ("bottleneck", (3, 4, 23, 3)),
    "resnet-152": ("bottleneck", (3, 8, 36, 3)),
}
RESNET = table(RESNET_SIZES)
RESNET_V2 = {f"resnetv2-{name[7:]}": fields | {"version": 2} for name, fields in RESNET.items()}
# Kolesnikov et al. 2020 (Big Transfer), section 3: the depth, and how many times as wide.
BIT_SIZES = ((50, 1), (50, 3), (101, 1), (101, 3), (152, 2), (152, 4))
BIT_FIELDS = {"version": 2, "norm": "group", "standardize": "bit", "stem": "bit"}
BIT = {f"bit-r{n}x{k}": RESNET[f"resnet-{n}"] | {"width": 64 * k, **BIT_FIELDS} for n, k in BIT_SIZES}
# The attentions of a ResNet-50. SE: Hu et al. 2018, table 1. ECA: Wang et al. 2020, section 4.1. CBAM: Woo et al. 2018,
# section 4.2. Non-local: Wang et al. 2018, section 4.1, after every other block of the two middle stages, five in all.
# BoTNet: Srinivas et al. 2021, table 1, in all blocks of the last stage.
NON_LOCAL = {"module": {"name": "non_local"}}
ATTENTIVE: dict[str, tuple[dict[str, Any], ...]] = {
    "se-resnet-50": ({"module": {"name": "se"}},),
    "eca-resnet-50": ({"module": {"name": "eca"}},),
    "cbam-resnet-50": ({"module": {"name": "cbam"}},),
    "nonlocal-resnet-50": (
        {**NON_LOCAL, "stages": (2,), "blocks": (1, 3)},
        {**NON_LOCAL, "stages": (3,), "blocks": (1, 3, 5)},
    ),
    "botnet-50": ({"module": {"name": "botnet"}, "stages": (4,)},),
}

# Dai et al. 2021, table 3, which counts the stem as S0, and table 2 for the parameters at 224 pixels in millions, here
# in brackets as they are with a tanh layer before the head, as in google-research/maxvit: 0: 25 (25.0); 1: 42 (42.2);
# 2: 75 (74.7); 3: 168 (167.0); 4: 275 (275.4).
COATNET_SIZES = {
    "coatnet": "stage_sizes widths stem_widths representation",
    "coatnet-0": ((2, 3, 5, 2), (96, 192, 384, 768), (64, 64), 768),
    "coatnet-1": ((2, 6, 14, 2), (96, 192, 384, 768), (64, 64), 768),
    "coatnet-2": ((2, 6, 14, 2), (128, 256, 512, 1024), (128, 128), 1024),
    "coatnet-3": ((2, 6, 14, 2), (192, 384, 768, 1536), (192, 192), 1536),
    "coatnet-4": ((2, 12, 28, 2), (192, 384, 768, 1536), (192, 192), 1536),
}
# timm's own form of CoAtNet-0, of which it has weights.
RW_MBCONV = {"expand": "in", "stride_at": "pool", "activation": "silu", "first_activation": True}
RW_SQUEEZE = {"squeeze_activation": "relu", "squeeze_early": True, "use_bias": False}
COATNET_RW_SIZES = {
    "coatnet": "stage_sizes stem_widths representation attention_width shortcut_bias mbconv",
    "coatnet-0-rw": ((2, 3, 7, 2), (32, 64), None, "in", False, {**RW_MBCONV, **RW_SQUEEZE}),
}
# Tu et al. 2022, table 1; parameters at 224 pixels in millions, in brackets as they are here: T 31 (30.9); S 69 (68.9);
# B 119 (119.5); L 212 (211.8).
MAXVIT_SIZES = {
    "maxvit": "stage_sizes widths stem_widths representation",
    "maxvit-t": ((2, 2, 5, 2), (64, 128, 256, 512), (64, 64), 512),
    "maxvit-s": ((2, 2, 5, 2), (96, 192, 384, 768), (64, 64), 768),
    "maxvit-b": ((2, 6, 14, 2), (96, 192, 384, 768), (64, 64), 768),
    "maxvit-l": ((2, 6, 14, 2), (128, 256, 512, 1024), (128, 128), 1024),
}
# Wu et al. 2021, table 2.
CVT_SIZES = {
    "cvt": "stage_sizes widths num_heads",
    "cvt-13": ((1, 2, 10), (64, 192, 384), (1, 3, 6)),
    "cvt-21": ((1, 4, 16), (64, 192, 384), (1, 3, 6)),
    "cvt-w24": ((2, 2, 20), (192, 768, 1024), (3, 12, 16)),
}
# Xie et al. 2021, table 7.
MIT_SIZES = {
    "mit": "stage_sizes widths",
    "mit-b0": ((2, 2, 2, 2), (32, 64, 160, 256)),
    "mit-b1": ((2, 2, 2, 2), (64, 128, 320, 512)),
    "mit-b2": ((3, 4, 6, 3), (64, 128, 320, 512)),
    "mit-b3": ((3, 4, 18, 3), (64, 128, 320, 512)),
    "mit-b4": ((3, 8, 27, 3), (64, 128, 320, 512)),
    "mit-b5": ((3, 6, 40, 3), (64, 128, 320, 512)),
}
# SegFormer's head is 256 wide for B0 and B1 and 768 above (the authors' configs); 150 classes are ADE20K's.
SEGFORMER = {
    f"segformer-{name[4:]}": {
        "name": "segmenter",
        "backbone": {**fields, "num_classes": 0},
        "decoder": {"name": "mlp", "width": 256 if name in ("mit-b0", "mit-b1") else 768},
        "num_classes": 150,
    }
    for name, fields in table(MIT_SIZES).items()
}
# Hassani et al. 2021, table 1 and their code (SHI-Labs/Compact-Transformers). A name has the number of layers, the
# size and the number of the convolutions, and the size of the images.
CCT_SIZES = {
    "cct": "depth kernel_size stride conv_layers image_size num_classes width num_heads mlp_dim",
    "cct-2-3x2-32": (2, 3, 1, 2, 32, 10, 128, 2, 128),
    "cct-4-3x2-32": (4, 3, 1, 2, 32, 10, 128, 2, 128),
    "cct-6-3x1-32": (6, 3, 1, 1, 32, 10, 256, 4, 512),
    "cct-6-3x2-32": (6, 3, 1, 2, 32, 10, 256, 4, 512),
    "cct-7-3x1-32": (7, 3, 1, 1, 32, 10, 256, 4, 512),
    "cct-7-3x2-32": (7, 3, 1, 2, 32, 10, 256, 4, 512),
    "cct-7-7x2-224": (7, 7, 2, 2, 224, 102, 256, 4, 512),
    "cct-14-7x2-224": (14, 7, 2, 2, 224, 1000, 384, 6, 1152),
    "cct-14-7x2-384": (14, 7, 2, 2, 384, 1000, 384, 6, 1152),
}
# Liu et al. 2021, section 3.3, for windows of 7.
SWIN_SIZES = {
    "swin": "stage_sizes width num_heads",
    "swin-t": ((2, 2, 6, 2), 96, (3, 6, 12, 24)),
    "swin-s": ((2, 2, 18, 2), 96, (3, 6, 12, 24)),
    "swin-b": ((2, 2, 18, 2), 128, (4, 8, 16, 32)),
    "swin-l": ((2, 2, 18, 2), 192, (6, 12, 24, 48)),
}
# Liu et al. 2022, section 3.
CONVNEXT_SIZES = {
    "convnext": "stage_sizes width",
    "convnext-t": ((3, 3, 9, 3), 96),
    "convnext-s": ((3, 3, 27, 3), 96),
    "convnext-b": ((3, 3, 27, 3), 128),
    "convnext-l": ((3, 3, 27, 3), 192),
    "convnext-xl": ((3, 3, 27, 3), 256),
}

# efficientnet/lite of tensorflow/tpu: how many times as wide and as deep as Lite0; the first and the last stage are not
# deeper. Parameters in millions by its README: 4.7, 5.4, 6.1, 8.2, 13.0.
LITE = {
    "lite0": (1.0, 1.0),
    "lite1": (1.0, 1.1),
    "lite2": (1.1, 1.2),
    "lite3": (1.2, 1.4),
    "lite4": (1.4, 1.8),
}


def lite(wide: float, deep: float) -> dict[str, Any]:
    """The fields of an EfficientNet-Lite; widths are multiples of 8 that lose less than a tenth."""

    def width(base: int) -> int:
        near = max(8, int(base * wide + 4) // 8 * 8)
        return near + 8 if near < 0.9 * base * wide else near

    inner = [math.ceil(size * deep) for size in (2, 2, 3, 3, 4)]
    widths = tuple(map(width, (16, 24, 40, 80, 112, 192, 320)))
    return {"name": "efficientnet", "stage_sizes": (1, *inner, 1), "widths": widths}


# Carion et al. 2020, table 1, for COCO's 91 class ids.
DETR_SIZES = {
    "detr": "backbone",
    "detr-r50": (RESNET["resnet-50"] | {"num_classes": 0},),
    "detr-r101": (RESNET["resnet-101"] | {"num_classes": 0},),
}
# Strudel et al. 2021, table 1 and section 4.1: the ViT's depth, the image size, and the tokens of both parts. The ViTs
# are AugReg's, the mask transformer has two layers (section 4.2), and ADE20K has 150 classes.
SEGMENTER_SIZES = {
    "ti": (12, 512, {"width": 192, "num_heads": 3}),
    "s": (12, 512, {"width": 384, "num_heads": 6}),
    "b": (12, 512, {"width": 768, "num_heads": 12}),
    "l": (24, 640, {"width": 1024, "num_heads": 16}),
}
SEGMENTER = {
    f"segmenter-{size}16": {
        "name": "segmenter",
        "backbone": {"name": "vit", "num_classes": 0, "image_size": side, "depth": depth, **tokens},
        "decoder": {"name": "mask_transformer", **tokens},
        "num_classes": 150,
        "window": (side, side),
    }
    for size, (depth, side, tokens) in SEGMENTER_SIZES.items()
}

PRESETS: dict[str, dict[str, Any]] = {
    **{**VIT, **DEIT, **DISTILLED, **table(VIT_C_SIZES, patch_size=1), **HYBRIDS, **table(MIXER_SIZES)},
    **{**RESNET, **RESNET_V2, **BIT},
    **{name: RESNET["resnet-50"] | {"attention": attention} for name, attention in ATTENTIVE.items()},
    **{**table(COATNET_SIZES), **table(COATNET_RW_SIZES), **table(MAXVIT_SIZES), **table(CVT_SIZES)},
    **{**table(CCT_SIZES), **table(MIT_SIZES), **table(SWIN_SIZES), **table(CONVNEXT_SIZES)},
    **{f"efficientnet-{name}": lite(*scales) for name, scales in LITE.items()},
    **{**table(DETR_SIZES, num_classes=91), **SEGMENTER, **SEGFORMER, **TEXT_PRESETS, **PAIR_PRESETS},
}


def preset(name: str, /, **overrides: Any) -> dict[str, Any]:
    """The fields of a published size, for `c.model` of a config.

    Args:
      name: a key of PRESETS, such as "vit-b16" or "resnet-50".
      overrides: fields to set or to replace.

    Raises:
      UserError: there is no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"there is no preset {name!r}; {did_you_mean(name, PRESETS)}")
    return {**deepcopy(PRESETS[name]), **overrides}
