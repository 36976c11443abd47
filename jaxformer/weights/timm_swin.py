"""timm's Swin (Liu et al. 2021), from its state dict or a checkpoint file of the Hub.

The same numbers need a `Swin` of the same sizes; its defaults are timm's. Where a feature map is no whole number of
windows the two differ: timm's padding is seen, and lies behind what was rolled.
"""

from jaxformer.weights.convert import Extra, Family, Part, Row

OURS, THEIRS = "stage_{i+1}_block_{j}", "layers.{i}.blocks.{j}"
FIRST, BEFORE = "stage_{i+1}_block_0", "layers.{i}.downsample"
Q, K, V = (Part(i, 3, 0) for i in range(3))
FAMILY = Family(
    rows=(
        Row("patch_embedding/kernel", "patch_embed.proj.weight", "conv"),
        Row("patch_embedding/bias", "patch_embed.proj.bias"),
        Row("norm_stem/scale", "patch_embed.norm.weight"),
        Row("norm_stem/bias", "patch_embed.norm.bias"),
        Row(f"{FIRST}/norm_merge/scale", f"{BEFORE}.norm.weight"),
        Row(f"{FIRST}/norm_merge/bias", f"{BEFORE}.norm.bias"),
        Row(f"{FIRST}/merge/kernel", f"{BEFORE}.reduction.weight", "linear"),
        Row(f"{OURS}/norm_1/scale", f"{THEIRS}.norm1.weight"),
        Row(f"{OURS}/norm_1/bias", f"{THEIRS}.norm1.bias"),
        Row(f"{OURS}/attention/query/kernel", f"{THEIRS}.attn.qkv.weight", "heads_in", Q),
        Row(f"{OURS}/attention/query/bias", f"{THEIRS}.attn.qkv.bias", "heads_bias", Q),
        Row(f"{OURS}/attention/key/kernel", f"{THEIRS}.attn.qkv.weight", "heads_in", K),
        Row(f"{OURS}/attention/key/bias", f"{THEIRS}.attn.qkv.bias", "heads_bias", K),
        Row(f"{OURS}/attention/value/kernel", f"{THEIRS}.attn.qkv.weight", "heads_in", V),
        Row(f"{OURS}/attention/value/bias", f"{THEIRS}.attn.qkv.bias", "heads_bias", V),
        Row(f"{OURS}/attention/out/kernel", f"{THEIRS}.attn.proj.weight", "heads_out"),
        Row(f"{OURS}/attention/out/bias", f"{THEIRS}.attn.proj.bias"),
        Row(f"{OURS}/relative_bias/embedding", f"{THEIRS}.attn.relative_position_bias_table"),
        Row(f"{OURS}/norm_2/scale", f"{THEIRS}.norm2.weight"),
        Row(f"{OURS}/norm_2/bias", f"{THEIRS}.norm2.bias"),
        Row(f"{OURS}/mlp/up/kernel", f"{THEIRS}.mlp.fc1.weight", "linear"),
        Row(f"{OURS}/mlp/up/bias", f"{THEIRS}.mlp.fc1.bias"),
        Row(f"{OURS}/mlp/down/kernel", f"{THEIRS}.mlp.fc2.weight", "linear"),
        Row(f"{OURS}/mlp/down/bias", f"{THEIRS}.mlp.fc2.bias"),
        Row("norm/scale", "norm.weight"),
        Row("norm/bias", "norm.bias"),
        Row("head/kernel", "head.fc.weight", "linear"),
        Row("head/bias", "head.fc.bias"),
    ),
    # Older files have these, too, which follow from the sizes.
    extras=(
        Extra(f"{THEIRS}.attn.relative_position_index"),
        Extra(f"{THEIRS}.attn_mask"),
    ),
)
