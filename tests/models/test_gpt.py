"""GPT: who sees whom, and what must not matter to a token: padding, other documents, other rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_text import EXTRAS, GPTS, SCHEMES, TINY, VOCAB, WINDOW, close, jitted, params_of, texts

from jaxformer.config import schema
from jaxformer.models.gpt import GPT
from jaxformer.models.mlp import Experts
from jaxformer.models.rotary import Rotary

TOKENS = np.random.default_rng(0).permutation(VOCAB)[None, :8].astype(np.int32)  # no token twice


def who_sees_whom(model, **inputs):
    """bool [T, T]: whether the logits after token i depend on the vector of token j at all, by the gradient."""
    params = params_of(model, TOKENS)

    def logits(table):
        replaced = {**params, "token_embedding": {"embedding": table}}
        return jnp.sum(jnp.sin(model.apply({"params": replaced}, TOKENS, **inputs).logits[0]), axis=-1)

    jacobian = jax.jit(jax.jacrev(logits))(params["token_embedding"]["embedding"])  # [T, V, D]
    return np.any(jacobian[:, TOKENS[0]] != 0, axis=-1)


@pytest.mark.parametrize("name", GPTS)
def test_a_token_sees_those_before_it_within_the_window(name):
    model = GPTS[name]
    distance = np.arange(8)[:, None] - np.arange(8)
    reach = {"dense": 8, "banded": model.depth * (WINDOW - 1), "alternating": 8}[name.split(", ")[1]]
    np.testing.assert_array_equal(who_sees_whom(model), (distance >= 0) & (distance <= reach))


def test_one_layer_sees_exactly_its_window():
    distance = np.arange(8)[:, None] - np.arange(8)
    model = GPT(**{**TINY, "depth": 1}, window=WINDOW)
    np.testing.assert_array_equal(who_sees_whom(model), (distance >= 0) & (distance < WINDOW))


def test_of_so_many_layers_all_but_the_first_are_local():
    def windows(**fields):
        return GPT(**TINY, **fields).windows()

    assert windows() == [None]
    assert windows(window=4) == [4]
    assert windows(window=4, window_every=3) == [None, 4, 4]
    # A stack goes through them again and again: of 3 layers with window_every=2 only the one between is local.
    deep = GPT(**{**TINY, "depth": 3}, window=2, window_every=2)
    params = params_of(deep, TOKENS)
    _, sown = jax.jit(lambda p: deep.apply({"params": p}, TOKENS, mutable=["attention_maps"]))(params)
    blocks = sown["attention_maps"]["decoder"]
    reach = [np.argwhere(blocks[f"block_{i}"]["attention"]["weights"][0, 0, -1] > 0).min() for i in range(3)]
    assert reach == [0, 6, 0]


@pytest.mark.parametrize("name", [*(f"{scheme}, alternating" for scheme in SCHEMES), "alibi, banded"])
def test_padding_packing_and_neighbours_do_not_matter(name):
    model, (first, second) = GPTS[name], (texts(7), texts(4, seed=1))
    params = params_of(model, first[None])
    apply = jitted(model, params)

    def rows(*placed):
        """Logits of texts at places in rows of 9 between padding."""
        tokens, mask = texts(2, 9, seed=2), np.zeros((2, 9), bool)
        for row, (text, start) in enumerate(placed):
            tokens[row, start : start + len(text)] = text
            mask[row, start : start + len(text)] = True
        logits = np.asarray(apply(tokens, mask).logits)
        assert np.isfinite(logits).all()
        return [logits[row, start : start + len(text)] for row, (text, start) in enumerate(placed)]

    alone = rows((first, 0), (first, 0))[0], rows((second, 0), (second, 0))[0]  # on the right is padding
    assert np.abs(alone[0][:4] - alone[1]).max() > 1e-2
    for placed in ((0, 0), (2, 5), (1, 3)):
        for ours, expected in zip(rows((first, placed[0]), (second, placed[1])), alone):
            close(ours, expected)

    packed = np.concatenate([second, first, texts(1)])[None]
    segments = np.repeat([1, 2, 0], [4, 7, 1])[None].astype(np.int32)
    positions = np.concatenate([np.arange(4), np.arange(7), [0]])[None].astype(np.int32)
    logits = apply(packed, segment_ids=segments, positions=positions).logits[0]
    close(logits[:4], alone[1])
    close(logits[4:11], alone[0])


def test_only_the_scheme_without_positions_cannot_tell_the_order_of_what_was_before():
    """What precedes the last token is swapped: attention alone is a sum over it, in one layer."""
    both = np.concatenate([TOKENS, TOKENS[:, [2, 1, 0, 3, 4, 5, 6, 7]]])
    for scheme in SCHEMES:
        model = GPT(**{**TINY, "depth": 1}, positions=scheme)
        one, other = jitted(model, params_of(model, TOKENS))(both).logits[:, -1]
        change = np.abs(one - other).max()
        assert change < 1e-5 if scheme == "none" else change > 1e-4, scheme


def test_the_last_place_alone():
    model = GPTS["rotary, dense"]
    apply = jax.jit(model.apply, static_argnames="last_only")
    params = params_of(model, TOKENS)
    whole = apply({"params": params}, TOKENS, last_only=False)
    last = apply({"params": params}, TOKENS, last_only=True)
    assert last.logits.shape == (1, 1, VOCAB)
    close(last.logits, whole.logits[:, -1:])


def test_a_tied_head_is_the_token_table():
    tied, free = GPT(**{**TINY, "tied": True}), GPT(**TINY)
    params = params_of(tied, TOKENS)
    table = params["token_embedding"]["embedding"]
    assert "head" not in params
    untied = {**params, "head": {"kernel": table.T}}
    close(jitted(tied, params)(TOKENS).logits, jitted(free, untied)(TOKENS).logits)


def test_a_fresh_model_finds_every_token_about_equally_likely():
    model = GPT(**{**TINY, "tied": True, "depth": 8}, scan=True)
    variables = jax.jit(model.init)(jax.random.key(0), TOKENS)
    probabilities = jax.nn.softmax(jitted(model, variables["params"])(TOKENS).logits)
    assert np.abs(np.log(probabilities * VOCAB)).max() < 0.5
    out = variables["params"]["decoder"]["blocks"]["mlp"]["down"]["kernel"]
    assert np.std(out) == pytest.approx(0.02 / 16**0.5, rel=0.1)  # GPT-2's, of 2 branches in each of 8 blocks


@pytest.mark.parametrize("fields", [*EXTRAS, {"experts": Experts(2, top_k=2, capacity=2.0)}], ids=range(4))
def test_bfloat16_computes_nearly_the_same(fields):
    model = GPT(**{**TINY, "tied": True}, positions="rotary", **{"rotary": Rotary(), **fields})
    params = params_of(model, TOKENS)
    expected = jitted(model, params)(TOKENS)
    half = jitted(model.clone(dtype=jnp.bfloat16), params)(TOKENS)
    assert half.logits.dtype == jnp.float32
    assert half.tokens.dtype == jnp.bfloat16
    error = np.abs(half.logits - expected.logits).max() / np.abs(expected.logits).max()
    assert 0 < error < 0.05


def test_dropout_is_off_when_deterministic_and_random_otherwise():
    model = GPT(**TINY, dropout=0.2, attention_dropout=0.2)
    params = params_of(model, TOKENS)
    expected = jitted(GPT(**TINY), params)(TOKENS).logits
    close(jitted(model, params)(TOKENS).logits, expected)
    drop = jax.jit(
        lambda key: model.apply({"params": params}, TOKENS, deterministic=False, rngs={"dropout": key}).logits
    )
    one, other = drop(jax.random.key(0)), drop(jax.random.key(1))
    assert min(np.abs(one - expected).max(), np.abs(one - other).max()) > 1e-2


def test_possible_fields_have_no_problems():
    assert not [line for model in GPTS.values() for line in schema.problems(model)]
    assert not list(schema.problems(GPT(**TINY, positions="learned", head_dim=5)))


@pytest.mark.parametrize("scheme", ["alibi", "relative"])
def test_biases_by_distance_are_made_once_for_all_rows(monkeypatch, scheme):
    """[B, H, T, T] in float32 would not fit beside long texts."""
    shapes = []

    def attention(query, key, value, *, bias, **_):
        shapes.append(bias.shape)
        return query

    monkeypatch.setattr("jaxformer.models.attention.attention", attention)
    model = GPT(**TINY, positions=scheme)
    jax.eval_shape(model.init, jax.random.key(0), texts(3, 5), np.ones((3, 5), bool))
    assert shapes == [(1, 4, 5, 5)] * 2
