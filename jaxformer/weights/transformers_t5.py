"""Hugging Face transformers' T5ForConditionalGeneration: T5 (Raffel et al. 2020) and T5 1.1 (Shazeer 2020).

The names are those of its checkpoint files. The first block of each tower has the bias that all of its blocks add; in
the MLPs 1.0 has a layer `wi`, 1.1 the gate `wi_0` and `wi_1`. `transformers_config.text_model_of` gives the fields of a
`Seq2Seq` that computes the same.
"""

from jaxformer.weights.convert import Extra, Family, Row


def attention(ours: str, theirs: str) -> tuple[Row, ...]:
    """An attention layer."""
    return (
        Row(f"{ours}/query/kernel", f"{theirs}.q.weight", "heads_in"),
        Row(f"{ours}/key/kernel", f"{theirs}.k.weight", "heads_in"),
        Row(f"{ours}/value/kernel", f"{theirs}.v.weight", "heads_in"),
        Row(f"{ours}/out/kernel", f"{theirs}.o.weight", "heads_out"),
    )


def tower(name: str, mlp: int) -> tuple[Row, ...]:
    """A tower, whose blocks have their MLP as layer number `mlp`."""
    ours, theirs = f"{name}/block_{{i}}", f"{name}.block.{{i}}.layer"
    mlp_name = f"{theirs}.{mlp}.DenseReluDense"
    bias = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return (
        Row(f"{name}_bias/embedding", bias),
        Row(f"{ours}/norm_1/scale", f"{theirs}.0.layer_norm.weight"),
        *attention(f"{ours}/attention", f"{theirs}.0.SelfAttention"),
        Row(f"{ours}/norm_2/scale", f"{theirs}.{mlp}.layer_norm.weight"),
        Row(f"{ours}/mlp/up/kernel", f"{mlp_name}.wi.weight", "linear"),
        Row(f"{ours}/mlp/up/kernel", f"{mlp_name}.wi_1.weight", "linear"),
        Row(f"{ours}/mlp/gate/kernel", f"{mlp_name}.wi_0.weight", "linear"),
        Row(f"{ours}/mlp/down/kernel", f"{mlp_name}.wo.weight", "linear"),
        Row(f"{name}_norm/scale", f"{name}.final_layer_norm.weight"),
    )


T5 = Family(
    (
        Row("token_embedding/embedding", "shared.weight"),
        *tower("encoder", mlp=1),
        *tower("decoder", mlp=2),
        Row("decoder/block_{i}/norm_cross/scale", "decoder.block.{i}.layer.1.layer_norm.weight"),
        *attention("decoder/block_{i}/cross_attention", "decoder.block.{i}.layer.1.EncDecAttention"),
        Row("head/kernel", "lm_head.weight", "linear"),
    ),
    (
        Extra("encoder.embed_tokens.weight", equals="shared.weight"),
        Extra("decoder.embed_tokens.weight", equals="shared.weight"),
        Extra("lm_head.weight", equals="shared.weight"),
        # In the published checkpoints of 1.0; cross-attention has no bias.
        Extra("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"),
    ),
)
