"""Our BERT with the tensors of transformers' BERT and its kin computes the same; misfits are listed."""

import numpy as np
import pytest
from helpers.parity import build, check_same, make_reference, shapes_of, text

from jaxformer.errors import UserError
from jaxformer.weights.transformers_config import model_of
from jaxformer.weights.transformers_text import BERT

BATCH, LENGTH, VOCAB, LABELS = 2, 11, 41, 5
SIZES = {
    "vocab_size": VOCAB, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 20, "max_position_embeddings": 17, "hidden_act": "gelu",
}  # fmt: skip
CONFIGS = {
    "Bert": {**SIZES, "type_vocab_size": 3},
    "Roberta": {**SIZES, "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5},
    "DistilBert": {
        "vocab_size": VOCAB, "dim": 24, "n_layers": 2, "n_heads": 4, "hidden_dim": 20,
        "max_position_embeddings": 17, "sinusoidal_pos_embds": False,
    },
    "ModernBert": {  # windows of 2 tokens on either side, and texts of 11; the fourth layer is global again
        **{key: value for key, value in SIZES.items() if key != "hidden_act"}, "num_hidden_layers": 4,
        "local_attention": 4, "pad_token_id": 0, "classifier_pooling": "mean", "attn_implementation": "eager",
    },
}  # fmt: skip
# As the published config has it: older names, and some of BERT's, which mean nothing.
PUBLISHED = {
    "rope_parameters": None, "layer_types": None, "global_attn_every_n_layers": 3, "global_rope_theta": 160_000.0,
    "local_rope_theta": 10_000.0, "layer_norm_eps": 0.5, "hidden_act": "relu", "position_embedding_type": "absolute",
}  # fmt: skip
CLASSES = [
    "BertModel", "BertForMaskedLM", "BertForSequenceClassification", "BertForTokenClassification",
    "BertForQuestionAnswering", "RobertaModel", "RobertaForMaskedLM", "RobertaForSequenceClassification",
    "DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification",
    "ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification",
    "ModernBertForTokenClassification", "ModernBertForQuestionAnswering",
]  # fmt: skip


def inputs_for(family):
    """transformers' inputs, ours, and where there is text."""
    tokens, mask = text(BATCH, LENGTH, VOCAB, (LENGTH, 7))
    tokens = np.where(mask, tokens, CONFIGS[family].get("pad_token_id", 0))
    theirs = {"input_ids": tokens, "attention_mask": mask.astype(np.int64)}
    ours = {"tokens": tokens.astype(np.int32), "token_mask": mask}
    if family == "Bert":
        types = np.random.default_rng(2).integers(0, 3, size=tokens.shape)
        theirs["token_type_ids"], ours["token_types"] = types, types.astype(np.int32)
    return theirs, ours, mask


def reference_of(name, folder):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    family = next(family for family in CONFIGS if name.startswith(family))
    labels = {"num_labels": LABELS} if "Classification" in name else {}
    config = getattr(transformers, f"{family}Config")(**CONFIGS[family], **labels)
    theirs, ours, mask = inputs_for(family)
    return make_reference(getattr(transformers, name)(config), theirs, mask, folder), ours


@pytest.mark.parametrize("name", CLASSES)
def test_outputs_and_gradients_are_those_of_transformers(name, tmp_path):
    reference, inputs = reference_of(name, tmp_path)
    check_same(reference, inputs, **(PUBLISHED if name == "ModernBertForMaskedLM" else {}))


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory):
    reference, inputs = reference_of("BertForMaskedLM", tmp_path_factory.mktemp("bert"))
    return reference.source, model_of(reference.config), inputs


def test_tensors_beside_the_parameters_are_known(masked_lm):
    """As in Google's checkpoints: norms under older names, tied tensors, the next-sentence head, a buffer."""
    source, (name, fields), inputs = masked_lm
    shapes = shapes_of(build(name, fields), inputs)
    older = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in source.items()
    }
    older["cls.predictions.decoder.weight"] = source["bert.embeddings.word_embeddings.weight"]
    older["cls.seq_relationship.weight"] = older["bert.pooler.dense.weight"] = np.ones((2, 24), np.float32)
    older["bert.embeddings.position_ids"] = np.arange(17)[None]
    expected, found = (BERT.read(x, shapes)["params"] for x in (source, older))
    assert set(found) == set(expected)
    np.testing.assert_array_equal(found["mlm_norm"]["scale"], expected["mlm_norm"]["scale"])


def test_everything_that_does_not_fit_is_listed(masked_lm):
    source, (name, fields), inputs = masked_lm
    wrong = dict(source)
    del wrong["bert.encoder.layer.1.output.LayerNorm.bias"]
    wrong["cls.predictions.decoder.weight"] = source["bert.embeddings.word_embeddings.weight"] + 1
    wrong["cls.predictions.decoder.kernel"] = np.ones(2)
    shapes = shapes_of(build(name, {**fields, "vocab_size": VOCAB - 1, "norm_position": "pre"}), inputs)
    with pytest.raises(UserError) as caught:
        BERT.read(wrong, shapes)
    assert sorted(caught.value.lines) == [
        "cls.predictions.decoder.kernel: in the checkpoint, but this model has no such parameter",
        "cls.predictions.decoder.weight: differs from bert.embeddings.word_embeddings.weight, which it is tied"
        " to in this model",
        "encoder/block_1/norm_2/bias: bert.encoder.layer.1.output.LayerNorm.bias is missing in the checkpoint",
        "mlm_bias: cls.predictions.bias has shape (41,); this model needs (40,)",
        "norm/bias: the table has no tensor for this parameter; use a model without it",
        "norm/scale: the table has no tensor for this parameter; use a model without it",
        "token_embedding/embedding: bert.embeddings.word_embeddings.weight has shape (41, 24); this model"
        " needs (40, 24)",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bart"}, "did you mean 'bert'"),
        ({"model_type": ["bert"]}, "expected the name"),
        ({"architectures": ["BertForNextSentencePrediction"]}, "no such head"),
        ({"hidden_act": "mish"}, "'mish' is not known"),
        ({"position_embedding_type": "relative_key"}, "expected 'absolute'"),
        ({"hidden_size": None}, "hidden_size or dim or n_embd or d_model: missing"),
    ],
)
def test_configs_that_cannot_be_are_refused(change, message):
    config = {**CONFIGS["Bert"], "model_type": "bert", "layer_norm_eps": 1e-12, **change}
    config |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    with pytest.raises(UserError, match=message):
        model_of({key: value for key, value in config.items() if value is not None})
