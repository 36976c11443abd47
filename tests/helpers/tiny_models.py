"""A tiny model of every family: what makes a config of one tiny, and the inputs that it takes."""

import numpy as np

from jaxformer.config.schema import build
from jaxformer.models import MODELS
from jaxformer.numbers import filled

CLASSES, VOCAB = 5, 11
WHAT_THE_DATA_SAY = {"num_classes": CLASSES, "vocab_size": VOCAB}
TINY = {
    "vit": {
        "image_size": 8,
        "patch_size": 4,
        "width": 8,
        "depth": 2,
        "num_heads": 2,
        "mlp_dim": 8,
        "num_classes": 10,
    },
    "mlp_mixer": {
        "image_size": 8,
        "patch_size": 4,
        "width": 8,
        "depth": 1,
        "token_mlp_dim": 8,
        "channel_mlp_dim": 8,
    },
    "resnet": {"width": 8, "stage_sizes": [1, 1, 1]},
    "conv_stem": {"channels": [8, 8], "strides": [1, 2]},
    "cct": {"image_size": 8, "stem_width": 8, "width": 8, "depth": 1, "num_heads": 2, "mlp_dim": 8},
    "coatnet": {
        "image_size": 8,
        "stem_widths": [8, 8],
        "stage_sizes": [1, 1],
        "widths": [8, 8],
        "head_dim": 4,
        "representation": None,
    },
    "convnext": {"stage_sizes": [1, 1], "width": 8},
    "efficientnet": {
        "stage_sizes": [1, 1],
        "widths": [8, 16],
        "kernel_sizes": [3, 5],
        "strides": [1, 2],
        "expansions": [1, 2],
        "stem_width": 8,
        "head_width": 16,
    },
    "cvt": {
        "stage_sizes": [1, 1],
        "widths": [8, 16],
        "num_heads": [1, 2],
        "embedding_kernels": [7, 3],
        "embedding_strides": [4, 2],
    },
    "mit": {
        "stage_sizes": [1, 1],
        "widths": [8, 16],
        "num_heads": [1, 2],
        "reductions": [2, 1],
        "embedding_kernels": [7, 3],
        "embedding_strides": [4, 2],
    },
    "maxvit": {"stage_sizes": [1, 1], "widths": [8, 16], "stem_widths": [8, 8], "window": 2, "head_dim": 8},
    "swin": {"stage_sizes": [1, 1], "num_heads": [1, 2], "width": 8, "window": 4},
    "detr": {
        "width": 16,
        "encoder_depth": 1,
        "decoder_depth": 2,
        "num_heads": 2,
        "mlp_dim": 16,
        "num_queries": 6,
    },
    "segmenter": {"decoder": {"name": "fpn", "width": 8}},
    "captioner": {"width": 16, "depth": 2, "num_heads": 2, "mlp_dim": 16, "context_length": 16},
    "coca": {
        "width": 16,
        "unimodal_depth": 1,
        "depth": 1,
        "num_heads": 2,
        "mlp_dim": 16,
        "context_length": 16,
        "queries": 3,
        "embedding": 8,
    },
    "gpt": {"width": 16, "depth": 2, "num_heads": 2, "context_length": 16, "vocab_size": None},
    "bert": {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 16, "max_positions": 16},
    "seq2seq": {
        "width": 16,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "num_heads": 2,
        "mlp_dim": 16,
        "context_length": 16,
    },
    "text_pairs": {},
    "two_towers": {"embedding": 8},
}
ENCODER = {"name": "bert", **TINY["bert"], "head": "none", "pooler": "none", "vocab_size": None}
BACKBONE = {"name": "resnet", **TINY["resnet"], "num_classes": 0}
# What a config has to say beside: the fields without a default, and attention where the table above leaves it out.
BESIDE = {
    "coatnet": {"blocks": ["mbconv", "attention"], "image_size": 32},
    "captioner": {"backbone": BACKBONE},
    "coca": {"backbone": BACKBONE},
    "detr": {"backbone": BACKBONE},
    "segmenter": {"backbone": BACKBONE},
    "text_pairs": {"text": ENCODER},
    "two_towers": {
        "image": {"name": "vit", **TINY["vit"], "num_classes": 0},
        "text": ENCODER,
        "bias": -10.0,
    },
}

BOTH = ("two-towers", "captioner", "coca")  # kinds that take pictures and texts


def tiny_model(name, **changes):
    """The tiny model of a name in MODELS, with the sizes that the data fill in."""
    bare = build(MODELS, {"name": name} | TINY[name] | BESIDE.get(name, {}) | changes, "model")
    return filled(bare, WHAT_THE_DATA_SAY)


def inputs_of(model, batch=2):
    """What a model is applied to, as keyword arguments, by its kind."""
    generator = np.random.default_rng(1)
    image: dict[str, np.ndarray] = {}
    if model.kind in ("image", "detector", "segmenter", *BOTH):
        side = model.image_size or 32
        image = {"image": generator.normal(size=(batch, side, side, 3)).astype(np.float32)}
    if image and model.kind not in BOTH:
        return image
    tokens = generator.integers(0, VOCAB, (batch, 6)).astype(np.int32)
    return (
        image
        | {"tokens": tokens}
        | ({"decoder_tokens": tokens[:, :5]} if model.kind == "encoder-decoder" else {})
    )
