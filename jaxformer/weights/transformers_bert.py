"""Hugging Face transformers' BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019) and DistilBERT (Sanh et al. 2019).

The names are those of its checkpoint files. `transformers_config.text_model_of` gives the fields of a `BERT` that
computes the same.
"""

from jaxformer.weights.convert import Extra, Family, Row


def dense(ours: str, theirs: str, change: str = "linear", bias: str = "same") -> tuple[Row, Row]:
    """A Linear."""
    return Row(f"{ours}/kernel", f"{theirs}.weight", change), Row(f"{ours}/bias", f"{theirs}.bias", bias)


def norm(ours: str, theirs: str) -> tuple[Row, Row]:
    """A LayerNorm."""
    return Row(f"{ours}/scale", f"{theirs}.weight"), Row(f"{ours}/bias", f"{theirs}.bias")


def bert_body(prefix: str) -> tuple[Row, ...]:
    """Everything under the heads, as BERT and RoBERTa have it."""
    ours, theirs = "encoder/block_{i}", f"{prefix}encoder.layer.{{i}}"
    return (
        Row("token_embedding/embedding", f"{prefix}embeddings.word_embeddings.weight"),
        Row("position_embedding/embedding", f"{prefix}embeddings.position_embeddings.weight"),
        Row("type_embedding/embedding", f"{prefix}embeddings.token_type_embeddings.weight"),
        *norm("embedding_norm", f"{prefix}embeddings.LayerNorm"),
        *dense(f"{ours}/attention/query", f"{theirs}.attention.self.query", "heads_in", "heads_bias"),
        *dense(f"{ours}/attention/key", f"{theirs}.attention.self.key", "heads_in", "heads_bias"),
        *dense(f"{ours}/attention/value", f"{theirs}.attention.self.value", "heads_in", "heads_bias"),
        *dense(f"{ours}/attention/out", f"{theirs}.attention.output.dense", "heads_out"),
        *norm(f"{ours}/norm_1", f"{theirs}.attention.output.LayerNorm"),
        *dense(f"{ours}/mlp/up", f"{theirs}.intermediate.dense"),
        *dense(f"{ours}/mlp/down", f"{theirs}.output.dense"),
        *norm(f"{ours}/norm_2", f"{theirs}.output.LayerNorm"),
        *dense("pooler", f"{prefix}pooler.dense"),
    )


def distilbert_body(prefix: str) -> tuple[Row, ...]:
    """Everything under the heads, as DistilBERT has it."""
    ours, theirs = "encoder/block_{i}", f"{prefix}transformer.layer.{{i}}"
    return (
        Row("token_embedding/embedding", f"{prefix}embeddings.word_embeddings.weight"),
        Row("position_embedding/embedding", f"{prefix}embeddings.position_embeddings.weight"),
        *norm("embedding_norm", f"{prefix}embeddings.LayerNorm"),
        *dense(f"{ours}/attention/query", f"{theirs}.attention.q_lin", "heads_in", "heads_bias"),
        *dense(f"{ours}/attention/key", f"{theirs}.attention.k_lin", "heads_in", "heads_bias"),
        *dense(f"{ours}/attention/value", f"{theirs}.attention.v_lin", "heads_in", "heads_bias"),
        *dense(f"{ours}/attention/out", f"{theirs}.attention.out_lin", "heads_out"),
        *norm(f"{ours}/norm_1", f"{theirs}.sa_layer_norm"),
        *dense(f"{ours}/mlp/up", f"{theirs}.ffn.lin1"),
        *dense(f"{ours}/mlp/down", f"{theirs}.ffn.lin2"),
        *norm(f"{ours}/norm_2", f"{theirs}.output_layer_norm"),
    )


BERT = Family(
    (
        *bert_body("bert."),
        *dense("mlm_dense", "cls.predictions.transform.dense"),
        *norm("mlm_norm", "cls.predictions.transform.LayerNorm"),
        Row("mlm_bias", "cls.predictions.bias"),
        *dense("head", "classifier"),
        *dense("head", "qa_outputs"),
    ),
    (
        Extra("cls.predictions.decoder.weight", equals="bert.embeddings.word_embeddings.weight"),
        Extra("cls.predictions.decoder.bias", equals="cls.predictions.bias"),
        # Checkpoints of BertForPreTraining, as Google's are: masked LM beside what is made of the first token.
        Extra("cls.seq_relationship.weight"),
        Extra("cls.seq_relationship.bias"),
        Extra("bert.pooler.dense.weight"),
        Extra("bert.pooler.dense.bias"),
        Extra("bert.embeddings.position_ids"),
    ),
    prefix="bert.",
    renamed=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
)

ROBERTA = Family(
    (
        *dense(
            "pooler", "classifier.dense"
        ),  # RobertaForSequenceClassification's, in the place of the model's own
        *bert_body("roberta."),
        *dense("mlm_dense", "lm_head.dense"),
        *norm("mlm_norm", "lm_head.layer_norm"),
        Row("mlm_bias", "lm_head.bias"),
        *dense("head", "classifier"),
        *dense("head", "classifier.out_proj"),
        *dense("head", "qa_outputs"),
    ),
    (
        Extra("lm_head.decoder.weight", equals="roberta.embeddings.word_embeddings.weight"),
        Extra("lm_head.decoder.bias", equals="lm_head.bias"),
        Extra(
            "roberta.pooler.dense.weight"
        ),  # in the published checkpoints, though no next-sentence task trained it
        Extra("roberta.pooler.dense.bias"),
        Extra("roberta.embeddings.position_ids"),
    ),
    prefix="roberta.",
)

DISTILBERT = Family(
    (
        *distilbert_body("distilbert."),
        *dense("pooler", "pre_classifier"),
        *dense("mlm_dense", "vocab_transform"),
        *norm("mlm_norm", "vocab_layer_norm"),
        Row("mlm_bias", "vocab_projector.bias"),
        *dense("head", "classifier"),
        *dense("head", "qa_outputs"),
    ),
    (Extra("vocab_projector.weight", equals="distilbert.embeddings.word_embeddings.weight"),),
    prefix="distilbert.",
)
