"""Our GPT with the tensors of transformers' Llama, Qwen 2 and Qwen 3 computes the same; so do stretched rotations."""

import numpy as np
import pytest
from helpers.parity import build, check_same, make_reference, rows_of_positions, shapes_of, text

from jaxformer.errors import UserError
from jaxformer.models.rotary import Rotary
from jaxformer.weights.transformers_config import model_of, rotary
from jaxformer.weights.transformers_text import LLAMA

VOCAB = 41
TOKENS, MASK = text(3, 11, VOCAB, (11, 7, 9), left=(2,))
INPUTS = {"tokens": TOKENS.astype(np.int32), "token_mask": MASK}
SIZES = {
    "vocab_size": VOCAB, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 3, "intermediate_size": 20, "max_position_embeddings": 17, "pad_token_id": 0,
}  # fmt: skip
# Short contexts, so that all kinds of wavelengths are among a head's.
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 50.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "beta_fast": 8.0, "beta_slow": 1.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 3.0}
CASES = {
    "llama": ("Llama", {"head_dim": 10}),
    "llama-biases-tied": ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama-llama3": ("Llama", {"head_dim": 10, "rope_parameters": LLAMA3}),
    "llama-yarn": ("Llama", {"head_dim": 10, "rope_parameters": YARN}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-linear": ("Qwen2", {"rope_parameters": LINEAR}),
    "qwen3": ("Qwen3", {"head_dim": 10, "rms_norm_eps": 1e-4}),
}


def reference_of(case, folder):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    family, fields = CASES[case]
    config = getattr(transformers, f"{family}Config")(**SIZES, **fields)
    inputs = {"input_ids": TOKENS, "attention_mask": MASK.astype(np.int64)}
    inputs["position_ids"] = rows_of_positions(MASK)
    return make_reference(getattr(transformers, f"{family}ForCausalLM")(config), inputs, MASK, folder)


@pytest.mark.parametrize("case", CASES)
def test_logits_and_gradients_are_those_of_transformers(case, tmp_path):
    check_same(reference_of(case, tmp_path), INPUTS)


@pytest.mark.parametrize("head_dim", [10, 64, 128])
@pytest.mark.parametrize(
    "parameters",
    [
        LLAMA3,
        YARN,
        LINEAR,
        {**LLAMA3, "rope_theta": 500_000.0, "factor": 32.0, "original_max_position_embeddings": 8192},
        {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32768},
    ],
    ids=["llama3-short", "yarn-short", "linear", "llama3.2", "qwen2.5"],
)
def test_stretched_frequencies_are_those_of_transformers(parameters, head_dim):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.LlamaConfig(
        head_dim=head_dim, rope_parameters=dict(parameters), max_position_embeddings=131072
    )
    expected, sharpening = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, "cpu")
    ours = Rotary(**rotary(config.to_dict()))
    assert not list(ours.problems())
    # Theirs are of float32 throughout.
    np.testing.assert_allclose(ours.frequencies(head_dim), expected.numpy(), rtol=2e-5)
    assert ours.sharpening == pytest.approx(sharpening)


def test_enlarged_base_is_that_of_transformers():
    """Its "dynamic" base at f + 1 times the original length, divided by f, is "ntk" with that factor."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 1.0}
    config = transformers.LlamaConfig(head_dim=64, rope_parameters=parameters, max_position_embeddings=100)
    expected, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, "cpu", seq_len=300)
    ours = Rotary(base=10_000.0, scaling="ntk", factor=3.0).frequencies(64)
    np.testing.assert_allclose(ours, expected.numpy(), rtol=2e-5)


def test_configs_from_before_version_5_are_read():
    scaling = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    older = {"rope_theta": 50.0, "rope_scaling": scaling, "max_position_embeddings": 512}
    assert rotary(older) == rotary({"rope_parameters": LLAMA3})
    oldest = {"rope_scaling": {"type": "linear", "factor": 3.0}, "max_position_embeddings": 512}
    assert rotary(oldest) == rotary({"rope_parameters": LINEAR})
    with pytest.raises(UserError, match="rope_type='longrope'"):
        rotary({"rope_scaling": {"type": "longrope"}})


def test_everything_that_does_not_fit_is_listed(tmp_path):
    reference = reference_of("qwen3", tmp_path)
    name, fields = model_of(reference.config)
    source = dict(reference.source)
    source["model.layers.1.self_attn.rotary_emb.inv_freq"] = np.ones(5)
    wrong = {**fields, "tied": True, "num_kv_heads": 2, "qk_norm": False}
    with pytest.raises(UserError) as caught:
        LLAMA.read(source, shapes_of(build(name, wrong), INPUTS))
    lines = list(caught.value.lines)
    assert (
        "lm_head.weight: differs from model.embed_tokens.weight, which it is tied to in this model" in lines
    )
    assert (
        "decoder/block_0/attention/key/kernel: model.layers.0.self_attn.k_proj.weight has shape (30, 24);"
        " this model needs (20, 24)" in lines
    )
    unused = "model.layers.1.self_attn.q_norm.weight: in the checkpoint, but this model has no such parameter"
    assert unused in lines
    assert len(lines) == 1 + 4 + 4
