"""Text models of Hugging Face transformers, by the names of its checkpoint files.

BERT (Devlin et al. 2019), ROBERTA (Liu et al. 2019) and DISTILBERT (Sanh et al. 2019), with their heads; MODERNBERT
(Warner et al. 2024), whose layer under the masked-LM head stands under all heads.

GPT2: GPT2LMHeadModel (Radford et al. 2019). The published files have none of the prefix. Its Conv1D layers have what
goes in first, and one of them makes queries, keys and values.

LLAMA: LlamaForCausalLM (Touvron et al. 2023), Qwen2ForCausalLM and Qwen3ForCausalLM. They turn queries and keys in
halves, as we do. The same names serve all three: Qwen 2 has biases of query, key and value (Yang et al. 2024), Qwen 3
norms of query and key (Yang et al. 2025).

T5: T5ForConditionalGeneration, T5 (Raffel et al. 2020) and T5 1.1 (Shazeer 2020). The first block of each tower has the
bias that all of its blocks add; in the MLPs 1.0 has a layer `wi`, 1.1 the gate `wi_0` and `wi_1`.

`transformers_config.model_of` gives the fields of a model that computes the same.
"""

from collections.abc import Mapping

from jaxformer.weights.convert import Tensors, family
from jaxformer.weights.rows import Part, Row, Rows, below, fused, rows

ENCODER, DECODER = "encoder/block_{i}/", "decoder/block_{i}/"
QKV = ("query", "key", "value")
EMBEDDINGS = (
    *rows({"token_embedding": "word_embeddings", "position_embedding": "position_embeddings"}),
    *rows({"type_embedding": "token_type_embeddings", "embedding_norm": "LayerNorm"}),
)
BERT_BLOCK = (
    *rows({name: name for name in QKV}, "attention/", "attention.self."),
    *rows({"attention/out": "dense", "norm_1": "LayerNorm"}, theirs="attention.output."),
    *rows({"mlp/up": "intermediate.dense", "mlp/down": "output.dense", "norm_2": "output.LayerNorm"}),
)
BERT_BODY = (
    *below("", "embeddings.", EMBEDDINGS),
    *below(ENCODER, "encoder.layer.{i}.", BERT_BLOCK),
    *rows({"pooler": "pooler.dense"}),
)
HEADS = tuple(Row("head", name) for name in ("classifier", "classifier.out_proj", "qa_outputs"))


def current_names(source: Tensors, shapes: Mapping) -> Tensors:
    """Norms under the names that they have since the first versions."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        source = {name.replace(old, new): tensor for name, tensor in source.items()}
    return source


BERT = family(
    below("", "bert.", BERT_BODY),
    rows({"mlm_dense": "transform.dense", "mlm_norm": "transform.LayerNorm"}, theirs="cls.predictions."),
    Row("mlm_bias", "cls.predictions.bias"),
    HEADS,
    extras={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
        # Checkpoints of BertForPreTraining, as Google's are: masked LM beside what is made of the first token.
        **dict.fromkeys(("cls.seq_relationship.weight", "cls.seq_relationship.bias"), None),
        **dict.fromkeys(("bert.pooler.dense.weight", "bert.pooler.dense.bias"), None),
        "bert.embeddings.position_ids": None,
    },
    prefix="bert.",
    prepare=current_names,
)

ROBERTA = family(
    Row("pooler", "classifier.dense"),  # RobertaForSequenceClassification's, in the place of the model's own
    below("", "roberta.", BERT_BODY),
    rows({"mlm_dense": "dense", "mlm_norm": "layer_norm", "mlm_bias": "bias"}, theirs="lm_head."),
    HEADS,
    extras={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
        # In the published checkpoints, though no next-sentence task trained it.
        **dict.fromkeys(("roberta.pooler.dense.weight", "roberta.pooler.dense.bias"), None),
        "roberta.embeddings.position_ids": None,
    },
    prefix="roberta.",
)

DISTILBERT = family(
    below("", "distilbert.embeddings.", EMBEDDINGS),
    below(
        ENCODER,
        "distilbert.transformer.layer.{i}.",
        rows({name: f"{name[0]}_lin" for name in QKV}, "attention/", "attention."),
        rows({"attention/out": "attention.out_lin", "norm_1": "sa_layer_norm"}),
        rows({"mlp/up": "ffn.lin1", "mlp/down": "ffn.lin2", "norm_2": "output_layer_norm"}),
    ),
    rows({"mlm_dense": "vocab_transform", "mlm_norm": "vocab_layer_norm"}),
    rows({"mlm_bias": "vocab_projector.bias", "pooler": "pre_classifier"}),
    HEADS,
    extras={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
    prefix="distilbert.",
)

MODERNBERT = family(
    rows({"token_embedding": "tok_embeddings", "embedding_norm": "norm"}, theirs="model.embeddings."),
    below(
        ENCODER,
        "model.layers.{i}.",
        fused("attention/", "attn.Wqkv"),
        rows({"attention/out": "attn.Wo", "norm_1": "attn_norm", "norm_2": "mlp_norm", "mlp/down": "mlp.Wo"}),
        [Row(f"mlp/{name}", "mlp.Wi", Part(i, 2)) for i, name in enumerate(("gate", "up"))],
    ),
    rows({"norm": "model.final_norm", "mlm_dense": "head.dense", "mlm_norm": "head.norm"}),
    rows({"mlm_bias": "decoder.bias", "head": "classifier"}),
    extras={"decoder.weight": "model.embeddings.tok_embeddings.weight"},
    prefix="model.",
)

GPT2 = family(
    rows({"token_embedding": "wte", "position_embedding": "wpe", "norm": "ln_f"}, theirs="transformer."),
    below(
        DECODER,
        "transformer.h.{i}.",
        fused("attention/", "attn.c_attn", axis=-1, style="conv1d"),
        rows({"norm_1": "ln_1", "attention/out": "attn.c_proj", "norm_2": "ln_2"}, style="conv1d"),
        rows({"mlp/up": "mlp.c_fc", "mlp/down": "mlp.c_proj"}, style="conv1d"),
    ),
    Row("head", "lm_head"),
    extras={
        "lm_head.weight": "transformer.wte.weight",
        "transformer.h.{i}.attn.bias": None,  # the causal mask
        "transformer.h.{i}.attn.masked_bias": None,
    },
    prefix="transformer.",
)

LLAMA = family(
    rows({"token_embedding": "embed_tokens", "norm": "norm"}, theirs="model."),
    below(
        DECODER,
        "model.layers.{i}.",
        rows({name: f"self_attn.{name[0]}_proj" for name in (*QKV, "out")}, "attention/"),
        rows({"query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm"}, "attention/"),
        rows({name: f"{name}_proj" for name in ("gate", "up", "down")}, "mlp/", "mlp."),
        rows({"norm_1": "input_layernorm", "norm_2": "post_attention_layernorm"}),
    ),
    Row("head", "lm_head"),
    extras={
        "lm_head.weight": "model.embed_tokens.weight",
        "model.layers.{i}.self_attn.rotary_emb.inv_freq": None,  # in old files: follows from the config
    },
    prefix="model.",
)


def t5_attention(ours: str, theirs: str) -> Rows:
    """The rows of an attention layer."""
    return rows({name: name[0] for name in (*QKV, "out")}, ours, theirs)


def t5_tower(name: str, mlp: int) -> Rows:
    """The rows of a tower, whose blocks have their MLP as layer number `mlp`."""
    block = (
        *t5_attention("attention/", "0.SelfAttention."),
        *rows({"norm_1": "0.layer_norm", "norm_2": f"{mlp}.layer_norm"}),
        *rows({"up": "wi", "gate": "wi_0", "down": "wo"}, "mlp/", f"{mlp}.DenseReluDense."),
        *rows({"up": "wi_1"}, "mlp/", f"{mlp}.DenseReluDense."),
    )
    return (
        Row(f"{name}_bias", f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias"),
        *below(f"{name}/block_{{i}}/", f"{name}.block.{{i}}.layer.", block),
        Row(f"{name}_norm", f"{name}.final_layer_norm"),
    )


T5 = family(
    *t5_tower("encoder", mlp=1),
    *t5_tower("decoder", mlp=2),
    *t5_attention(f"{DECODER}cross_attention/", "decoder.block.{i}.layer.1.EncDecAttention."),
    rows({"norm_cross": "layer_norm"}, DECODER, "decoder.block.{i}.layer.1."),
    rows({"token_embedding": "shared", "head": "lm_head"}),
    extras={
        **dict.fromkeys(("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"), "shared.weight"),
        "lm_head.weight": "shared.weight",
        # In the published checkpoints of 1.0; cross-attention has no bias.
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": None,
    },
)
