"""Published sizes of models of text, and `table`, which reads the tables of all presets.

Dropout is left at the models' defaults; vocabularies are those of the published tokenizers.
"""

from collections.abc import Mapping
from typing import Any


def table(rows: Mapping[str, Any], **common: Any) -> dict[str, dict[str, Any]]:
    """The fields of each preset of a table.

    Args:
      rows: first the model's name, with the names of the columns' fields; then every preset, with its values.
      common: fields that all of them have.
    """
    (model, columns), *presets = rows.items()
    return {name: {"name": model, **common, **dict(zip(columns.split(), row))} for name, row in presets}


# Devlin et al. 2019, section 3 (base, large); Turc et al. 2019, table 1 and google-research/bert's README (tiny to
# medium); the vocabulary is the uncased one.
BERT_SIZES = {
    "bert": "width depth num_heads mlp_dim",
    "bert-tiny": (128, 2, 2, 512),
    "bert-mini": (256, 4, 4, 1024),
    "bert-small": (512, 4, 8, 2048),
    "bert-medium": (512, 8, 8, 2048),
    "bert-base": (768, 12, 12, 3072),
    "bert-large": (1024, 24, 16, 4096),
    # Wang et al. 2020 (MiniLM): six layers of 384, here those of sentence-transformers' all-MiniLM-L6-v2.
    "minilm-l6": (384, 6, 12, 1536),
}
BERT = table(BERT_SIZES, vocab_size=30_522)
# Sanh et al. 2019, section 3: half of BERT's layers, no token types, no pooler.
DISTILBERT = {"distilbert-base": {**BERT["bert-base"], "depth": 6, "token_types": 0, "pooler": "relu"}}
# Liu et al. 2019, sections 3.1 and 4: BERT's sizes, with bytes as the base of the vocabulary.
ROBERTA_SIZES = {
    "bert": "width depth num_heads mlp_dim",
    "roberta-base": (768, 12, 12, 3072),
    "roberta-large": (1024, 24, 16, 4096),
}
ROBERTA = {"max_positions": 514, "position_offset": 2, "token_types": 1, "norm_epsilon": 1e-5}

# Warner et al. 2024, table 4 (base, large); every third layer sees all tokens, the others 64 on each side.
MODERNBERT_SIZES = {
    "bert": "width depth num_heads mlp_dim",
    "modernbert-base": (768, 22, 12, 1152),
    "modernbert-large": (1024, 28, 16, 2624),
}
MODERNBERT = {
    "vocab_size": 50_368, "max_positions": 8192, "norm_epsilon": 1e-5, "dropout": 0.0, "attention_dropout": 0.0,
    "activation": "geglu_erf", "positions": "rotary", "rotary": {"base": 160_000.0}, "local_rotary": {"base": 10_000.0},
    "window": 65, "window_every": 3, "token_types": 0, "norm_position": "pre", "first_norm": False, "use_bias": False,
    "head_layer": True, "pooler": "none",
}  # fmt: skip

# Radford et al. 2019, table 2; the numbers of heads are those of openai/gpt-2's hparams.json.
GPT2_SIZES = {
    "gpt": "width depth num_heads",
    "gpt2": (768, 12, 12),
    "gpt2-medium": (1024, 24, 16),
    "gpt2-large": (1280, 36, 20),
    "gpt2-xl": (1600, 48, 25),
}
# Brown et al. 2020, table 2.1, as printed except for 1.3B: the table's 24 heads of 128 would be 3072 wide in a model of
# 2048 and give 1.5B parameters; 16 heads of 128 give the width and 1.3B. (13B's width is printed as 5140, its heads as
# 40 of 128, which is 5120.) All layers are dense. GPT-3 alternates them with locally banded ones (section 2.1), whose
# width the paper does not give: window=256, window_every=2 makes every second one see 256 tokens.
GPT3_SIZES = {
    "gpt": "width depth num_heads head_dim",
    "gpt3-125m": (768, 12, 12, 64),
    "gpt3-350m": (1024, 24, 16, 64),
    "gpt3-760m": (1536, 24, 16, 96),
    "gpt3-1.3b": (2048, 24, 16, 128),
    "gpt3-2.7b": (2560, 32, 32, 80),
    "gpt3-6.7b": (4096, 32, 32, 128),
    "gpt3-13b": (5140, 40, 40, 128),
    "gpt3-175b": (12288, 96, 96, 128),
}

# What Llama and Qwen have in common, their sizes, and the fields that each one has of its own. Touvron et al. 2023
# (Llama 2), section 2.2; Grattafiori et al. 2024 (Llama 3), table 3; Qwen team 2024 (Qwen 2.5), table 1; Yang et al.
# 2025 (Qwen 3), table 1; and the config.json of each, that of meta-llama/Llama-3.2-1B among them.
MODERN = {"norm": "rms", "activation": "swiglu", "use_bias": False, "positions": "rotary"}
MODERN_SIZES = {
    "gpt": "vocab_size context_length width depth num_heads mlp_dim norm_epsilon",
    "llama-2-7b": (32_000, 4096, 4096, 32, 32, 11_008, 1e-5),
    "llama-3-8b": (128_256, 8192, 4096, 32, 32, 14_336, 1e-5),
    "llama-3.2-1b": (128_256, 131_072, 2048, 16, 32, 8192, 1e-5),
    "qwen2.5-0.5b": (151_936, 32_768, 896, 24, 14, 4864, 1e-6),
    "qwen3-0.6b": (151_936, 40_960, 1024, 28, 16, 3072, 1e-6),
}
LLAMA3_SCALING = {"scaling": "llama3", "factor": 32.0, "original_length": 8192, "low": 1.0, "high": 4.0}
LLAMA3, QWEN = {"base": 500_000.0}, {"base": 1_000_000.0}
MODERN_FIELDS: dict[str, dict[str, Any]] = {
    "llama-2-7b": {"tied": False},
    "llama-3-8b": {"num_kv_heads": 8, "tied": False, "rotary": LLAMA3},
    "llama-3.2-1b": {"num_kv_heads": 8, "head_dim": 64, "rotary": {**LLAMA3, **LLAMA3_SCALING}},
    "qwen2.5-0.5b": {"num_kv_heads": 2, "qkv_bias": True, "rotary": QWEN},
    "qwen3-0.6b": {"num_kv_heads": 8, "head_dim": 128, "qk_norm": True, "rotary": QWEN},
}

# Vaswani et al. 2017, table 3; section 5.1 has the shared vocabulary of about 37000 tokens.
TRANSFORMER_SIZES = {
    "seq2seq": "width mlp_dim num_heads dropout encoder_depth decoder_depth",
    "transformer-base": (512, 2048, 8, 0.1, 6, 6),
    "transformer-big": (1024, 4096, 16, 0.3, 6, 6),
}
# Raffel et al. 2020, section 3.7 (1.0), and the config.json of google/t5-v1_1-small and -base.
T5_SIZES = {
    "seq2seq": "width encoder_depth decoder_depth mlp_dim num_heads activation tied scaled_logits",
    "t5-small": (512, 6, 6, 2048, 8, "relu", True, True),
    "t5-base": (768, 12, 12, 3072, 12, "relu", True, True),
    "t5-large": (1024, 24, 24, 4096, 16, "relu", True, True),
    "t5-v1.1-small": (512, 8, 8, 1024, 6, "geglu", False, False),
    "t5-v1.1-base": (768, 12, 12, 2048, 12, "geglu", False, False),
}
T5 = {"vocab_size": 32_128, "head_dim": 64, "norm": "rms", "norm_position": "pre", "use_bias": False}
T5_ATTENTION = {"positions": "relative", "attention_scale": 1.0, "scaled_embedding": False}

TEXT_PRESETS: dict[str, dict[str, Any]] = {
    **BERT,
    **DISTILBERT,
    **table(ROBERTA_SIZES, vocab_size=50_265, **ROBERTA),
    **table(MODERNBERT_SIZES, **MODERNBERT),
    **table(GPT2_SIZES, vocab_size=50_257, context_length=1024),
    **table(GPT3_SIZES, vocab_size=50_257, context_length=2048),
    **{name: fields | MODERN_FIELDS[name] for name, fields in table(MODERN_SIZES, **MODERN).items()},
    **table(TRANSFORMER_SIZES, vocab_size=37_000),
    **table(T5_SIZES, **T5, **T5_ATTENTION),
}
