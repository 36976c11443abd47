"""timm's models, from a state dict or a checkpoint file of the Hub.

VIT: VisionTransformer, its distilled one (DeiT), and its hybrids with a ResNet v2 ("vit_base_r50_s16_224"). The same
numbers need a `ViT` with activation="gelu_erf", and a hybrid's backbone standardize="timm" and norm_epsilon=1e-5. The
table is of models that pool by class token.

RESNET: resnet.py and resnetv2.py. The presets have the fields that these need: "resnet-50" for resnet50,
"se-resnet-50" for seresnet50, "bit-r50x1" for resnetv2_50x1_bit (whose `standardize` is "timm" here), and so on. A
model with timm's own CBAM has use_bias=False. timm's `BottleneckAttn` in the place of the 3x3 convolution, as its
byobnet.py has it, needs scale_pos_embed=True to be the paper's.

CONVNEXT (Liu et al. 2022) and SWIN (Liu et al. 2021): models of the same sizes; the defaults here are timm's. Where a
feature map is no whole number of windows the two Swins differ: attention sees timm's padding, which lies behind what
was rolled.

MAXXVIT: the CoAtNets and MaxViTs of maxxvit.py. The presets have the fields that they need: "coatnet-0" those of
coatnet_0_224, "coatnet-0-rw" of coatnet_0_rw_224, "maxvit-t" of maxvit_tiny_tf_224 (Google's weights), and so on.
timm's 2x2 pools leave a last odd row out, or pad it with zeros: with feature maps of an odd size the two differ.
"""

import re
from collections.abc import Mapping

import numpy as np

from jaxformer.weights.convert import Tensors, family
from jaxformer.weights.rows import below, fused, rows

STAGES = ("stage_{i+1}_block_{j}/", "stages.{i}.blocks.{j}.")
FIRST = "stage_{i+1}_block_0/"
MLP = rows({"up": "fc1", "down": "fc2"}, "mlp/", "mlp.")
BLOCK = rows({"norm_1": "norm1", "attention/out": "attn.proj", "norm_2": "norm2"}) + MLP
FUSED = fused("attention/", "attn.qkv")

RESNET_BLOCK = ("stage_{i}_block_{j}/", "layer{i}.{j}.")
RESNET_V2_BLOCK = ("stage_{i}_block_{j}/", "stages.{i-1}.blocks.{j}.")
RESNET_V2 = (
    *rows({"conv_stem": "stem.conv", "norm_stem": "stem.norm", "norm": "norm", "head": "head.fc"}),
    *rows({"conv_{k}": "conv{k}", "conv_shortcut": "downsample.conv"}, *RESNET_V2_BLOCK),
    *rows({"norm_{k}": "norm{k}", "norm_shortcut": "downsample.norm"}, *RESNET_V2_BLOCK),
)
GATE = (  # of SE and ECA, then of CBAM
    *rows({"mlp/up": "fc1", "mlp/down": "fc2", "conv": "conv"}),
    *rows({"mlp/up": "channel.fc1", "mlp/down": "channel.fc2"}),
    *rows({"conv": "conv", "norm": "bn"}, theirs="spatial.conv."),
)
BOTNET = fused("", "qkv") + rows(
    {"row_position_embedding": "height_rel", "column_position_embedding": "width_rel"}, theirs="pos_embed."
)
RESNET = family(
    rows({"conv_stem": "conv1", "norm_stem": "bn1", "head": "fc"}),
    rows({"conv_{k}": "conv{k}", "conv_shortcut": "downsample.0"}, *RESNET_BLOCK),
    rows({"norm_{k}": "bn{k}", "norm_shortcut": "downsample.1"}, *RESNET_BLOCK),
    below(f"{RESNET_BLOCK[0]}gate/", f"{RESNET_BLOCK[1]}se.", GATE),
    below(f"{RESNET_BLOCK[0]}attention/", f"{RESNET_BLOCK[1]}conv2.", BOTNET),
    RESNET_V2,
)


def with_first_row(source: Tensors, shapes: Mapping) -> Tensors:
    """Tables of positions of patches alone, as models with registers have them, with a first row of zeros."""
    table, wanted = source.get("pos_embed"), shapes.get("position_embedding", ())
    if "reg_token" not in source or table is None or table.ndim != 3 or len(wanted) != 3:
        return source
    return {**source, "pos_embed": np.pad(np.asarray(table), ((0, 0), (1, 0), (0, 0)))}


VIT = family(
    rows({"class_token": "cls_token", "distillation_token": "dist_token", "register_tokens": "reg_token"}),
    rows({"position_embedding": "pos_embed", "patch_embedding": "patch_embed.proj"}),
    below("encoder/block_{i}/", "blocks.{i}.", BLOCK, FUSED),
    rows({"layer_scale_{k}/scale": "ls{k}.gamma"}, "encoder/block_{i}/", "blocks.{i}."),
    rows({"norm": "norm", "head": "head", "head_distilled": "head_dist"}),
    below("backbone/", "patch_embed.backbone.", RESNET_V2),
    # Where the stem is all of the backbone.
    rows({"conv_stem": "conv", "norm_stem": "norm"}, "backbone/", "patch_embed.backbone."),
    prepare=with_first_row,
)

CONVNEXT = family(
    rows({"patch_embedding": "stem.0", "norm_stem": "stem.1", "norm": "head.norm", "head": "head.fc"}),
    rows({"norm_downsample": "0", "conv_downsample": "1"}, FIRST, "stages.{i}.downsample."),
    rows({"conv_1": "conv_dw", "norm_1": "norm", "layer_scale_1/scale": "gamma"}, *STAGES),
    below(*STAGES, BLOCK),
)

SWIN_STAGES = ("stage_{i+1}_block_{j}/", "layers.{i}.blocks.{j}.")
SWIN = family(
    rows({"patch_embedding": "proj", "norm_stem": "norm"}, theirs="patch_embed."),
    rows({"norm_merge": "norm", "merge": "reduction"}, FIRST, "layers.{i}.downsample."),
    below(*SWIN_STAGES, BLOCK, FUSED),
    rows({"relative_bias/embedding": "attn.relative_position_bias_table"}, *SWIN_STAGES),
    rows({"norm": "norm", "head": "head.fc"}),
    # Older files have these, too, which follow from the sizes.
    extras={f"{SWIN_STAGES[1]}{name}": None for name in ("attn.relative_position_index", "attn_mask")},
)

MBCONV = (
    *rows({"conv_shortcut": "shortcut.expand", "norm_in": "pre_norm", "norm_{k}": "norm{k}"}),
    *rows({"conv_1": "conv1_1x1", "conv_2": "conv2_kxk", "conv_3": "conv3_1x1"}),
    *rows({"up": "fc1", "down": "fc2"}, "mlp_squeeze/", "se."),
    *rows({"up": "fc1", "down": "fc2"}, "mlp_squeeze/", "se_early."),
)
BIASED_BLOCK = (
    *BLOCK,
    *rows({"relative_bias/embedding": "attn.rel_pos.relative_position_bias_table"}),
    *rows({"norm_1": "norm1.norm"}),  # of a block that halves the feature map
)


def flat_tables(source: Tensors, shapes: Mapping) -> Tensors:
    """MaxViT's tables of biases [H, 2 S - 1, 2 S - 1] as CoAtNet's [(2 S - 1)^2, H].

    Theirs go by key minus query, which is query minus key from its end on.
    """
    turned = {
        name: x[:, ::-1, ::-1].reshape(len(x), -1).T
        for name, x in source.items()
        if x.ndim == 3 and name.endswith("relative_position_bias_table")
    }
    return {**source, **turned}


LUKEMELAS = {  # names of the other project, where a block has a first 1x1, and where it has none
    True: {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
           "_project_conv": "conv_pwl", "_bn2": "bn3"},
    False: {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"},
    None: {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"},
}  # fmt: skip


def stages_numbered(source: Tensors, shapes: Mapping) -> Tensors:
    """Tensors of lukemelas/EfficientNet-PyTorch, whose blocks have one row of numbers, under timm's names."""
    if "_conv_stem.weight" not in source:
        return source
    found = {
        tuple(map(int, re.findall(r"\d+", path.split("/")[0])))
        for path in shapes
        if path.startswith("stage_")
    }
    places = [f"blocks.{stage - 1}.{block}." for stage, block in sorted(found)]
    renamed = {}
    for name, tensor in source.items():
        block, rest, kind = "", name, None
        if parted := re.fullmatch(r"_blocks\.(\d+)\.(.*)", name):
            number, rest = int(parted[1]), parted[2]
            block = places[number] if number < len(places) else f"blocks.{number}."
            kind = f"_blocks.{number}._expand_conv.weight" in source
        layer, _, leaf = rest.rpartition(".")
        renamed[f"{block}{LUKEMELAS[kind].get(layer, layer)}.{leaf}"] = tensor
    return renamed


FIRST_STAGE = ("stage_1_block_{j}/", "blocks.0.{j}.")
EFFICIENTNET = family(
    rows({"conv_stem": "conv_stem", "norm_stem": "bn1", "conv_head": "conv_head", "norm_head": "bn2"}),
    rows({"conv_2": "conv_dw", "norm_2": "bn1", "conv_3": "conv_pw", "norm_3": "bn2"}, *FIRST_STAGE),
    rows(
        {"conv_1": "conv_pw", "conv_2": "conv_dw", "conv_3": "conv_pwl", "norm_{k}": "bn{k}"},
        *STAGES[:1],
        "blocks.{i}.{j}.",
    ),
    rows({"head": "classifier"}),
    prepare=stages_numbered,
)

MAXXVIT = family(
    rows({"conv_stem_{k}": "stem.conv{k}", "norm_stem": "stem.norm1"}),
    below(*STAGES, MBCONV, BIASED_BLOCK, fused("attention/", "attn.qkv", by_head=True)),
    below(f"{STAGES[0]}mbconv/", f"{STAGES[1]}conv.", MBCONV),
    below(f"{STAGES[0]}block/", f"{STAGES[1]}attn_block.", BIASED_BLOCK, FUSED),
    below(f"{STAGES[0]}grid/", f"{STAGES[1]}attn_grid.", BIASED_BLOCK, FUSED),
    rows({"norm": "norm"}),
    rows({"norm": "norm", "representation": "pre_logits.fc", "head": "fc"}, theirs="head."),
    prepare=flat_tables,
)
