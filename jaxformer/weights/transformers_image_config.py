"""Image models of Hugging Face transformers: the fields of ours that computes the same, and their config.json of ours.

A `Kind` for each "model_type", read and written: most fields only have another name. What is written is read again
(`transformers_written.config_of`), so that what theirs cannot express is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxformer.errors import UserError
from jaxformer.models.mit import MiT
from jaxformer.models.presets import preset
from jaxformer.models.segmentation_decoders import AllMLP
from jaxformer.weights import transformers_image as tables
from jaxformer.weights.convert import Family
from jaxformer.weights.transformers_values import THEIRS, activation

Config = Mapping[str, Any]
Fields = dict[str, Any]
HEAD, NO_HEAD = "ForImageClassification", "Model"
EXPANSION = 4  # of a bottleneck block


def nothing(_: Any) -> Fields:
    """No further fields."""
    return {}


@dataclass(frozen=True)
class Kind:
    """A kind of model of theirs."""

    family: Family
    """The names of its tensors."""
    name: str
    """Our model, a key of MODELS."""
    classes: tuple[str, str]
    """Their classes with a head and without one; "" where ours has no such model."""
    same: Mapping[str, str]
    """Our fields -> theirs, of equal value."""
    fixed: Fields = field(default_factory=dict)
    """Fields of ours that have one value in all of theirs."""
    needs: Config = field(default_factory=dict)
    """Fields of theirs that have one value in all of ours."""
    derived: Callable[[Config], Fields] = nothing
    """Further fields of ours, by their config."""
    written: Callable[[Any], Fields] = nothing
    """Further fields of theirs, by our model."""

    def fields(self, config: Config) -> Fields:
        """The fields of our model.

        Raises:
          UserError: there is no such head, or a value is not one of ours.
          KeyError: a field is missing.
        """
        given = (config.get("architectures") or [self.classes[1] or self.classes[0]])[0]
        if given not in filter(None, self.classes):
            there = ", ".join(filter(None, self.classes))
            raise UserError(f"architectures={given!r}: no such model here; there are: {there}")
        found: Fields = {
            ours: activation(config[theirs]) if ours == "activation" else plain(theirs, config[theirs])
            for ours, theirs in self.same.items()
        }
        classes = len(config.get("id2label") or (0, 1)) if given == self.classes[0] else 0
        return {"num_classes": classes, **found, **self.fixed, **self.derived(config)}

    def config_of(self, model: Any, classes: tuple[str, ...]) -> dict[str, Any]:
        """Their config.json of our model; see `transformers_written.config_of`."""
        headed = bool(model.num_classes)
        if not self.classes[not headed]:
            raise UserError(
                f"model.num_classes={model.num_classes}: no class of transformers' computes the same"
            )
        config = {theirs: listed(vars(model)[ours]) for ours, theirs in self.same.items()}
        if "activation" in self.same:
            config[self.same["activation"]] = THEIRS.get(model.activation, model.activation)
        if headed:
            names = classes or [f"LABEL_{i}" for i in range(model.num_classes)]
            labels = {name: i for i, name in enumerate(names)}
            config |= {"id2label": dict(enumerate(names)), "label2id": labels}
        given = {key: value for key, value in self.needs.items() if value is not None}
        return {"architectures": [self.classes[not headed]], **config, **given, **self.written(model)}


def plain(name: str, value: Any) -> Any:
    """A value of theirs as ours: one number for the two sides of a square.

    Raises:
      UserError: the sides differ.
    """
    if name not in ("image_size", "patch_size") or not isinstance(value, (list, tuple)):
        return value
    if len({*value}) != 1:
        raise UserError(f"{name}={list(value)}: there is no such model here; expected a square")
    return value[0]


def listed(value: Any) -> Any:
    """A value of ours as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


PLAIN = {
    "image_size": "image_size", "patch_size": "patch_size", "width": "hidden_size", "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads", "norm_epsilon": "layer_norm_eps", "activation": "hidden_act",
}  # fmt: skip
DROPOUT = {"dropout": "hidden_dropout_prob", "attention_dropout": "attention_probs_dropout_prob"}
COLOURS: Config = {"num_channels": 3}
BIASED: Config = {**COLOURS, "qkv_bias": True}


def hidden(model: Any) -> Fields:
    """The width of the MLPs."""
    return {"intermediate_size": model.mlp_dim or 4 * model.width}


def pooled(config: Config) -> Fields:
    """The layer after pooling of a ViTModel."""
    headless = (config.get("architectures") or ["ViTModel"])[0] == "ViTModel"
    return {
        "representation": (config.get("pooler_output_size") or config["hidden_size"]) if headless else None
    }


def pooling(model: Any) -> Fields:
    """The same, written."""
    return {**hidden(model), "pooler_output_size": model.representation or model.width, "pooler_act": "tanh"}


def dino(config: Config) -> Fields:
    """The MLPs of a DINOv2."""
    wide = int(config["hidden_size"] * config["mlp_ratio"])
    gate = config.get("use_swiglu_ffn", False)
    fields: Fields = {"mlp_dim": (int(wide * 2 / 3) + 7) // 8 * 8 if gate else wide}
    if gate:
        fields["activation"] = "swiglu"
    return fields


def dino_written(model: Any) -> Fields:
    """The same, written."""
    gate = model.activation == "swiglu"
    ratio = 4 if gate else (model.mlp_dim or 4 * model.width) // model.width
    return {
        "mlp_ratio": ratio,
        "use_swiglu_ffn": gate,
        "hidden_act": "gelu" if gate else THEIRS[model.activation],
    }


def doubling(what: str, config: Config, first: int) -> None:
    """Refuses sizes of stages that are not each twice the one before.

    Raises:
      UserError: they are not.
    """
    expected = [first * 2**i for i in range(len(config["depths"]))]
    if list(config[what]) != expected:
        raise UserError(f"{what}={list(config[what])}: there is no such model here; expected {expected}")


def resnet(config: Config) -> Fields:
    """The widths of a ResNet or a BiT."""
    width = config["embedding_size"]
    doubling("hidden_sizes", config, width * (1 if config["layer_type"] == "basic" else EXPANSION))
    return {"width": width}


def resnet_written(model: Any) -> Fields:
    """The same, written."""
    first = model.width * (1 if model.block == "basic" else EXPANSION)
    stages = range(len(model.stage_sizes))
    return {
        "embedding_size": model.width,
        "hidden_sizes": [first * 2**i for i in stages],
        "hidden_act": "relu",
    }


def bit_written(model: Any) -> Fields:
    """The same of a BiT."""
    return {**resnet_written(model), "layer_type": "preactivation"}


def convnext(config: Config) -> Fields:
    """The widths of a ConvNeXt; theirs has 1e-6 in all norms but the last, which sees means and has less."""
    doubling("hidden_sizes", config, config["hidden_sizes"][0])
    return {"width": config["hidden_sizes"][0]}


def convnext_written(model: Any) -> Fields:
    """The same, written."""
    count = len(model.stage_sizes)
    sizes = [model.width * 2**i for i in range(count)]
    return {"hidden_sizes": sizes, "num_stages": count, "layer_norm_eps": model.norm_epsilon}


def swin(config: Config) -> Fields:
    """The MLPs of a Swin."""
    return {"mlp_ratio": int(config["mlp_ratio"])}


def swin_written(model: Any) -> Fields:
    """The same, written; ours takes images of any size, and theirs is told one."""
    side = model.patch_size * model.window * 2 ** (len(model.stage_sizes) - 1)
    return {"mlp_ratio": float(model.mlp_ratio), "image_size": side, "num_layers": len(model.stage_sizes)}


FROZEN = {"norm": "frozen", "num_classes": 0}


def detr(config: Config) -> Fields:
    """The backbone of a DETR, whose norms are never trained."""
    inner = config.get("backbone_config") or {}
    name = config.get("backbone") or inner.get("backbone") or inner.get("model_name")
    if inner.get("model_type") == "resnet":
        fields = {"name": "resnet", **KINDS["resnet"].fields({**inner, "architectures": ["ResNetModel"]})}
    elif isinstance(name, str) and name.removeprefix("resnet") in ("18", "34", "50", "101", "152"):
        fields = preset(name.replace("resnet", "resnet-"))
    else:
        raise UserError(f"backbone={name!r}: there is no such backbone here; expected a ResNet")
    if config.get("dilation"):
        raise UserError("dilation=True: there is no such model here; expected False")
    return {"backbone": {**fields, **FROZEN}}


def detr_written(model: Any) -> Fields:
    """The same, written."""
    backbone = model.backbone
    stages = len(backbone.stage_sizes)
    inner = KINDS["resnet"].config_of(backbone.clone(norm="batch"), ())
    names = {
        "stage_names": ["stem", *(f"stage{i + 1}" for i in range(stages))],
        "out_features": [f"stage{stages}"],
    }
    return {
        "backbone_config": {"model_type": "resnet", **inner, **names},
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
        "decoder_attention_heads": model.num_heads,
        "decoder_ffn_dim": model.mlp_dim,
    }


def mit(config: Config) -> Fields:
    """The MLPs of a MiT."""
    ratios = {*config["mlp_ratios"]}
    if len(ratios) != 1:
        raise UserError(
            f"mlp_ratios={list(config['mlp_ratios'])}: there is no such model here; expected all equal"
        )
    return {"mlp_ratio": int(ratios.pop())}


def mit_written(model: Any) -> Fields:
    """The same, written."""
    count = len(model.stage_sizes)
    return {"num_encoder_blocks": count, "mlp_ratios": [model.mlp_ratio] * count}


def segformer(config: Config) -> Fields:
    """The two parts of a SegFormer."""
    backbone = KINDS[f"segformer/{MIT_CLASSES[1]}"].fields({**config, "architectures": [MIT_CLASSES[1]]})
    rate = config.get("classifier_dropout_prob", 0.1)
    decoder = {"name": "mlp", "width": config["decoder_hidden_size"], "dropout": rate}
    return {"backbone": {"name": "mit", **backbone}, "decoder": decoder}


def segformer_written(model: Any) -> Fields:
    """The same, written."""
    if not isinstance(model.backbone, MiT) or not isinstance(model.decoder, AllMLP):
        raise UserError("model.backbone, model.decoder: transformers' segformer has a mit and an mlp")
    inner = KINDS[f"segformer/{MIT_CLASSES[1]}"].config_of(model.backbone, ())
    own = {"decoder_hidden_size": model.decoder.width, "classifier_dropout_prob": model.decoder.dropout}
    return {**inner, **own, "architectures": ["SegformerForSemanticSegmentation"]}


VIT_NEEDS: Config = {**BIASED, "pooler_act": "tanh"}
STAGES = {"stage_sizes": "depths"}
GROUPS = {"version": 2, "norm": "group", "stem": "bit", "standardize": "timm"}
BIT_NEEDS: Config = {
    **COLOURS, "layer_type": "preactivation", "global_padding": None, "embedding_dynamic_padding": False,
    "width_factor": 1, "hidden_act": "relu", "output_stride": 32,
}  # fmt: skip
RESNET_NEEDS: Config = {
    **COLOURS, "downsample_in_first_stage": False, "downsample_in_bottleneck": False, "hidden_act": "relu",
}  # fmt: skip
SWIN_FIELDS = {
    **STAGES, **DROPOUT, "num_heads": "num_heads", "width": "embed_dim", "patch_size": "patch_size",
    "window": "window_size", "norm_epsilon": "layer_norm_eps", "activation": "hidden_act",
}  # fmt: skip
DETR_FIELDS = {
    "width": "d_model", "encoder_depth": "encoder_layers", "decoder_depth": "decoder_layers",
    "num_heads": "encoder_attention_heads", "mlp_dim": "encoder_ffn_dim", "num_queries": "num_queries",
    "activation": "activation_function", "dropout": "dropout", "attention_dropout": "attention_dropout",
}  # fmt: skip
DINO_FIELDS = {**PLAIN, **DROPOUT, "layer_scale": "layerscale_value"}
DINO_REGISTERS = {**DINO_FIELDS, "registers": "num_register_tokens"}
CONVNEXT_FIELDS = {
    **STAGES, "patch_size": "patch_size", "layer_scale": "layer_scale_init_value", "activation": "hidden_act",
}  # fmt: skip
MIT_FIELDS = {
    **STAGES, **DROPOUT, "widths": "hidden_sizes", "num_heads": "num_attention_heads", "reductions": "sr_ratios",
    "embedding_kernels": "patch_sizes", "embedding_strides": "strides", "activation": "hidden_act",
}  # fmt: skip
MIT_CLASSES = (f"Segformer{HEAD}", "SegformerModel")
MIT_NEEDS: Config = {**COLOURS, "reshape_last_stage": True}
TALL = {"mlp_dim": "intermediate_size"}

KINDS: dict[str, Kind] = {
    "vit": Kind(
        tables.VIT, "vit", (f"ViT{HEAD}", "ViTModel"), {**PLAIN, **DROPOUT, **TALL}, needs=VIT_NEEDS,
        derived=pooled, written=pooling,
    ),
    "deit": Kind(
        tables.DEIT, "vit", (f"DeiT{HEAD}WithTeacher", "DeiTModel"), {**PLAIN, **DROPOUT, **TALL},
        {"distillation_token": True}, BIASED, written=hidden,
    ),
    "dinov2": Kind(
        tables.DINOV2, "vit", ("", "Dinov2Model"), DINO_FIELDS, needs=BIASED, derived=dino, written=dino_written,
    ),
    "dinov2_with_registers": Kind(
        tables.DINOV2_REGISTERS, "vit", ("", "Dinov2WithRegistersModel"), DINO_REGISTERS, needs=BIASED,
        derived=dino, written=dino_written,
    ),
    "siglip_vision_model": Kind(
        tables.SIGLIP, "vit", ("", "SiglipVisionModel"),
        {**PLAIN, **TALL, "attention_dropout": "attention_dropout"}, {"pool": "map"},
        {**COLOURS, "vision_use_head": True}, written=hidden,
    ),
    "clip_vision_model": Kind(
        tables.CLIP_VISION, "vit", ("", "CLIPVisionModel"), {**PLAIN, **TALL, "attention_dropout": "attention_dropout"},
        {"patch_bias": False, "embedding_norm": True}, COLOURS, written=hidden,
    ),
    "resnet": Kind(
        tables.RESNET_FAMILY, "resnet", (f"ResNet{HEAD}", "ResNetModel"), {**STAGES, "block": "layer_type"},
        needs=RESNET_NEEDS, derived=resnet, written=resnet_written,
    ),
    "bit": Kind(
        tables.BIT, "resnet", (f"Bit{HEAD}", "BitModel"), {**STAGES, "groups": "num_groups"}, GROUPS, BIT_NEEDS,
        resnet, bit_written,
    ),
    "convnext": Kind(
        tables.CONVNEXT, "convnext", (f"ConvNext{HEAD}", "ConvNextModel"), CONVNEXT_FIELDS, needs=COLOURS,
        derived=convnext, written=convnext_written,
    ),
    "swin": Kind(
        tables.SWIN, "swin", (f"Swin{HEAD}", "SwinModel"), SWIN_FIELDS,
        needs={**BIASED, "use_absolute_embeddings": False}, derived=swin, written=swin_written,
    ),
    "detr": Kind(
        tables.DETR, "detr", ("DetrForObjectDetection", ""), DETR_FIELDS, needs=COLOURS, derived=detr,
        written=detr_written,
    ),
    "segformer": Kind(
        tables.SEGFORMER, "segmenter", ("SegformerForSemanticSegmentation", ""), {},
        needs={**MIT_NEEDS, "num_encoder_blocks": tables.LEVELS}, derived=segformer, written=segformer_written,
    ),
    **{
        f"segformer/{name}": Kind(
            tables.MIT, "mit", MIT_CLASSES, MIT_FIELDS, needs=MIT_NEEDS, derived=mit, written=mit_written
        )
        for name in MIT_CLASSES
    },
}  # fmt: skip
