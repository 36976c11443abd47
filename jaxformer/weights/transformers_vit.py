"""Hugging Face transformers' ViTForImageClassification (Dosovitskiy et al. 2021).

The names are those of its checkpoint files (`save_pretrained`, the Hub), which versions 4 and 5 share; version 5
has others in memory. The same numbers need a `ViT` with activation="gelu_erf" and norm_epsilon=1e-12. It is
extended later to import and export real checkpoints.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxformer.weights.convert import Row, from_table

OURS, THEIRS = "encoder/block_{i}", "vit.encoder.layer.{i}"
TABLE = (
    Row("class_token", "vit.embeddings.cls_token"),
    Row("position_embedding", "vit.embeddings.position_embeddings"),
    Row("patch_embedding/kernel", "vit.embeddings.patch_embeddings.projection.weight", "conv"),
    Row("patch_embedding/bias", "vit.embeddings.patch_embeddings.projection.bias"),
    Row(f"{OURS}/norm_1/scale", f"{THEIRS}.layernorm_before.weight"),
    Row(f"{OURS}/norm_1/bias", f"{THEIRS}.layernorm_before.bias"),
    Row(f"{OURS}/attention/query/kernel", f"{THEIRS}.attention.attention.query.weight", "heads_in"),
    Row(f"{OURS}/attention/query/bias", f"{THEIRS}.attention.attention.query.bias", "heads_bias"),
    Row(f"{OURS}/attention/key/kernel", f"{THEIRS}.attention.attention.key.weight", "heads_in"),
    Row(f"{OURS}/attention/key/bias", f"{THEIRS}.attention.attention.key.bias", "heads_bias"),
    Row(f"{OURS}/attention/value/kernel", f"{THEIRS}.attention.attention.value.weight", "heads_in"),
    Row(f"{OURS}/attention/value/bias", f"{THEIRS}.attention.attention.value.bias", "heads_bias"),
    Row(f"{OURS}/attention/out/kernel", f"{THEIRS}.attention.output.dense.weight", "heads_out"),
    Row(f"{OURS}/attention/out/bias", f"{THEIRS}.attention.output.dense.bias"),
    Row(f"{OURS}/norm_2/scale", f"{THEIRS}.layernorm_after.weight"),
    Row(f"{OURS}/norm_2/bias", f"{THEIRS}.layernorm_after.bias"),
    Row(f"{OURS}/mlp/up/kernel", f"{THEIRS}.intermediate.dense.weight", "linear"),
    Row(f"{OURS}/mlp/up/bias", f"{THEIRS}.intermediate.dense.bias"),
    Row(f"{OURS}/mlp/down/kernel", f"{THEIRS}.output.dense.weight", "linear"),
    Row(f"{OURS}/mlp/down/bias", f"{THEIRS}.output.dense.bias"),
    Row("norm/scale", "vit.layernorm.weight"),
    Row("norm/bias", "vit.layernorm.bias"),
    Row("head/kernel", "classifier.weight", "linear"),
    Row("head/bias", "classifier.bias"),
)


def from_transformers(source: Mapping[str, np.ndarray], params_shapes: Any) -> dict[str, Any]:
    """Our ViT's parameters from a ViTForImageClassification's tensors; see `convert.from_table`."""
    return from_table(TABLE, source, params_shapes)
