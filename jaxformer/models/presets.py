"""Published sizes, as tables of fields; those of CNNs, hybrids and models of text in files of their own."""

from copy import deepcopy
from typing import Any

from jaxformer.config.schema import did_you_mean
from jaxformer.errors import UserError
from jaxformer.models.presets_cnn import cnn_tables
from jaxformer.models.presets_hybrid import hybrid_tables
from jaxformer.models.presets_text import text_tables

# name: (width, depth, mlp_dim, heads, patch sizes). Ti and S: Touvron et al. 2021 (DeiT), table 1. B, L and H:
# Dosovitskiy et al. 2021, table 1. g and G: Zhai et al. 2022, table 2.
VIT_SIZES = {
    "ti": (192, 12, 768, 3, (16,)),
    "s": (384, 12, 1536, 6, (16, 32)),
    "b": (768, 12, 3072, 12, (8, 16, 32)),
    "l": (1024, 24, 4096, 16, (14, 16, 32)),
    "h": (1280, 32, 5120, 16, (14,)),
    "g": (1408, 40, 6144, 16, (14,)),
    "G": (1664, 48, 8192, 16, (14,)),
}

# name: (stem's channels, its strides, width, depth, mlp_dim, heads). Xiao et al. 2021, the models
# ViT_C: at the cost of a ViT of one block more.
VIT_C_SIZES = {
    "1gf": ((24, 48, 96, 192), (2,), 192, 11, 576, 3),
    "4gf": ((48, 96, 192, 384), (2,), 384, 11, 1152, 6),
    "18gf": ((64, 128, 128, 256, 256, 512), (2, 2, 1, 2, 1, 2), 768, 11, 3072, 12),
    "36gf": ((64, 128, 128, 256, 256, 512), (2, 2, 1, 2, 1, 2), 1024, 13, 4096, 16),
}

# name: (the ResNet's blocks by stage, the ViT's size, patch size on the map). google-research/vision_transformer,
# configs/models.py; the figure behind the size is the effective patch, for R+Ti as its name there has it, but it is 32:
# a stem of stride 4 and patches of 8.
HYBRID_SIZES = {
    "r-vit-ti16": ((), "ti", 8),
    "r26-vit-s32": ((2, 2, 2, 2), "s", 1),
    "r26-vit-b32": ((2, 2, 2, 2), "b", 1),
    "r50-vit-b16": ((3, 4, 9), "b", 1),
    "r50-vit-l32": ((3, 4, 6, 3), "l", 1),
}

# name: (width, depth, token_mlp_dim, channel_mlp_dim, patch sizes). Tolstikhin et al. 2021, table 1.
MIXER_SIZES = {
    "s": (512, 8, 256, 2048, (16, 32)),
    "b": (768, 12, 384, 3072, (16, 32)),
    "l": (1024, 24, 512, 4096, (16, 32)),
}


# The ResNet in front of a hybrid's Transformer: google-research/vision_transformer, models_resnet.py.
HYBRID_RESNET = {
    "name": "resnet", "num_classes": 0, "norm": "group", "norm_epsilon": 1e-6, "padding": "same",
    "standardize": "vit_jax",
}  # fmt: skip


def vit(size: str, patch_size: int, **fields: Any) -> dict[str, Any]:
    """The fields of a ViT of one of VIT_SIZES."""
    width, depth, mlp_dim, heads, _ = VIT_SIZES[size]
    return {
        "name": "vit", "patch_size": patch_size, "width": width, "depth": depth, "mlp_dim": mlp_dim,
        "num_heads": heads, **fields,
    }  # fmt: skip


def tables() -> dict[str, dict[str, Any]]:
    """Every preset's name and fields, "name" among them."""
    presets: dict[str, dict[str, Any]] = {}
    for size, (*_, patches) in VIT_SIZES.items():
        for patch in patches:
            presets[f"vit-{size}{patch}"] = vit(size, patch)
    for size in ("ti", "s", "b"):  # Touvron et al. 2021 (DeiT), table 1; GELU as in PyTorch
        presets[f"deit-{size}16"] = vit(size, 16, activation="gelu_erf")
        presets[f"deit-{size}16-distilled"] = vit(size, 16, activation="gelu_erf", distillation_token=True)
    for size, (channels, strides, width, depth, mlp_dim, heads) in VIT_C_SIZES.items():
        stem = {"name": "conv_stem", "channels": channels, "strides": strides}
        presets[f"vit-c-{size}"] = {
            "name": "vit", "backbone": stem, "patch_size": 1, "width": width, "depth": depth, "mlp_dim": mlp_dim,
            "num_heads": heads,
        }  # fmt: skip
    for name, (stage_sizes, size, patch) in HYBRID_SIZES.items():
        presets[name] = vit(size, patch, backbone={**HYBRID_RESNET, "stage_sizes": stage_sizes})
    for size, (width, depth, token_mlp_dim, channel_mlp_dim, patches) in MIXER_SIZES.items():
        for patch in patches:
            presets[f"mixer-{size}{patch}"] = {
                "name": "mlp_mixer", "patch_size": patch, "width": width, "depth": depth,
                "token_mlp_dim": token_mlp_dim, "channel_mlp_dim": channel_mlp_dim,
            }  # fmt: skip
    return presets | cnn_tables() | hybrid_tables() | text_tables()


PRESETS = tables()


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
