"""Published sizes of models of two towers: CLIP, and SigLIP."""

from typing import Any

from jaxformer.models.presets_text import table

# Radford et al. 2021, table 20, and the config.json of openai/clip-vit-base-patch32 and its like: what is at 336 pixels
# was at 224 before. "quick_gelu" is OpenAI's.
CLIP_SIZES = {
    "two_towers": "image text embedding",
    "clip-vit-b32": ((768, 12, 12, 32, 224), (512, 8), 512),
    "clip-vit-b16": ((768, 12, 12, 16, 224), (512, 8), 512),
    "clip-vit-l14": ((1024, 24, 16, 14, 224), (768, 12), 768),
    "clip-vit-l14-336": ((1024, 24, 16, 14, 336), (768, 12), 768),
}
# Zhai et al. 2023, section 4, and the configs of google/siglip-base-patch16-224 and its like; the sizes of So400m are
# those of Alabdulmohsin et al. 2023, table 1.
SIGLIP_SIZES = {
    "two_towers": "image text embedding",
    "siglip-b16": ((768, 12, 12, 16, 224), (768, 12, 12), 768),
    "siglip-b16-256": ((768, 12, 12, 16, 256), (768, 12, 12), 768),
    "siglip-b16-384": ((768, 12, 12, 16, 384), (768, 12, 12), 768),
    "siglip-b16-512": ((768, 12, 12, 16, 512), (768, 12, 12), 768),
    "siglip-l16-256": ((1024, 24, 16, 16, 256), (1024, 24, 16), 1024),
    "siglip-l16-384": ((1024, 24, 16, 16, 384), (1024, 24, 16), 1024),
    "siglip-so400m14": ((1152, 27, 16, 14, 224), (1152, 27, 16), 1152),
}
IMAGE = "width depth num_heads patch_size image_size"
CLIP_SAME = {"activation": "quick_gelu", "norm_epsilon": 1e-5}
CLIP_IMAGE = {"num_classes": 0, "pool": "cls", "patch_bias": False, "embedding_norm": True, **CLIP_SAME}
CLIP_TEXT = {
    "depth": 12,
    "vocab_size": 49_408,
    "context_length": 77,
    "dropout": 0.0,
    "tied": True,
    **CLIP_SAME,
}
SIGLIP_SAME = {"activation": "gelu_tanh", "norm_epsilon": 1e-6}
SIGLIP_IMAGE = {"num_classes": 0, "pool": "map", **SIGLIP_SAME}
SIGLIP_TEXT = {
    "vocab_size": 32_000, "max_positions": 64, "dropout": 0.0, "attention_dropout": 0.0, "token_types": 0,
    "embedding_norm": False, "norm_position": "pre", "head": "none", "pooler": "none", **SIGLIP_SAME,
}  # fmt: skip
SIGLIP = {
    "text_pooling": "last", "padding": 1, "image_projection": "none", "text_projection": "affine", "scale": 10.0,
    "bias": -10.0,
}  # fmt: skip


def tower(model: str, columns: str, row: tuple[int, ...], common: dict[str, Any]) -> dict[str, Any]:
    """The fields of one tower. So400m's MLPs are not four times as wide as it, and its texts have 16 tokens."""
    own = {}
    if row[0] == 1152:
        own = {"mlp_dim": 4304, **({"max_positions": 16} if model == "bert" else {})}
    return table({model: columns, "it": row}, **{**common, **own})["it"]


PAIR_PRESETS: dict[str, dict[str, Any]] = {
    **{
        name: fields
        | {
            "image": tower("vit", IMAGE, fields["image"], CLIP_IMAGE),
            "text": tower("gpt", "width num_heads", fields["text"], CLIP_TEXT),
        }
        for name, fields in table(CLIP_SIZES).items()
    },
    **{
        name: fields
        | {
            "image": tower("vit", IMAGE, fields["image"], SIGLIP_IMAGE),
            "text": tower("bert", "width depth num_heads", fields["text"], SIGLIP_TEXT),
        }
        for name, fields in table(SIGLIP_SIZES, **SIGLIP).items()
    },
}
