"""Hugging Face transformers' DetrForObjectDetection (Carion et al. 2020), from a checkpoint file's tensors.

Backbones are ResNets, of transformers or of timm. Theirs have BatchNorms that are never trained. The presets have the
fields that these need: "detr-r50" for facebook/detr-resnet-50.
"""

from collections.abc import Iterator
from dataclasses import replace

from jaxformer.weights import timm_resnet
from jaxformer.weights.convert import Extra, Family, Row
from jaxformer.weights.timm_resnet import layer, norm

BACKBONE = "model.backbone.conv_encoder.model"
STAGE = f"{BACKBONE}.encoder.stages.{{i-1}}.layers.{{j}}"
BLOCK = "backbone/stage_{i}_block_{j}"
STEM = f"{BACKBONE}.embedder.embedder"


def attention(ours: str, theirs: str) -> Iterator[Row]:
    """The rows of an attention."""
    for name in ("query", "key", "value"):
        yield Row(f"{ours}/{name}/kernel", f"{theirs}.{name[0]}_proj.weight", "heads_in")
        yield Row(f"{ours}/{name}/bias", f"{theirs}.{name[0]}_proj.bias", "heads_bias")
    yield Row(f"{ours}/out/kernel", f"{theirs}.out_proj.weight", "heads_out")
    yield Row(f"{ours}/out/bias", f"{theirs}.out_proj.bias")


def block(ours: str, theirs: str) -> Iterator[Row]:
    """The rows of what blocks of the encoder and of the decoder have."""
    yield from attention(f"{ours}/attention", f"{theirs}.self_attn")
    yield from norm(f"{ours}/norm_1", f"{theirs}.self_attn_layer_norm")
    yield from layer(f"{ours}/mlp/up", f"{theirs}.fc1", "linear")
    yield from layer(f"{ours}/mlp/down", f"{theirs}.fc2", "linear")
    yield from norm(f"{ours}/norm_2", f"{theirs}.final_layer_norm")


DECODER = ("decoder/block_{i}", "model.decoder.layers.{i}")

FAMILY = Family(
    rows=(
        *layer("backbone/conv_stem", f"{STEM}.convolution"),
        *norm("backbone/norm_stem", f"{STEM}.normalization"),
        *layer(f"{BLOCK}/conv_{{k}}", f"{STAGE}.layer.{{k-1}}.convolution"),
        *norm(f"{BLOCK}/norm_{{k}}", f"{STAGE}.layer.{{k-1}}.normalization"),
        *layer(f"{BLOCK}/conv_shortcut", f"{STAGE}.shortcut.convolution"),
        *norm(f"{BLOCK}/norm_shortcut", f"{STAGE}.shortcut.normalization"),
        *(
            replace(row, ours=f"backbone/{row.ours}", theirs=f"{BACKBONE}.{row.theirs}")
            for row in timm_resnet.FAMILY.rows
        ),
        *layer("conv_projection", "model.input_projection"),
        Row("query_position_embedding", "model.query_position_embeddings.weight"),
        *block("encoder/block_{i}", "model.encoder.layers.{i}"),
        *block(*DECODER),
        *attention(f"{DECODER[0]}/cross_attention", f"{DECODER[1]}.encoder_attn"),
        *norm(f"{DECODER[0]}/norm_cross", f"{DECODER[1]}.encoder_attn_layer_norm"),
        *norm("decoder/norm", "model.decoder.layernorm"),
        *layer("decoder/head", "class_labels_classifier", "linear"),
        *layer("decoder/head_box_{j+1}", "bbox_predictor.layers.{j}", "linear"),
    ),
    extras=(
        *(replace(extra, theirs=f"{BACKBONE}.{extra.theirs}") for extra in timm_resnet.FAMILY.extras),
        Extra(f"{STEM}.normalization.num_batches_tracked"),
        Extra(f"{STAGE}.layer.{{k}}.normalization.num_batches_tracked"),
        Extra(f"{STAGE}.shortcut.normalization.num_batches_tracked"),
    ),
)
