"""Models of two towers: the fields of ours that computes what another project's does, from its config, and backwards.

CLIPModel and SiglipModel of Hugging Face transformers, and OpenCLIP's "model_cfg". In all that a config leaves out,
theirs have the numbers of CLIP ViT-B/32 and of SigLIP B/16.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxformer.errors import UserError
from jaxformer.weights.transformers_image_config import plain
from jaxformer.weights.transformers_values import THEIRS, activation

Config = Mapping[str, Any]
Fields = dict[str, Any]

SAME = {  # of both towers: our fields -> theirs
    "width": "hidden_size", "depth": "num_hidden_layers", "num_heads": "num_attention_heads",
    "mlp_dim": "intermediate_size", "norm_epsilon": "layer_norm_eps", "activation": "hidden_act",
    "attention_dropout": "attention_dropout",
}  # fmt: skip
IMAGE = {**SAME, "image_size": "image_size", "patch_size": "patch_size"}
BASE: Fields = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "attention_dropout": 0.0, "image_size": 224, "num_channels": 3,
}  # fmt: skip
CLIP_BASE: Fields = {**BASE, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu", "patch_size": 32}
CLIP_TEXT: Fields = {
    **CLIP_BASE, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048, "vocab_size": 49_408,
    "max_position_embeddings": 77,
}  # fmt: skip
SIGLIP_BASE: Fields = {
    **BASE, "layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh", "patch_size": 16, "vision_use_head": True,
}  # fmt: skip
SIGLIP_TEXT: Fields = {**SIGLIP_BASE, "vocab_size": 32_000, "max_position_embeddings": 64, "pad_token_id": 1}
# What is the same in all of theirs, in our words.
CLIP_IMAGE: Fields = {"pool": "cls", "patch_bias": False, "embedding_norm": True}
GPT: Fields = {"name": "gpt", "dropout": 0.0, "tied": True}
ENCODER: Fields = {
    "name": "bert", "dropout": 0.0, "token_types": 0, "embedding_norm": False, "norm_position": "pre",
    "head": "none", "pooler": "none",
}  # fmt: skip
SIGLIP: Fields = {
    "text_pooling": "last",
    "image_projection": "none",
    "text_projection": "affine",
    "scale": 10.0,
    "bias": -10.0,
}


@dataclass(frozen=True)
class Towers:
    """A kind of model of transformers' that has two towers."""

    cls: str
    """Their class."""
    image: Fields
    """Fields of our image tower that have one value in all of theirs."""
    text: Fields
    """The same of our text tower."""
    context: str
    """Our field with the longest text, of the text tower."""
    usual: tuple[Fields, Fields]
    """What their configs of the image tower and of the text tower leave out."""
    own: Fields
    """Fields of our model that have one value in all of theirs."""

    def fields(self, config: Config) -> Fields:
        """The fields of our model.

        Raises:
          UserError: it is another class, or a value is not one of ours.
        """
        if (given := (config.get("architectures") or [self.cls])[0]) != self.cls:
            raise UserError(f"architectures={given!r}: no such model here; expected {self.cls!r}")
        image, text = (self.part(config, name, usual) for name, usual in zip(("vision", "text"), self.usual))
        if image["num_channels"] != 3 or not image.get("vision_use_head", True):
            raise UserError("vision_config: there is no such model here; expected 3 channels, and the head")
        names = {**SAME, "vocab_size": "vocab_size", self.context: "max_position_embeddings"}
        found: Fields = {
            "image": {"name": "vit", "num_classes": 0, **ours(image, IMAGE), **self.image},
            "text": {**ours(text, names), **self.text},
            **self.own,
        }
        if self.cls == "CLIPModel":
            return {**found, "embedding": config.get("projection_dim", 512)}
        width = text.get("projection_size") or text["hidden_size"]
        return {**found, "embedding": width, "padding": text["pad_token_id"]}

    def part(self, config: Config, name: str, usual: Fields) -> Fields:
        """Their config of a tower; what is twice in older files counts as their class reads it."""
        given = (config.get(f"{name}_config"), config.get(f"{name}_config_dict"))
        return {**usual, **(given[0] or {}), **(given[1] or {})}

    def config_of(self, model: Any, classes: tuple[str, ...]) -> Fields:
        """Their config.json of our model; see `transformers_written.config_of`."""
        for name, expected in (("image", "ViT"), ("text", {"gpt": "GPT", "bert": "BERT"}[self.text["name"]])):
            if (tower := type(getattr(model, name)).__name__) != expected:
                raise UserError(
                    f"model.{name}: is a {tower}, and that of transformers' {self.cls} a {expected}"
                )
        image, text = theirs(model.image, IMAGE), theirs(model.text, {**SAME, "vocab_size": "vocab_size"})
        text |= {"max_position_embeddings": model.text.context_length}
        config: Fields = {"architectures": [self.cls], "vision_config": image, "text_config": text}
        if self.cls == "CLIPModel":
            both = {"projection_dim": model.embedding}
            last = (
                text["vocab_size"] - 1
            )  # OpenAI's end of a text is its last token, which has the largest number
            config["text_config"] = {**text, **both, "bos_token_id": last - 1, "eos_token_id": last}
            config["vision_config"] = {**image, **both}
            return {**config, **both, "logit_scale_init_value": round(math.log(model.scale), 4)}
        config["text_config"] = {**text, "projection_size": model.embedding, "pad_token_id": model.padding}
        return config


CLIP = Towers(
    "CLIPModel",
    CLIP_IMAGE,
    GPT,
    "context_length",
    (CLIP_BASE, CLIP_TEXT),
    {"text_pooling": "end", "image_projection": "linear", "text_projection": "linear"},
)
SIGLIP_TOWERS = Towers(
    "SiglipModel", {"pool": "map"}, ENCODER, "max_positions", (SIGLIP_BASE, SIGLIP_TEXT), SIGLIP
)


def ours(config: Config, names: Mapping[str, str]) -> Fields:
    """Values of theirs under our names."""
    return {
        mine: activation(config[other]) if mine == "activation" else plain(other, config[other])
        for mine, other in names.items()
    }


def theirs(model: Any, names: Mapping[str, str]) -> Fields:
    """Values of ours under their names."""
    found = {other: getattr(model, mine) for mine, other in names.items()}
    found["hidden_act"] = THEIRS.get(model.activation, model.activation)
    return {**found, "intermediate_size": model.mlp_dim or 4 * model.width}


# OpenCLIP: what a "model_cfg" may hold beside what is read, each with the values that change nothing.
HEAD_WIDTH = 64  # features of a head of an image tower
OPEN_IMAGE: Fields = {
    "image_size": 224, "layers": 12, "width": 768, "patch_size": 16, "head_width": HEAD_WIDTH, "mlp_ratio": 4.0,
}  # fmt: skip
OPEN_TEXT: Fields = {
    "context_length": 77, "vocab_size": 49_408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0,
}  # fmt: skip
READ_BY_OTHERS = ("hf_tokenizer_name", "tokenizer_kwargs")


def open_clip_fields(config: Config) -> Fields:
    """The fields of our model that computes what OpenCLIP's of a "model_cfg" does.

    Raises:
      UserError: it has parts that there are no names for.
    """
    image, text = {**OPEN_IMAGE, **config["vision_cfg"]}, {**OPEN_TEXT, **config["text_cfg"]}
    unknown = [
        *(
            f"model_cfg.{key}"
            for key in config.keys() - {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
        ),
        *(f"model_cfg.vision_cfg.{key}" for key in image.keys() - OPEN_IMAGE.keys()),
        *(f"model_cfg.text_cfg.{key}" for key in text.keys() - OPEN_TEXT.keys() - {*READ_BY_OTHERS}),
    ]
    if unknown:
        raise UserError(
            f"{', '.join(sorted(unknown))}: there is no such model here",
            "take the same model in transformers' form, where it is published so",
        )
    act = {"activation": "quick_gelu" if config.get("quick_gelu") else "gelu_erf", "norm_epsilon": 1e-5}
    sizes = (
        {"width": c["width"], "depth": c["layers"], "mlp_dim": int(c["width"] * c["mlp_ratio"])}
        for c in (image, text)
    )
    of_image, of_text = ({**each, **act} for each in sizes)
    of_image |= {name: plain(name, image[name]) for name in ("image_size", "patch_size")}
    of_image |= {
        "name": "vit",
        "num_classes": 0,
        "num_heads": image["width"] // image["head_width"],
        **CLIP_IMAGE,
    }
    of_text |= {
        "num_heads": text["heads"],
        "context_length": text["context_length"],
        "vocab_size": text["vocab_size"],
    }
    return {"image": of_image, "text": {**of_text, **GPT}, "embedding": config["embed_dim"], **CLIP.own}


def open_clip_config(model: Any) -> Fields:
    """The "model_cfg" of OpenCLIP's model that computes what ours does.

    Raises:
      UserError: none does.
    """
    CLIP.config_of(model, ())  # it is the same model, with the same refusals
    image, text = model.image, model.text
    if image.width != image.num_heads * HEAD_WIDTH:
        head = {"head_width": image.width // image.num_heads}
    else:
        head = {}
    ratio = (image.mlp_dim or 4 * image.width) / image.width
    return {
        "embed_dim": model.embedding,
        **({"quick_gelu": True} if image.activation == "quick_gelu" else {}),
        "vision_cfg": {
            "image_size": image.image_size, "layers": image.depth, "width": image.width,
            "patch_size": image.patch_size, "mlp_ratio": ratio, **head,
        },
        "text_cfg": {
            "context_length": text.context_length, "vocab_size": text.vocab_size, "width": text.width,
            "heads": text.num_heads, "layers": text.depth,
            "mlp_ratio": (text.mlp_dim or 4 * text.width) / text.width,
        },
    }  # fmt: skip
