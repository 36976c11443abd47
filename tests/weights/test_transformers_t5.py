"""Our Seq2Seq with the tensors of transformers' T5 and T5 1.1 computes the same; misfits are listed."""

import numpy as np
import pytest
from helpers.parity import build, check_same, make_reference, shapes_of, text

from jaxformer.errors import UserError
from jaxformer.weights.transformers_config import model_of
from jaxformer.weights.transformers_text import T5

VOCAB = 41
# Longer than the 128 places from which on distances share a bucket, on both sides.
TOKENS, MASK = text(2, 150, VOCAB, (150, 90))
DECODER_TOKENS, DECODER_MASK = text(2, 140, VOCAB, (140, 140))
INPUTS = {
    "tokens": TOKENS.astype(np.int32),
    "decoder_tokens": DECODER_TOKENS.astype(np.int32),
    "token_mask": MASK,
}
CASES = {"1.0": ("relu", True), "1.1": ("gated-gelu", False)}


def reference_of(version, folder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    activation, tied = CASES[version]
    config = transformers.T5Config(
        vocab_size=VOCAB, d_model=24, d_kv=10, d_ff=20, num_layers=2, num_decoder_layers=3, num_heads=6,
        feed_forward_proj=activation, tie_word_embeddings=tied,
    )  # fmt: skip
    model = transformers.T5ForConditionalGeneration(config)
    if not tied:  # version 5 ties the head whatever the config says, until it reads a checkpoint that has one
        head = torch.randn((VOCAB, 24), generator=torch.Generator().manual_seed(1))
        model.lm_head.weight = torch.nn.Parameter(head)
    theirs = {
        "input_ids": TOKENS,
        "attention_mask": MASK.astype(np.int64),
        "decoder_input_ids": DECODER_TOKENS,
    }
    return make_reference(model, theirs, DECODER_MASK, folder)


@pytest.mark.parametrize("version", CASES)
def test_logits_and_gradients_are_those_of_transformers(version, tmp_path):
    reference = reference_of(version, tmp_path)
    assert ("lm_head.weight" in reference.source) == (version == "1.1")
    check_same(reference, INPUTS, tie_word_embeddings=CASES[version][1])


def test_everything_that_does_not_fit_is_listed(tmp_path):
    reference = reference_of("1.0", tmp_path)
    name, fields = model_of(reference.config)
    source = dict(reference.source)
    bias = "layer.1.EncDecAttention.relative_attention_bias.weight"
    source[f"decoder.block.0.{bias}"] = np.ones((32, 6))  # in the published checkpoints, and never read
    source[f"decoder.block.1.{bias}"] = np.ones((32, 6))
    source["encoder.embed_tokens.weight"] = source["shared.weight"]
    source["decoder.embed_tokens.weight"] = source["shared.weight"] + 1
    with pytest.raises(UserError) as caught:
        T5.read(source, shapes_of(build(name, {**fields, "activation": "geglu", "encoder_depth": 1}), INPUTS))
    lines = set(caught.value.lines)
    missing = {
        f"{tower}/block_{i}/mlp/gate/kernel: {tower}.block.{i}.layer.{mlp}.DenseReluDense.wi_0.weight is missing"
        " in the checkpoint"
        for tower, mlp, depth in (("encoder", 1, 1), ("decoder", 2, 3))
        for i in range(depth)
    }
    assert missing <= lines
    assert (
        "decoder.embed_tokens.weight: differs from shared.weight, which it is tied to in this model" in lines
    )
    beyond = "encoder.block.1.layer.0.SelfAttention.q.weight"
    assert f"{beyond}: in the checkpoint, but this model has no such parameter" in lines
    assert f"decoder.block.1.{bias}: in the checkpoint, but this model has no such parameter" in lines
    assert len(lines) == len(missing) + 1 + 1 + 8  # a tied table, a bias, an encoder's block


def test_another_number_of_buckets_is_refused():
    config = {"model_type": "t5", "relative_attention_num_buckets": 16}
    with pytest.raises(UserError, match="relative_attention_num_buckets=16"):
        model_of(config)
