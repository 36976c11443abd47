"""Image models of Hugging Face transformers, by the names of its checkpoint files (`save_pretrained`, the Hub).

VIT: ViTForImageClassification (Dosovitskiy et al. 2021). Versions 4 and 5 share these names; version 5 has others in
memory. The same numbers need a `ViT` with activation="gelu_erf" and norm_epsilon=1e-12.

CVT: CvtForImageClassification (Wu et al. 2021). The same numbers need a `CvT` of the same sizes; the defaults here are
transformers'.

DETR: DetrForObjectDetection (Carion et al. 2020). Backbones are ResNets, of transformers or of timm. Theirs have
BatchNorms that are never trained. The presets have the fields that these need: "detr-r50" for
facebook/detr-resnet-50.

SEGFORMER: SegformerDecodeHead (Xie et al. 2021). The same numbers need an `AllMLP` decoder of as many maps and the
same width. Theirs joins the maps at full width, the coarsest first; what joins them is here a product for each map, so
that each takes its columns.
"""

from jaxformer.weights import timm
from jaxformer.weights.convert import family
from jaxformer.weights.rows import Part, Row, Rows, below, rows

QKV = ("query", "key", "value")
BLOCK = (  # of ViT and CvT, without queries, keys and values
    *rows({"norm_1": "layernorm_before", "attention/out": "attention.output.dense"}),
    *rows({"norm_2": "layernorm_after", "mlp/up": "intermediate.dense", "mlp/down": "output.dense"}),
)
VIT_EMBEDDINGS = {"class_token": "cls_token", "position_embedding": "position_embeddings"}
VIT_QKV = rows({name: name for name in QKV}, "attention/", "attention.attention.")
VIT = family(
    rows(VIT_EMBEDDINGS, theirs="vit.embeddings."),
    rows({"patch_embedding": "vit.embeddings.patch_embeddings.projection"}),
    below("encoder/block_{i}/", "vit.encoder.layer.{i}.", BLOCK, VIT_QKV),
    rows({"norm": "vit.layernorm", "head": "classifier"}),
)


def cvt_projection(name: str) -> Rows:
    """The rows of queries, keys or values, and of the convolution and norm before them."""
    before = f"convolution_projection_{name}.convolution_projection."
    own = rows({name: f"projection_{name}"})
    return own + rows({f"conv_{name}": "convolution", f"norm_{name}": "normalization"}, theirs=before)


CVT_EMBEDDING = "cvt.encoder.stages.{}.embedding.convolution_embeddings."
CVT_QKV = below("attention/", "attention.attention.", sum(map(cvt_projection, QKV), ()))
CVT = family(
    rows({"conv_stem": "projection", "norm_stem": "normalization"}, "", CVT_EMBEDDING.format(0)),
    rows({"conv_downsample": "projection"}, "stage_{i+1}_block_0/", CVT_EMBEDDING.format("{i}")),
    rows({"norm_downsample": "normalization"}, "stage_{i+1}_block_0/", CVT_EMBEDDING.format("{i}")),
    *(Row("class_token", f"cvt.encoder.stages.{stage}.cls_token") for stage in range(8)),
    below("stage_{i+1}_block_{j}/", "cvt.encoder.stages.{i}.layers.{j}.", BLOCK, CVT_QKV),
    rows({"norm": "layernorm", "head": "classifier"}),
)

DETR_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
DETR_BLOCK = (
    *rows(DETR_ATTENTION, "attention/", "self_attn."),
    *rows({"norm_1": "self_attn_layer_norm", "norm_2": "final_layer_norm"}),
    *rows({"mlp/up": "fc1", "mlp/down": "fc2"}),
)
DETR_CROSS = (
    *rows(DETR_ATTENTION, "cross_attention/", "encoder_attn."),
    *rows({"norm_cross": "encoder_attn_layer_norm"}),
)
RESNET_BLOCK = ("stage_{i}_block_{j}/", "encoder.stages.{i-1}.layers.{j}.")
RESNET = (
    *rows({"conv_stem": "convolution", "norm_stem": "normalization"}, theirs="embedder.embedder."),
    *rows({"conv_{k}": "layer.{k-1}.convolution", "norm_{k}": "layer.{k-1}.normalization"}, *RESNET_BLOCK),
    *rows(
        {"conv_shortcut": "convolution", "norm_shortcut": "normalization"},
        RESNET_BLOCK[0],
        f"{RESNET_BLOCK[1]}shortcut.",
    ),
)
DETR = family(
    below("backbone/", "model.backbone.conv_encoder.model.", RESNET, timm.RESNET.rows),
    rows({"conv_projection": "model.input_projection"}),
    rows({"query_position_embedding": "model.query_position_embeddings.weight"}),
    below("encoder/block_{i}/", "model.encoder.layers.{i}.", DETR_BLOCK),
    below("decoder/block_{i}/", "model.decoder.layers.{i}.", DETR_BLOCK, DETR_CROSS),
    rows({"norm": "model.decoder.layernorm", "head": "class_labels_classifier"}, "decoder/"),
    rows({"decoder/head_box_{j+1}": "bbox_predictor.layers.{j}"}),
)

LEVELS = 4  # of every published SegFormer
SEGFORMER = family(
    # Map i, the finest being 0; checkpoints on the Hub have the first of the two names.
    rows({"conv_level_{i+1}": "linear_c.{i}.proj"}, theirs="decode_head."),
    rows({"conv_level_{i+1}": "linear_projections.{i}.proj"}, theirs="decode_head."),
    *(Row(f"conv_fuse_{LEVELS - i}", "decode_head.linear_fuse", Part(i, LEVELS, 1)) for i in range(LEVELS)),
    rows({"norm": "batch_norm", "head": "classifier"}, theirs="decode_head."),
    prefix="decode_head.",
)
