"""Our GPT with the tensors of transformers' GPT-2 computes the same; misfits are listed."""

import numpy as np
import pytest
from helpers.parity import build, check_same, make_reference, rows_of_positions, shapes_of, text

from jaxformer.errors import UserError
from jaxformer.weights.transformers_config import model_of
from jaxformer.weights.transformers_text import GPT2

VOCAB = 41
TOKENS, MASK = text(3, 11, VOCAB, (11, 7, 9), left=(2,))
INPUTS = {"tokens": TOKENS.astype(np.int32), "token_mask": MASK}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=VOCAB, n_embd=24, n_layer=2, n_head=4, n_inner=20, n_positions=17, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    inputs = {"input_ids": TOKENS, "attention_mask": MASK.astype(np.int64)}
    inputs["position_ids"] = rows_of_positions(MASK)
    folder = tmp_path_factory.mktemp("gpt2")
    return make_reference(transformers.GPT2LMHeadModel(config), inputs, MASK, folder)


def test_logits_and_gradients_are_those_of_transformers(reference):
    check_same(reference, INPUTS)


def test_the_published_files_names_are_read(reference):
    """They have no prefix, but the causal mask as a buffer."""
    shapes = shapes_of(build(*model_of(reference.config)), INPUTS)
    published = {name.removeprefix("transformer."): value for name, value in reference.source.items()}
    published["h.1.attn.bias"] = np.ones((1, 1, 17, 17), bool)
    published["lm_head.weight"] = published["wte.weight"]
    found, expected = (GPT2.read(x, shapes)["params"] for x in (published, reference.source))
    for name in ("query", "key", "value"):
        of_block = [tree["decoder"]["block_1"]["attention"][name]["kernel"] for tree in (found, expected)]
        np.testing.assert_array_equal(*of_block)


def test_everything_that_does_not_fit_is_listed(reference):
    name, fields = model_of(reference.config)
    source = dict(reference.source)
    source["transformer.h.0.attn.c_attn.bias"] = np.zeros(71, np.float32)
    source["lm_head.weight"] = source["transformer.wte.weight"] + 1
    del source["transformer.ln_f.bias"]
    with pytest.raises(UserError) as caught:
        GPT2.read(source, shapes_of(build(name, {**fields, "depth": 1}), INPUTS))
    lines = list(caught.value.lines)
    assert [line for line in lines if "c_attn.bias has shape (71,); this model needs (72,)" in line] == [
        f"decoder/block_0/attention/{part}/bias: transformer.h.0.attn.c_attn.bias has shape (71,);"
        " this model needs (72,)"
        for part in ("key", "query", "value")
    ]
    assert "norm/bias: transformer.ln_f.bias is missing in the checkpoint" in lines
    assert "lm_head.weight: differs from transformer.wte.weight, which it is tied to in this model" in lines
    beyond = "transformer.h.1.attn.c_attn.weight: in the checkpoint, but this model has no such parameter"
    assert beyond in lines
    assert len(lines) == 3 + 1 + 1 + 12


def test_what_our_model_does_not_do_is_refused(reference):
    with pytest.raises(UserError, match="scale_attn_by_inverse_layer_idx=True"):
        model_of({**reference.config, "scale_attn_by_inverse_layer_idx": True})
