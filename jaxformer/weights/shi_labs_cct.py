"""CCT as its authors have it (Hassani et al. 2021; SHI-Labs/Compact-Transformers), from its state dict.

The same numbers need a `CCT` of the same sizes; its defaults are theirs. Their models named "sine" have a learned
table of positions, too: the choice is not passed on in their code.
"""

from jaxformer.weights.convert import family
from jaxformer.weights.rows import fused, rows

BLOCK = ("encoder/block_{i}/", "classifier.blocks.{i}.")
CCT = family(
    rows({"conv_stem_{i+1}": "tokenizer.conv_layers.{i}.0"}),
    fused("encoder/block_{i}/attention/", "classifier.blocks.{i}.self_attn.qkv"),
    rows({"norm_1": "pre_norm", "attention/out": "self_attn.proj"}, *BLOCK),
    rows({"norm_2": "norm1", "mlp/up": "linear1", "mlp/down": "linear2"}, *BLOCK),
    rows({"position_embedding": "positional_emb", "norm": "norm", "head": "fc"}, theirs="classifier."),
    rows({"attention_pool": "classifier.attention_pool"}),
)
