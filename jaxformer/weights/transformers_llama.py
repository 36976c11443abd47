"""Hugging Face transformers' LlamaForCausalLM (Touvron et al. 2023), Qwen2ForCausalLM and Qwen3ForCausalLM.

The names are those of its checkpoint files. They turn queries and keys in halves, as we do. The same names serve all
three: Qwen 2 has biases of query, key and value (Yang et al. 2024), Qwen 3 norms of query and key (Yang et al. 2025).
`transformers_config.text_model_of` gives the fields of a `GPT` that computes the same.
"""

from jaxformer.weights.convert import Extra, Family, Row

OURS, THEIRS = "decoder/block_{i}", "model.layers.{i}"

LLAMA = Family(
    (
        Row("token_embedding/embedding", "model.embed_tokens.weight"),
        Row(f"{OURS}/norm_1/scale", f"{THEIRS}.input_layernorm.weight"),
        Row(f"{OURS}/attention/query/kernel", f"{THEIRS}.self_attn.q_proj.weight", "heads_in"),
        Row(f"{OURS}/attention/query/bias", f"{THEIRS}.self_attn.q_proj.bias", "heads_bias"),
        Row(f"{OURS}/attention/query_norm/scale", f"{THEIRS}.self_attn.q_norm.weight"),
        Row(f"{OURS}/attention/key/kernel", f"{THEIRS}.self_attn.k_proj.weight", "heads_in"),
        Row(f"{OURS}/attention/key/bias", f"{THEIRS}.self_attn.k_proj.bias", "heads_bias"),
        Row(f"{OURS}/attention/key_norm/scale", f"{THEIRS}.self_attn.k_norm.weight"),
        Row(f"{OURS}/attention/value/kernel", f"{THEIRS}.self_attn.v_proj.weight", "heads_in"),
        Row(f"{OURS}/attention/value/bias", f"{THEIRS}.self_attn.v_proj.bias", "heads_bias"),
        Row(f"{OURS}/attention/out/kernel", f"{THEIRS}.self_attn.o_proj.weight", "heads_out"),
        Row(f"{OURS}/attention/out/bias", f"{THEIRS}.self_attn.o_proj.bias"),
        Row(f"{OURS}/norm_2/scale", f"{THEIRS}.post_attention_layernorm.weight"),
        Row(f"{OURS}/mlp/gate/kernel", f"{THEIRS}.mlp.gate_proj.weight", "linear"),
        Row(f"{OURS}/mlp/gate/bias", f"{THEIRS}.mlp.gate_proj.bias"),
        Row(f"{OURS}/mlp/up/kernel", f"{THEIRS}.mlp.up_proj.weight", "linear"),
        Row(f"{OURS}/mlp/up/bias", f"{THEIRS}.mlp.up_proj.bias"),
        Row(f"{OURS}/mlp/down/kernel", f"{THEIRS}.mlp.down_proj.weight", "linear"),
        Row(f"{OURS}/mlp/down/bias", f"{THEIRS}.mlp.down_proj.bias"),
        Row("norm/scale", "model.norm.weight"),
        Row("head/kernel", "lm_head.weight", "linear"),
    ),
    (
        Extra("lm_head.weight", equals="model.embed_tokens.weight"),
        Extra(f"{THEIRS}.self_attn.rotary_emb.inv_freq"),  # in old files: follows from the config
    ),
    prefix="model.",
)
