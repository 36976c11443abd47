"""Image models of Hugging Face transformers, by the names of its checkpoint files (`save_pretrained`, the Hub).

VIT: ViTForImageClassification and ViTModel (Dosovitskiy et al. 2021), DEIT: DeiTForImageClassificationWithTeacher
(Touvron et al. 2021), DINOV2: Dinov2Model (Oquab et al. 2024), with registers (Darcet et al. 2024), too, SIGLIP:
SiglipVisionModel (Zhai et al. 2023), CLIP_VISION: CLIPVisionModel (Radford et al. 2021). Versions 4 and 5 share these
names; version 5 has others in memory.

RESNET and BIT (He et al. 2016, Kolesnikov et al. 2020), CONVNEXT (Liu et al. 2022), SWIN (Liu et al. 2021): their
...ForImageClassification and ...Model.

CVT: CvtForImageClassification (Wu et al. 2021). The same numbers need a `CvT` of the same sizes; the defaults here are
transformers'.

DETR: DetrForObjectDetection (Carion et al. 2020). Backbones are ResNets, of transformers or of timm. Theirs have
BatchNorms that are never trained. The presets have the fields that these need: "detr-r50" for
facebook/detr-resnet-50.

MIT: SegformerForImageClassification and SegformerModel, SEGFORMER: SegformerForSemanticSegmentation (Xie et al. 2021),
SEGFORMER_HEAD: its decoder. The same numbers need an `AllMLP` of as many maps and the same width. Theirs joins the maps
at full width, the coarsest first; what joins them is here a product for each map, so that each takes its columns.

`transformers_image_config.py` gives the fields of models that compute the same.
"""

from jaxformer.weights import timm
from jaxformer.weights.convert import Family, family
from jaxformer.weights.rows import Part, Row, Rows, below, rows

QKV = ("query", "key", "value")
BLOCK = (  # of ViT and CvT, without queries, keys and values
    *rows({"norm_1": "layernorm_before", "attention/out": "attention.output.dense"}),
    *rows({"norm_2": "layernorm_after", "mlp/up": "intermediate.dense", "mlp/down": "output.dense"}),
)
VIT_EMBEDDINGS = {"class_token": "cls_token", "position_embedding": "position_embeddings"}
VIT_QKV = rows({name: name for name in QKV}, "attention/", "attention.attention.")
VIT_BLOCK = below("encoder/block_{i}/", "encoder.layer.{i}.", BLOCK, VIT_QKV)
VIT_BODY = (
    *rows(VIT_EMBEDDINGS, theirs="embeddings."),
    *rows({"patch_embedding": "embeddings.patch_embeddings.projection", "norm": "layernorm"}),
)
MASKED = "embeddings.mask_token"  # what stands for masked patches in pretraining


VIT = family(
    below("", "vit.", VIT_BODY, VIT_BLOCK),
    rows({"representation": "vit.pooler.dense", "head": "classifier"}),
    extras={f"vit.{MASKED}": None},
    prefix="vit.",
)
DEIT = family(
    below("", "deit.", VIT_BODY, VIT_BLOCK, Row("distillation_token", "embeddings.distillation_token")),
    rows({"head": "cls_classifier", "head_distilled": "distillation_classifier"}),
    extras={f"deit.{MASKED}": None, "deit.pooler.dense.weight": None, "deit.pooler.dense.bias": None},
    prefix="deit.",
)


def dinov2(prefix: str) -> Family:
    """The two DINOv2s; the largest has a gate, which is the first half of what goes into its MLPs."""
    block = (
        *rows({"norm_1": "norm1", "attention/out": "attention.output.dense", "norm_2": "norm2"}),
        *rows({"layer_scale_{k}/scale": "layer_scale{k}.lambda1"}),
        *rows({"mlp/up": "mlp.fc1", "mlp/down": "mlp.fc2"}),
        *(Row(f"mlp/{name}", "mlp.weights_in", Part(i, 2)) for i, name in enumerate(("gate", "up"))),
        Row("mlp/down", "mlp.weights_out"),
    )
    return family(
        below("", prefix, VIT_BODY, Row("register_tokens", "embeddings.register_tokens")),
        below("encoder/block_{i}/", f"{prefix}encoder.layer.{{i}}.", block, VIT_QKV),
        antialias=False,
        extras={f"{prefix}{MASKED}": None},
        prefix=prefix,
    )


DINOV2 = dinov2("dinov2.")
DINOV2_REGISTERS = dinov2("dinov2_with_registers.")

SIGLIP_QKV = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
SIGLIP_BLOCK = (  # of CLIP, too
    *rows(SIGLIP_QKV, "attention/", "self_attn."),
    *rows({"norm_{k}": "layer_norm{k}", "mlp/up": "mlp.fc1", "mlp/down": "mlp.fc2"}),
)
SIGLIP = family(
    Row("position_embedding", "embeddings.position_embedding.weight", style="table"),
    rows({"patch_embedding": "embeddings.patch_embedding", "norm": "post_layernorm"}),
    below("encoder/block_{i}/", "encoder.layers.{i}.", SIGLIP_BLOCK),
    below(
        "pool/",
        "head.",
        rows({"probe": "probe", "norm": "layernorm", "attention/out": "attention.out_proj"}),
        rows({"mlp/up": "mlp.fc1", "mlp/down": "mlp.fc2"}),
        [
            Row(f"attention/{name}/{ours}", f"attention.in_proj_{theirs}", Part(i, 3))
            for i, name in enumerate(QKV)
            for ours, theirs in (("kernel", "weight"), ("bias", "bias"))
        ],
    ),
)


CLIP_VISION_ROWS = (
    Row("class_token", "embeddings.class_embedding", style="vector"),
    Row("position_embedding", "embeddings.position_embedding.weight", style="table"),
    Row("patch_embedding", "embeddings.patch_embedding"),
    *rows({"embedding_norm": "pre_layrnorm", "norm": "post_layernorm"}),
    *below("encoder/block_{i}/", "encoder.layers.{i}.", SIGLIP_BLOCK),
)
CLIP_VISION = family(
    below("", "vision_model.", CLIP_VISION_ROWS),
    extras={"vision_model.embeddings.position_ids": None},
    prefix="vision_model.",
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
RESNET_FAMILY = family(below("", "resnet.", RESNET), Row("head", "classifier.1"), prefix="resnet.")
BIT_BLOCK = ("stage_{i}_block_{j}/", "encoder.stages.{i-1}.layers.{j}.")
BIT = family(
    below(
        "",
        "bit.",
        rows({"conv_stem": "embedder.convolution", "norm": "norm"}),
        rows({"conv_{k}": "conv{k}", "norm_{k}": "norm{k}", "conv_shortcut": "downsample.conv"}, *BIT_BLOCK),
    ),
    Row("head", "classifier.1"),
    prefix="bit.",
)
CONVNEXT_BLOCK = ("stage_{i+1}_block_{j}/", "encoder.stages.{i}.layers.{j}.")
CONVNEXT = family(
    below(
        "",
        "convnext.",
        rows({"patch_embedding": "embeddings.patch_embeddings", "norm_stem": "embeddings.layernorm"}),
        rows(
            {"norm_downsample": "0", "conv_downsample": "1"},
            "stage_{i+1}_block_0/",
            "encoder.stages.{i}.downsampling_layer.",
        ),
        rows(
            {"conv_1": "dwconv", "norm_1": "layernorm", "mlp/up": "pwconv1", "mlp/down": "pwconv2"},
            *CONVNEXT_BLOCK,
        ),
        rows({"layer_scale_1/scale": "layer_scale_parameter"}, *CONVNEXT_BLOCK),
        Row("norm", "layernorm"),
    ),
    Row("head", "classifier"),
    prefix="convnext.",
)
SWIN_BLOCK = ("stage_{i+1}_block_{j}/", "encoder.layers.{i}.blocks.{j}.")
SWIN = family(
    below(
        "",
        "swin.",
        rows({"patch_embedding": "patch_embeddings.projection", "norm_stem": "norm"}, theirs="embeddings."),
        below(*SWIN_BLOCK, BLOCK, rows({name: name for name in QKV}, "attention/", "attention.self.")),
        rows({"relative_bias/embedding": "attention.self.relative_position_bias_table"}, *SWIN_BLOCK),
        rows(
            {"norm_merge": "norm", "merge": "reduction"},
            "stage_{i+2}_block_0/",
            "encoder.layers.{i}.downsample.",
        ),
        Row("norm", "layernorm"),
    ),
    Row("head", "classifier"),
    extras={f"swin.{SWIN_BLOCK[1]}attention.self.relative_position_index": None},  # follows from the sizes
    prefix="swin.",
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
SEGFORMER_HEAD = family(
    # Map i, the finest being 0; checkpoints on the Hub have the first of the two names.
    rows({"conv_level_{i+1}": "linear_c.{i}.proj"}, "", "decode_head.", "1x1"),
    rows({"conv_level_{i+1}": "linear_projections.{i}.proj"}, "", "decode_head.", "1x1"),
    *(Row(f"conv_fuse_{LEVELS - i}", "decode_head.linear_fuse", Part(i, LEVELS, 1)) for i in range(LEVELS)),
    Row("norm", "decode_head.batch_norm"),
    Row("head", "decode_head.classifier", style="1x1"),
    prefix="decode_head.",
)
MIT_BLOCK = (
    *rows({"norm_{k}": "layer_norm_{k}", "mlp/up": "mlp.dense1", "mlp/down": "mlp.dense2"}),
    *rows({"mlp/conv_up": "mlp.dwconv.dwconv", "attention/out": "attention.output.dense"}),
    *rows({"conv_reduce": "sr", "norm_reduce": "layer_norm"}, theirs="attention.self."),
    *rows({name: name for name in QKV}, "attention/", "attention.self."),
)
MIT_EMBEDDING = ({"conv": "proj", "norm": "layer_norm"}, "segformer.encoder.patch_embeddings.")
MIT = family(
    rows({f"{ours}_stem": f"0.{theirs}" for ours, theirs in MIT_EMBEDDING[0].items()}, "", MIT_EMBEDDING[1]),
    rows(
        {f"{ours}_downsample": f"{{i}}.{theirs}" for ours, theirs in MIT_EMBEDDING[0].items()},
        "stage_{i+1}_block_0/",
        MIT_EMBEDDING[1],
    ),
    below("stage_{i+1}_block_{j}/", "segformer.encoder.block.{i}.{j}.", MIT_BLOCK),
    rows({"stage_{i+1}_block_{j}/norm": "segformer.encoder.layer_norm.{i}", "head": "classifier"}),
    prefix="segformer.",
)
SEGFORMER = family(
    below("backbone/", "", [row for row in MIT.rows if row.ours != "head"]),
    below("decoder/", "", SEGFORMER_HEAD.rows),
)
