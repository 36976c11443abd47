"""Which model a file of tensors is, by their names and shapes, where no config lies beside it."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jaxformer.errors import UserError
from jaxformer.models.presets import PRESETS, preset
from jaxformer.weights.augreg import AUGREG, POSITIONS, PREFIXES
from jaxformer.weights.convert import Family, Tensors
from jaxformer.weights.timm import EFFICIENTNET
from jaxformer.weights.transformers_image import DINOV2

Fields = dict[str, Any]
HEAD_DIM = 64  # of every DINOv2


@dataclass(frozen=True)
class Recognised:
    """A model in a file."""

    name: str
    """Our model, a key of MODELS."""
    fields: Fields
    """Its fields."""
    family: Family
    """How the tensors are read."""
    pixels: Mapping[str, Any] = field(default_factory=dict)
    """Mean, deviation and interpolation of the images that it was trained on (`Preprocessing`)."""


def recognise(source: str, tensors: Tensors) -> Recognised:
    """The model that tensors are of.

    Raises:
      UserError: none that is known here.
    """
    for marker, found in MARKS.items():
        if any(name.endswith(marker) for name in tensors):
            return found(tensors)
    known = "AugReg's ViTs, DINOv2, EfficientNet-Lite"
    raise UserError(f"{source}: its tensors are of no model that is known by their names; known are {known}")


def augreg(tensors: Tensors) -> Recognised:
    """A ViT of google-research/vision_transformer, plain or on a ResNet."""
    prefix = next((each for each in PREFIXES if any(name.startswith(each) for name in tensors)), "")
    shapes = {name.removeprefix(prefix): x.shape for name, x in tensors.items() if name.startswith(prefix)}
    block = "Transformer/encoderblock_"
    query = next(shape for name, shape in shapes.items() if name.endswith("query/kernel"))
    mlp = next(shape for name, shape in shapes.items() if name.endswith("Dense_0/kernel"))
    patch, *_, width = shapes["embedding/kernel"]
    stride = 1
    fields: Fields = {
        "patch_size": patch, "width": width, "num_heads": query[-2], "mlp_dim": mlp[-1],
        "depth": len({name.split("/")[1] for name in shapes if name.startswith(block)}),
        "pool": "cls" if "cls" in shapes else "average",
        "num_classes": shapes["head/bias"][0] if "head/bias" in shapes else 0,
        "representation": shapes["pre_logits/bias"][0] if "pre_logits/bias" in shapes else None,
    }  # fmt: skip
    if "conv_root/kernel" in shapes:
        units = {found[0] for name in shapes if (found := re.match(r"block(\d+)/unit\d+", name))}
        sizes = [sum(unit.startswith(f"block{i}/") for unit in units) for i in range(1, 5)]
        stages = tuple(size for size in sizes if size)
        fields["backbone"] = {**preset("r50-vit-b16")["backbone"], "stage_sizes": stages}
        stride = 4 * 2 ** max(0, len(stages) - 1)
    count = next(shapes[name][1] for name in POSITIONS if name in shapes)
    fields["image_size"] = (
        patch * stride * math.isqrt(count)
    )  # the square below it, if there is a class token
    return Recognised("vit", fields, AUGREG, {"interpolation": "bilinear"})


def dinov2(tensors: Tensors) -> Recognised:
    """A DINOv2 by transformers' names, perhaps within another model, whose other tensors are left unread."""
    token = next(name for name in tensors if name.endswith("embeddings.cls_token"))
    prefix = token.removesuffix("embeddings.cls_token")

    def alone(source: Tensors, shapes: Mapping) -> Tensors:
        return {name.removeprefix(prefix): x for name, x in source.items() if name.startswith(prefix)}

    shapes = {name: x.shape for name, x in alone(tensors, {}).items()}
    width, _, patch, _ = shapes["embeddings.patch_embeddings.projection.weight"]
    fields: Fields = {
        "patch_size": patch, "width": width, "num_heads": width // HEAD_DIM, "num_classes": 0, "layer_scale": 1.0,
        "mlp_dim": shapes["encoder.layer.0.mlp.fc1.bias"][0], "activation": "gelu_erf",
        "depth": sum(name.endswith("norm1.bias") for name in shapes),
        "registers": shapes.get("embeddings.register_tokens", (1, 0))[1],
        "image_size": patch * math.isqrt(shapes["embeddings.position_embeddings"][1] - 1),
    }  # fmt: skip
    pixels = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bicubic"}
    return Recognised("vit", fields, replace(DINOV2, prepare=alone), pixels)


def efficientnet(tensors: Tensors) -> Recognised:
    """An EfficientNet-Lite of lukemelas/EfficientNet-PyTorch and its like, converted from TensorFlow."""
    blocks = len({name.split(".")[1] for name in tensors if name.startswith("_blocks.")})
    last = tensors["_conv_head.weight"].shape[1]
    for name in PRESETS:
        if name.startswith("efficientnet-lite"):
            fields = preset(name)
            if sum(fields["stage_sizes"]) == blocks and fields["widths"][-1] == last:
                del fields["name"]
                fields["num_classes"] = len(tensors["_fc.bias"].shape) and tensors["_fc.bias"].shape[0]
                return Recognised("efficientnet", fields, EFFICIENTNET, {"interpolation": "bicubic"})
    raise UserError(
        f"an EfficientNet of {blocks} blocks that end with {last} channels: expected a Lite0 to Lite4"
    )


# The end of a tensor's name that only one kind of model has.
MARKS: dict[str, Callable[[Tensors], Recognised]] = {
    "Transformer/encoder_norm/scale": augreg,
    "encoder.layer.0.layer_scale1.lambda1": dinov2,
    "_conv_stem.weight": efficientnet,
}
