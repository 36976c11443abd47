"""CCT as its authors have it (Hassani et al. 2021; SHI-Labs/Compact-Transformers), from its state dict.

The same numbers need a `CCT` of the same sizes; its defaults are theirs. Their models named "sine" have a learned
table of positions, too: the choice is not passed on in their code.
"""

from jaxformer.weights.convert import Family, Part, Row

OURS, THEIRS = "encoder/block_{i}", "classifier.blocks.{i}"
FAMILY = Family(
    rows=(
        Row("conv_stem_{i+1}/kernel", "tokenizer.conv_layers.{i}.0.weight", "conv"),
        Row("position_embedding", "classifier.positional_emb"),
        Row(f"{OURS}/norm_1/scale", f"{THEIRS}.pre_norm.weight"),
        Row(f"{OURS}/norm_1/bias", f"{THEIRS}.pre_norm.bias"),
        Row(f"{OURS}/attention/query/kernel", f"{THEIRS}.self_attn.qkv.weight", "heads_in", Part(0, 3, 0)),
        Row(f"{OURS}/attention/key/kernel", f"{THEIRS}.self_attn.qkv.weight", "heads_in", Part(1, 3, 0)),
        Row(f"{OURS}/attention/value/kernel", f"{THEIRS}.self_attn.qkv.weight", "heads_in", Part(2, 3, 0)),
        Row(f"{OURS}/attention/out/kernel", f"{THEIRS}.self_attn.proj.weight", "heads_out"),
        Row(f"{OURS}/attention/out/bias", f"{THEIRS}.self_attn.proj.bias"),
        Row(f"{OURS}/norm_2/scale", f"{THEIRS}.norm1.weight"),
        Row(f"{OURS}/norm_2/bias", f"{THEIRS}.norm1.bias"),
        Row(f"{OURS}/mlp/up/kernel", f"{THEIRS}.linear1.weight", "linear"),
        Row(f"{OURS}/mlp/up/bias", f"{THEIRS}.linear1.bias"),
        Row(f"{OURS}/mlp/down/kernel", f"{THEIRS}.linear2.weight", "linear"),
        Row(f"{OURS}/mlp/down/bias", f"{THEIRS}.linear2.bias"),
        Row("norm/scale", "classifier.norm.weight"),
        Row("norm/bias", "classifier.norm.bias"),
        Row("attention_pool/kernel", "classifier.attention_pool.weight", "linear"),
        Row("attention_pool/bias", "classifier.attention_pool.bias"),
        Row("head/kernel", "classifier.fc.weight", "linear"),
        Row("head/bias", "classifier.fc.bias"),
    )
)
