"""The `.npz` files of google-research/vision_transformer: ViT (Dosovitskiy et al. 2021), AugReg (Steiner et al. 2022).

Plain models and hybrids with a ResNet, pretrained or fine-tuned. Our ViT's defaults are theirs; the backbone of their
hybrids is in `models/presets.py`.

The oldest files, and AugReg's, were written before Linen, which numbered all layers of a block in one row; newer ones
number each kind for itself. Norms of feature maps are [1, 1, 1, C] in the older ones. Files of whole train states have
the parameters below "opt/target/", and big_vision's below "params/"; the latter's class token has its position within
itself, and the table has no row for it.
"""

from collections.abc import Mapping

import numpy as np

from jaxformer.weights.convert import Tensors, family
from jaxformer.weights.rows import Row, Rows, below, rows

PREFIXES = ("opt/target/", "params/")
POSITIONS = ("Transformer/posembed_input/pos_embedding", "pos_embedding")


def block(attention: str, norm: str, mlp: str) -> Rows:
    """The rows of a block, in which three layers have other numbers before Linen and since."""
    attention_layers = {name: name for name in ("query", "key", "value", "out")}
    return (
        *rows({"norm_1": "LayerNorm_0", "norm_2": norm}, style="flax"),
        *rows(attention_layers, "attention/", f"{attention}/", "flax"),
        *rows({"up": "Dense_0", "down": "Dense_1"}, "mlp/", f"{mlp}/", "flax"),
    )


def prepared(source: Tensors, shapes: Mapping) -> Tensors:
    """The parameters without a prefix; a table of positions gets a first row of zeros if it lacks the class token's."""
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in source):
            source = {name.removeprefix(prefix): x for name, x in source.items() if name.startswith(prefix)}
    shape = shapes.get("position_embedding", ())
    for name in POSITIONS:
        table = source.get(name, np.zeros(()))
        if "cls" in source and table.ndim == 3 and (len(table), table.shape[1] + 1, table.shape[2]) == shape:
            source = {**source, name: np.pad(table, ((0, 0), (1, 0), (0, 0)))}
    return source


UNIT = ("backbone/stage_{i}_block_{j}/", "block{i}/unit{j+1}/")
AUGREG = family(
    *(Row("position_embedding", name) for name in POSITIONS),
    rows({"class_token": "cls", "patch_embedding": "embedding", "head": "head"}, style="flax"),
    rows({"norm": "Transformer/encoder_norm", "representation": "pre_logits"}, style="flax"),
    below(
        "encoder/block_{i}/",
        "Transformer/encoderblock_{i}/",
        block("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3"),
        block("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0"),
    ),
    rows({"conv_stem": "conv_root", "norm_stem": "gn_root"}, "backbone/", "", "flax"),
    rows({"conv_{k}": "conv{k}", "conv_shortcut": "conv_proj"}, *UNIT, "flax"),
    rows({"norm_{k}": "gn{k}", "norm_shortcut": "gn_proj"}, *UNIT, "flax"),
    prepare=prepared,
)
