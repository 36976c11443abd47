"""Published sizes, as tables of fields; those of models of text are in presets_text.py."""

from typing import Any

from jaxformer.errors import UserError
from jaxformer.models.presets_text import text_tables
from jaxformer.schema import did_you_mean

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

# name: (width, depth, token_mlp_dim, channel_mlp_dim, patch sizes). Tolstikhin et al. 2021, table 1.
MIXER_SIZES = {
    "s": (512, 8, 256, 2048, (16, 32)),
    "b": (768, 12, 384, 3072, (16, 32)),
    "l": (1024, 24, 512, 4096, (16, 32)),
}

# depth: (block, stage sizes). He et al. 2016a, table 1.
RESNET_SIZES = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}


def tables() -> dict[str, dict[str, Any]]:
    """Every preset's name and fields, "name" among them."""
    presets: dict[str, dict[str, Any]] = {}
    for size, (width, depth, mlp_dim, heads, patches) in VIT_SIZES.items():
        for patch in patches:
            presets[f"vit-{size}{patch}"] = {
                "name": "vit", "patch_size": patch, "width": width, "depth": depth, "mlp_dim": mlp_dim,
                "num_heads": heads,
            }  # fmt: skip
    for size, (width, depth, token_mlp_dim, channel_mlp_dim, patches) in MIXER_SIZES.items():
        for patch in patches:
            presets[f"mixer-{size}{patch}"] = {
                "name": "mlp_mixer", "patch_size": patch, "width": width, "depth": depth,
                "token_mlp_dim": token_mlp_dim, "channel_mlp_dim": channel_mlp_dim,
            }  # fmt: skip
    for layers, (block, stage_sizes) in RESNET_SIZES.items():
        presets[f"resnet-{layers}"] = {"name": "resnet", "block": block, "stage_sizes": stage_sizes}
        presets[f"resnetv2-{layers}"] = {**presets[f"resnet-{layers}"], "version": 2}
    return presets | text_tables()


PRESETS = tables()


def preset(name: str, **overrides: Any) -> dict[str, Any]:
    """The fields of a published size, for `c.model` of a config.

    Args:
      name: a key of PRESETS, such as "vit-b16" or "resnet-50".
      overrides: fields to set or to replace.

    Raises:
      UserError: there is no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"there is no preset {name!r}; {did_you_mean(name, PRESETS)}")
    return {**PRESETS[name], **overrides}
