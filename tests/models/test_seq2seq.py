"""Seq2Seq: the target sees what was before it and the whole source, and no padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_text import VOCAB, close, jitted, params_of, texts

from jaxformer.models.seq2seq import Seq2Seq

TINY = {
    "vocab_size": VOCAB, "context_length": 12, "width": 16, "encoder_depth": 2, "decoder_depth": 1,
    "num_heads": 4, "mlp_dim": 24, "dropout": 0.0,
}  # fmt: skip
T5 = {
    "positions": "relative", "norm": "rms", "norm_position": "pre", "use_bias": False, "activation": "geglu",
    "attention_scale": 1.0, "scaled_embedding": False, "scaled_logits": True, "head_dim": 6,
}  # fmt: skip
MODELS = {
    "transformer": Seq2Seq(**TINY),
    "learned": Seq2Seq(**TINY, positions="learned", norm_position="pre", shared=False),
    "t5": Seq2Seq(**TINY, **T5),
    "t5 1.1": Seq2Seq(**TINY, **{**T5, "scaled_logits": False}, tied=False),
}
SOURCE, TARGET = texts(2, 6), texts(2, 5, seed=1)


@pytest.mark.parametrize("name", MODELS)
def test_the_target_sees_what_was_before_it_and_the_whole_source(name):
    model = MODELS[name].clone(shared=False, tied=False, scaled_logits=False)
    source, target = (np.arange(n, dtype=np.int32)[None] for n in (6, 5))
    mask = np.array([[True] * 4 + [False] * 2])
    params = params_of(model, source, target)

    def logits(table, decoder_table):
        tables = {"token_embedding": {"embedding": table}, "decoder_embedding": {"embedding": decoder_table}}
        outputs = model.apply({"params": {**params, **tables}}, source, target, mask)
        return jnp.sum(jnp.sin(outputs.logits[0]), axis=-1)

    tables = (params[f"{side}_embedding"]["embedding"] for side in ("token", "decoder"))
    of_source, of_target = jax.jit(jax.jacrev(logits, argnums=(0, 1)))(*tables)
    np.testing.assert_array_equal(np.any(of_target[:, target[0]] != 0, axis=-1), np.tri(5, dtype=bool))
    np.testing.assert_array_equal(np.any(of_source[:, source[0]] != 0, axis=-1), mask.repeat(5, axis=0))


@pytest.mark.parametrize("name", MODELS)
def test_the_sources_padding_and_neighbours_do_not_matter(name):
    model = MODELS[name]
    apply = jitted(model, params_of(model, SOURCE, TARGET))
    expected = apply(SOURCE[:1], TARGET[:1]).logits[0]
    sources, mask = texts(3, 9, seed=3), np.zeros((3, 9), bool)
    for row, start in enumerate((0, 3, 1)):
        sources[row, start : start + 6] = SOURCE[0]
        mask[row, start : start + 6] = True
    for logits in apply(sources, TARGET[[0, 0, 0]], mask).logits:
        close(logits, expected)
    assert np.abs(apply(sources, TARGET[[0, 0, 0]]).logits[0] - expected).max() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_encoding_and_decoding_apart(name):
    model = MODELS[name]
    params = params_of(model, SOURCE, TARGET)
    mask = np.array([[True] * 6, [True] * 2 + [False] * 4])

    @jax.jit
    def apart(params):
        context = model.apply({"params": params}, SOURCE, mask, method="encode")
        return context, model.apply(
            {"params": params}, TARGET, context, mask, last_only=True, method="decode"
        )

    context, last = apart(params)
    assert context.shape == (2, 6, 16)
    assert last.logits.shape == (2, 1, VOCAB)
    close(last.logits, jitted(model, params)(SOURCE, TARGET, mask).logits[:, -1:])


def test_one_table_or_two():
    shared, apart = MODELS["transformer"], MODELS["transformer"].clone(shared=False)
    params = params_of(shared, SOURCE, TARGET)
    assert "decoder_embedding" not in params
    two = {**params, "decoder_embedding": params["token_embedding"]}
    expected = jitted(shared, params)(SOURCE, TARGET).logits
    close(jitted(apart, two)(SOURCE, TARGET).logits, expected)
    two["token_embedding"] = {"embedding": -params["token_embedding"]["embedding"]}
    assert np.abs(jitted(apart, two)(SOURCE, TARGET).logits - expected).max() > 1e-2


def test_factors_of_the_table():
    """Vaswani et al. 2017, section 3.4: sqrt(16) = 4 in front; T5 divides by as much behind."""
    plain = MODELS["t5"].clone(scaled_logits=False)
    params = params_of(plain, SOURCE, TARGET)
    expected = jitted(plain, params)(SOURCE, TARGET).logits
    close(4 * jitted(MODELS["t5"], params)(SOURCE, TARGET).logits, expected)
    untied = plain.clone(tied=False)
    head = {"head": {"kernel": params["token_embedding"]["embedding"].T}}
    larger = {"token_embedding": {"embedding": 4 * params["token_embedding"]["embedding"]}}
    scaled = untied.clone(scaled_embedding=True)
    close(jitted(untied, {**params, **head, **larger})(SOURCE, TARGET).logits,
          jitted(scaled, {**params, **head})(SOURCE, TARGET).logits)  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_fresh_models_start_with_vectors_of_unit_variance(name):
    model = MODELS[name].clone(width=64, vocab_size=99)
    params = jax.eval_shape(model.init, jax.random.key(0), SOURCE, TARGET)["params"]
    assert params["encoder"]["block_0"]["attention"]["query"]["kernel"].shape == (64, 4, model.size_of_heads)
    table = jax.jit(lambda key: model.init(key, SOURCE, TARGET)["params"]["token_embedding"]["embedding"])(
        jax.random.key(0)
    )
    factor = 8 if model.scaled_embedding else 1
    assert np.std(table) * factor == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("name", ["transformer", "t5"])
def test_bfloat16_computes_nearly_the_same(name):
    model = MODELS[name]
    params = params_of(model, SOURCE, TARGET)
    expected = jitted(model, params)(SOURCE, TARGET).logits
    half = jitted(model.clone(dtype=jnp.bfloat16), params)(SOURCE, TARGET)
    assert half.logits.dtype == jnp.float32
    assert half.tokens.dtype == jnp.bfloat16
    error = np.abs(half.logits - expected).max() / np.abs(expected).max()
    assert 0 < error < 0.05
