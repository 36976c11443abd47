"""Hugging Face transformers' GPT2LMHeadModel (Radford et al. 2019).

The names are those of its checkpoint files; the published ones have none of the prefix. Its Conv1D layers have what
goes in first, and one of them makes queries, keys and values. `transformers_config.text_model_of` gives the fields of
a `GPT` that computes the same.
"""

from jaxformer.weights.convert import Extra, Family, Part, Row

OURS, THEIRS = "decoder/block_{i}", "transformer.h.{i}"


def third(name: str, index: int) -> tuple[Row, Row]:
    """Queries, keys or values: a third of the layer that makes all of them."""
    ours, theirs, part = f"{OURS}/attention/{name}", f"{THEIRS}.attn.c_attn", Part(index, 3, axis=-1)
    return (
        Row(f"{ours}/kernel", f"{theirs}.weight", "conv1d_heads_in", part),
        Row(f"{ours}/bias", f"{theirs}.bias", "heads_bias", part),
    )


GPT2 = Family(
    (
        Row("token_embedding/embedding", "transformer.wte.weight"),
        Row("position_embedding/embedding", "transformer.wpe.weight"),
        Row(f"{OURS}/norm_1/scale", f"{THEIRS}.ln_1.weight"),
        Row(f"{OURS}/norm_1/bias", f"{THEIRS}.ln_1.bias"),
        *third("query", 0),
        *third("key", 1),
        *third("value", 2),
        Row(f"{OURS}/attention/out/kernel", f"{THEIRS}.attn.c_proj.weight", "conv1d_heads_out"),
        Row(f"{OURS}/attention/out/bias", f"{THEIRS}.attn.c_proj.bias"),
        Row(f"{OURS}/norm_2/scale", f"{THEIRS}.ln_2.weight"),
        Row(f"{OURS}/norm_2/bias", f"{THEIRS}.ln_2.bias"),
        Row(f"{OURS}/mlp/up/kernel", f"{THEIRS}.mlp.c_fc.weight"),
        Row(f"{OURS}/mlp/up/bias", f"{THEIRS}.mlp.c_fc.bias"),
        Row(f"{OURS}/mlp/down/kernel", f"{THEIRS}.mlp.c_proj.weight"),
        Row(f"{OURS}/mlp/down/bias", f"{THEIRS}.mlp.c_proj.bias"),
        Row("norm/scale", "transformer.ln_f.weight"),
        Row("norm/bias", "transformer.ln_f.bias"),
        Row("head/kernel", "lm_head.weight", "linear"),
    ),
    (
        Extra("lm_head.weight", equals="transformer.wte.weight"),
        Extra(f"{THEIRS}.attn.bias"),  # the causal mask
        Extra(f"{THEIRS}.attn.masked_bias"),
    ),
    prefix="transformer.",
)
