"""Published sizes of models of text, as tables of fields.

Dropout is left at the models' defaults; vocabularies are those of the published tokenizers.
"""

from typing import Any

# name: (width, depth, heads, mlp_dim). Devlin et al. 2019, section 3 (base, large); Turc et al. 2019, table 1 and
# google-research/bert's README (tiny to medium).
BERT_SIZES = {
    "bert-tiny": (128, 2, 2, 512),
    "bert-mini": (256, 4, 4, 1024),
    "bert-small": (512, 4, 8, 2048),
    "bert-medium": (512, 8, 8, 2048),
    "bert-base": (768, 12, 12, 3072),
    "bert-large": (1024, 24, 16, 4096),
    # Wang et al. 2020 (MiniLM): six layers of 384, here those of sentence-transformers' all-MiniLM-L6-v2.
    "minilm-l6": (384, 6, 12, 1536),
}
BERT_VOCABULARY = 30_522  # uncased

# name: (width, depth, heads). Liu et al. 2019, sections 3.1 and 4: BERT's sizes, bytes as the vocabulary's base.
ROBERTA_SIZES = {"roberta-base": (768, 12, 12), "roberta-large": (1024, 24, 16)}

# name: (width, depth, heads). Radford et al. 2019, table 2; heads are those of openai/gpt-2's hparams.json.
GPT2_SIZES = {
    "gpt2": (768, 12, 12),
    "gpt2-medium": (1024, 24, 16),
    "gpt2-large": (1280, 36, 20),
    "gpt2-xl": (1600, 48, 25),
}
GPT2_VOCABULARY = 50_257

# name: (width, depth, heads, head_dim). Brown et al. 2020, table 2.1, as printed but for 1.3B: the table's 24 heads of
# 128 would be 3072 wide in a model of 2048 and come to 1.5B parameters; 16 heads of 128 give the width and 1.3B. (13B's
# width is printed as 5140, its heads as 40 of 128, which is 5120.)
GPT3_SIZES = {
    "gpt3-125m": (768, 12, 12, 64),
    "gpt3-350m": (1024, 24, 16, 64),
    "gpt3-760m": (1536, 24, 16, 96),
    "gpt3-1.3b": (2048, 24, 16, 128),
    "gpt3-2.7b": (2560, 32, 32, 80),
    "gpt3-6.7b": (4096, 32, 32, 128),
    "gpt3-13b": (5140, 40, 40, 128),
    "gpt3-175b": (12288, 96, 96, 128),
}

# What Llama and Qwen have in common.
MODERN = {
    "name": "gpt", "norm": "rms", "activation": "swiglu", "use_bias": False, "positions": "rotary",
}  # fmt: skip
MODERN_SIZES: dict[str, dict[str, Any]] = {
    # Touvron et al. 2023 (Llama 2), section 2.2, and its config.json.
    "llama-2-7b": {
        "vocab_size": 32_000, "context_length": 4096, "width": 4096, "depth": 32, "num_heads": 32,
        "mlp_dim": 11_008, "norm_epsilon": 1e-5, "tied": False,
    },
    # Grattafiori et al. 2024 (Llama 3), table 3.
    "llama-3-8b": {
        "vocab_size": 128_256, "context_length": 8192, "width": 4096, "depth": 32, "num_heads": 32,
        "num_kv_heads": 8, "mlp_dim": 14_336, "norm_epsilon": 1e-5, "tied": False,
        "rotary": {"base": 500_000.0},
    },
    # Its config.json (meta-llama/Llama-3.2-1B).
    "llama-3.2-1b": {
        "vocab_size": 128_256, "context_length": 131_072, "width": 2048, "depth": 16, "num_heads": 32,
        "num_kv_heads": 8, "head_dim": 64, "mlp_dim": 8192, "norm_epsilon": 1e-5,
        "rotary": {
            "base": 500_000.0, "scaling": "llama3", "factor": 32.0, "original_length": 8192, "low": 1.0,
            "high": 4.0,
        },
    },
    # Qwen team 2024 (Qwen 2.5), table 1, and its config.json.
    "qwen2.5-0.5b": {
        "vocab_size": 151_936, "context_length": 32_768, "width": 896, "depth": 24, "num_heads": 14,
        "num_kv_heads": 2, "mlp_dim": 4864, "norm_epsilon": 1e-6, "qkv_bias": True,
        "rotary": {"base": 1_000_000.0},
    },
    # Yang et al. 2025 (Qwen 3), table 1, and its config.json.
    "qwen3-0.6b": {
        "vocab_size": 151_936, "context_length": 40_960, "width": 1024, "depth": 28, "num_heads": 16,
        "num_kv_heads": 8, "head_dim": 128, "mlp_dim": 3072, "norm_epsilon": 1e-6, "qk_norm": True,
        "rotary": {"base": 1_000_000.0},
    },
}  # fmt: skip

# name: (width, mlp_dim, heads, dropout), of 6 layers each. Vaswani et al. 2017, table 3; section 5.1 has the shared
# vocabulary of about 37000 tokens.
TRANSFORMER_SIZES = {"transformer-base": (512, 2048, 8, 0.1), "transformer-big": (1024, 4096, 16, 0.3)}
TRANSFORMER_VOCABULARY = 37_000

# name: (width, depth of each tower, mlp_dim, heads), heads of 64. Raffel et al. 2020, section 3.7 (1.0), and their
# config.json (google/t5-v1_1-small, -base).
T5_SIZES = {
    "t5-small": (512, 6, 2048, 8),
    "t5-base": (768, 12, 3072, 12),
    "t5-large": (1024, 24, 4096, 16),
}
T5_V1_1_SIZES = {"t5-v1.1-small": (512, 8, 1024, 6), "t5-v1.1-base": (768, 12, 2048, 12)}
T5_VOCABULARY = 32_128


def text_tables() -> dict[str, dict[str, Any]]:
    """Every preset's name and fields, "name" among them."""
    return {**encoders(), **decoders(), **encoder_decoders()}


def encoders() -> dict[str, dict[str, Any]]:
    """BERT and its relatives."""
    presets: dict[str, dict[str, Any]] = {}
    for name, (width, depth, heads, mlp_dim) in BERT_SIZES.items():
        presets[name] = {
            "name": "bert", "vocab_size": BERT_VOCABULARY, "width": width, "depth": depth, "num_heads": heads,
            "mlp_dim": mlp_dim,
        }  # fmt: skip
    # Sanh et al. 2019, section 3: half of BERT's layers, no token types, no pooler.
    presets["distilbert-base"] = {
        **presets["bert-base"], "depth": 6, "token_types": 0, "pooler": "relu",
    }  # fmt: skip
    for name, (width, depth, heads) in ROBERTA_SIZES.items():
        presets[name] = {
            "name": "bert", "vocab_size": 50_265, "max_positions": 514, "position_offset": 2, "token_types": 1,
            "width": width, "depth": depth, "num_heads": heads, "mlp_dim": 4 * width, "norm_epsilon": 1e-5,
        }  # fmt: skip
    return presets


def decoders() -> dict[str, dict[str, Any]]:
    """GPT-2, GPT-3, Llama, Qwen."""
    presets: dict[str, dict[str, Any]] = {}
    for name, (width, depth, heads) in GPT2_SIZES.items():
        presets[name] = {
            "name": "gpt", "vocab_size": GPT2_VOCABULARY, "context_length": 1024, "width": width,
            "depth": depth, "num_heads": heads,
        }  # fmt: skip
    for name, (width, depth, heads, head_dim) in GPT3_SIZES.items():
        # Dense layers all. GPT-3 alternates them with locally banded ones (section 2.1), how wide ones it does not say:
        # window=256, window_every=2 makes every second one see 256 tokens.
        presets[name] = {
            "name": "gpt", "vocab_size": GPT2_VOCABULARY, "context_length": 2048, "width": width,
            "depth": depth, "num_heads": heads, "head_dim": head_dim,
        }  # fmt: skip
    presets |= {name: {**MODERN, **fields} for name, fields in MODERN_SIZES.items()}
    return presets


def encoder_decoders() -> dict[str, dict[str, Any]]:
    """The Transformer and T5."""
    presets: dict[str, dict[str, Any]] = {}
    for name, (width, mlp_dim, heads, dropout) in TRANSFORMER_SIZES.items():
        presets[name] = {
            "name": "seq2seq", "vocab_size": TRANSFORMER_VOCABULARY, "width": width, "encoder_depth": 6,
            "decoder_depth": 6, "num_heads": heads, "mlp_dim": mlp_dim, "dropout": dropout,
        }  # fmt: skip
    versions = [(T5_SIZES, "relu", True), (T5_V1_1_SIZES, "geglu", False)]
    for sizes, activation, tied in versions:
        for name, (width, depth, mlp_dim, heads) in sizes.items():
            presets[name] = {
                "name": "seq2seq", "vocab_size": T5_VOCABULARY, "width": width, "encoder_depth": depth,
                "decoder_depth": depth, "num_heads": heads, "head_dim": 64, "mlp_dim": mlp_dim,
                "activation": activation, "norm": "rms", "norm_position": "pre", "use_bias": False,
                "positions": "relative", "attention_scale": 1.0, "tied": tied, "scaled_embedding": False,
                "scaled_logits": tied,
            }  # fmt: skip
    return presets
