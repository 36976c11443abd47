"""timm's VisionTransformer, its distilled one (DeiT), and its hybrids with a ResNet v2 ("vit_base_r50_s16_224").

The same numbers need a `ViT` with activation="gelu_erf", and a hybrid's backbone standardize="timm" and
norm_epsilon=1e-5. The table is of models that pool by class token; registers are not in it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxformer.weights.convert import Part, Row, from_table

OURS, THEIRS = "encoder/block_{i}", "blocks.{i}"
BLOCK, UNIT = "backbone/stage_{i}_block_{j}", "patch_embed.backbone.stages.{i-1}.blocks.{j}"


def norm(ours: str, theirs: str) -> tuple[Row, Row]:
    """The rows of a norm's scale and bias."""
    return Row(f"{ours}/scale", f"{theirs}.weight"), Row(f"{ours}/bias", f"{theirs}.bias")


def dense(ours: str, theirs: str, change: str = "linear") -> tuple[Row, Row]:
    """The rows of a layer's kernel and bias."""
    return Row(f"{ours}/kernel", f"{theirs}.weight", change), Row(f"{ours}/bias", f"{theirs}.bias")


def stem(theirs: str) -> tuple[Row, ...]:
    """The rows of a hybrid's stem."""
    return (
        Row("backbone/conv_stem/kernel", f"{theirs}.conv.weight", "conv"),
        *norm("backbone/norm_stem", f"{theirs}.norm"),
    )


TABLE = (
    Row("class_token", "cls_token"),
    Row("distillation_token", "dist_token"),
    Row("position_embedding", "pos_embed"),
    *dense("patch_embedding", "patch_embed.proj", "conv"),
    *norm(f"{OURS}/norm_1", f"{THEIRS}.norm1"),
    *(
        Row(f"{OURS}/attention/{name}/{leaf}", f"{THEIRS}.attn.qkv.{their_leaf}", change, Part(i, 3, axis=0))
        for i, name in enumerate(("query", "key", "value"))
        for leaf, their_leaf, change in (("kernel", "weight", "heads_in"), ("bias", "bias", "heads_bias"))
    ),
    *dense(f"{OURS}/attention/out", f"{THEIRS}.attn.proj", "heads_out"),
    Row(f"{OURS}/layer_scale_1/scale", f"{THEIRS}.ls1.gamma"),
    *norm(f"{OURS}/norm_2", f"{THEIRS}.norm2"),
    *dense(f"{OURS}/mlp/up", f"{THEIRS}.mlp.fc1"),
    *dense(f"{OURS}/mlp/down", f"{THEIRS}.mlp.fc2"),
    Row(f"{OURS}/layer_scale_2/scale", f"{THEIRS}.ls2.gamma"),
    *norm("norm", "norm"),
    *dense("head", "head"),
    *dense("head_distilled", "head_dist"),
    *stem("patch_embed.backbone.stem"),
    *stem("patch_embed.backbone"),  # where the stem is all of the backbone
    Row(f"{BLOCK}/conv_{{k}}/kernel", f"{UNIT}.conv{{k}}.weight", "conv"),
    *norm(f"{BLOCK}/norm_{{k}}", f"{UNIT}.norm{{k}}"),
    Row(f"{BLOCK}/conv_shortcut/kernel", f"{UNIT}.downsample.conv.weight", "conv"),
    *norm(f"{BLOCK}/norm_shortcut", f"{UNIT}.downsample.norm"),
)


def from_timm(source: Mapping[str, np.ndarray], params_shapes: Any) -> dict[str, Any]:
    """Our ViT's parameters from the tensors of one of timm's; see `convert.from_table`."""
    return from_table(TABLE, source, params_shapes)
