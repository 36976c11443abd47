"""timm's models by the name of their architecture: the fields of ours that computes the same, and their config.json.

A name has all sizes in it; "model_args" beside it has what was given to `timm.create_model`.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from jaxformer.config.schema import did_you_mean
from jaxformer.errors import UserError
from jaxformer.models.presets import preset
from jaxformer.weights import timm
from jaxformer.weights.convert import Family

Config = Mapping[str, Any]
Fields = dict[str, Any]
SIZES = {"tiny": "ti", "small": "s", "base": "b", "large": "l", "huge": "h"}
PATCHES = (("tiny", 16), ("small", 16), ("small", 32), ("base", 8), ("base", 16), ("base", 32), ("large", 14),
           ("large", 16), ("large", 32), ("huge", 14))  # fmt: skip
ERF = {"activation": "gelu_erf"}
HYBRIDS = {
    "tiny_r_s16_p8": "r-vit-ti16", "small_r26_s32": "r26-vit-s32", "base_r26_s32": "r26-vit-b32",
    "base_r50_s16": "r50-vit-b16", "large_r50_s32": "r50-vit-l32",
}  # fmt: skip
BIT = ("50x1", "50x3", "101x1", "101x3", "152x2", "152x4")
DINO = {"patch_size": 14, "image_size": 518, "layer_scale": 1e-5, "num_classes": 0}


def hybrid(name: str) -> Fields:
    """A ViT on a ResNet, whose kernels timm standardises in its own way."""
    fields = preset(name, **ERF)
    fields["backbone"] |= {"standardize": "timm", "norm_epsilon": 1e-5}
    return fields


@cache
def architectures() -> dict[str, tuple[Family, Fields]]:
    """The name of an architecture -> how its tensors are read, and the fields of ours with "name"."""
    vits: dict[str, Fields] = {}
    for side in (224, 384):
        sized = {**ERF, "image_size": side}
        vits |= {
            f"vit_{n}_patch{p}_{side}": preset(f"vit-{SIZES[n]}{p}", **sized)
            for n, p in PATCHES
            if not side % p
        }
        for size in ("tiny", "small", "base"):
            ours = f"deit-{SIZES[size]}16"
            vits[f"deit_{size}_patch16_{side}"] = preset(ours, image_size=side)
            vits[f"deit_{size}_distilled_patch16_{side}"] = preset(f"{ours}-distilled", image_size=side)
        vits |= {f"vit_{name}_{side}": {**hybrid(ours), "image_size": side} for name, ours in HYBRIDS.items()}
    for size in ("small", "base", "large"):
        fields = {**preset(f"vit-{SIZES[size]}16", **ERF), **DINO}
        vits[f"vit_{size}_patch14_dinov2"] = fields
        vits[f"vit_{size}_patch14_reg4_dinov2"] = {**fields, "registers": 4}
    resnets = {f"resnet{depth}": preset(f"resnet-{depth}") for depth in (18, 34, 50, 101, 152)}
    resnets["seresnet50"] = preset("se-resnet-50")
    resnets |= {f"resnetv2_{size}_bit": preset(f"bit-r{size}", standardize="timm") for size in BIT}
    small = {"tiny": "t", "small": "s", "base": "b", "large": "l", "xlarge": "xl"}
    convnexts = {f"convnext_{size}": preset(f"convnext-{n}") for size, n in small.items()}
    swins = {
        f"swin_{size}_patch4_window{window}_{side}": preset(f"swin-{small[size]}", window=window)
        for size, window, side in (
            ("tiny", 7, 224), ("small", 7, 224), ("base", 7, 224), ("large", 7, 224), ("base", 12, 384),
            ("large", 12, 384),
        )
    }  # fmt: skip
    mixed = {f"coatnet_{n}_224": preset(f"coatnet-{n}") for n in range(5)}
    mixed["coatnet_0_rw_224"] = preset("coatnet-0-rw")
    mixed |= {
        f"maxvit_{size}_tf_{side}": preset(f"maxvit-{small[size]}", window=side // 32)
        for size in ("tiny", "small", "base", "large")
        for side in (224, 384, 512)
    }
    lites: dict[str, Fields] = {}
    for n in range(5):
        lites[f"tf_efficientnet_lite{n}"] = preset(f"efficientnet-lite{n}")
        lites[f"efficientnet_lite{n}"] = preset(f"efficientnet-lite{n}", padding="even", norm_epsilon=1e-5)
    tables = (
        (lites, timm.EFFICIENTNET),
        (vits, timm.VIT),
        (resnets, timm.RESNET),
        (convnexts, timm.CONVNEXT),
        (swins, timm.SWIN),
        (mixed, timm.MAXXVIT),
    )
    return {name: (family, fields) for each, family in tables for name, fields in each.items()}


# Their arguments -> our fields, each of models that have such a field; None: it changes nothing here.
ARGUMENTS: dict[str, str | None] = {
    "img_size": "image_size", "patch_size": "patch_size", "embed_dim": "width", "depth": "depth",
    "num_heads": "num_heads", "init_values": "layer_scale", "reg_tokens": "registers", "depths": "stage_sizes",
    "layers": "stage_sizes", "dims": "width", "window_size": "window", "mlp_ratio": "mlp_dim",
    **dict.fromkeys(("num_classes", "global_pool", "in_chans", "drop_rate", "drop_path_rate", "proj_drop_rate",
                     "attn_drop_rate")),
}  # fmt: skip
ANY_SIZE = ("swin", "convnext", "resnet")  # models of ours that take images of any size


def timm_model_of(config: Config) -> tuple[Family, str, Fields]:
    """Our model for timm's.

    Args:
      config: their config.json, parsed.

    Returns:
      How its tensors are read, a key of MODELS, and the fields.

    Raises:
      UserError: there is no table for such models, or it was made with arguments that ours does not have.
    """
    name, known = config["architecture"], architectures()
    if not isinstance(name, str) or name not in known:
        raise UserError(f"architecture={name!r}: no table for such models; {did_you_mean(str(name), known)}")
    family, fields = known[name]
    given = config.get("model_args") or {}
    fields = {**fields, "num_classes": config.get("num_classes", 1000)}
    ours = fields.pop("name")
    pool = config.get("global_pool", "")
    if pool not in ("", "token" if ours == "vit" else "avg") or given.get("in_chans", 3) != 3:
        raise UserError(
            f"global_pool={pool!r}, in_chans={given.get('in_chans')}: there is no such model here"
        )
    for key, value in given.items():
        if key not in ARGUMENTS:
            raise UserError(
                f"model_args.{key}={value!r}: there is no such model here; expected it to be left out"
            )
        field = ARGUMENTS[key]
        if field is not None and not (key == "img_size" and ours in ANY_SIZE):
            fields[field] = value[0] if key in ("dims", "img_size") and isinstance(value, list) else value
    if ours == "vit" and {"embed_dim", "mlp_ratio"} & given.keys():
        fields["mlp_dim"] = int(given.get("mlp_ratio", 4) * fields["width"])
    return family, ours, fields
