"""Decoding with a cache gives what the whole text gives at once, however its tokens come."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_text import GPTS, SCHEMES, TINY, VOCAB, close, jitted, params_of, texts

from jaxformer.models.gpt import GPT
from jaxformer.models.masks import EMPTY, cached_mask, empty_cache
from jaxformer.models.mlp import Experts
from jaxformer.models.seq2seq import Seq2Seq


def decoder(model, params):
    """Decodes tokens [B, T] in pieces of given lengths, [B, T, V]; the pieces' code is compiled once each."""
    step = jax.jit(
        lambda tokens, mask, cache: model.apply({"params": params}, tokens, token_mask=mask, cache=cache)
    )

    def decode(tokens, pieces, mask=None, length=None):
        mask = np.ones(tokens.shape, bool) if mask is None else mask
        cache = model.start(len(tokens), tokens.shape[1] if length is None else length)
        logits, start = [], 0
        for piece in pieces:
            here = slice(start, start + piece)
            outputs = step(tokens[:, here], mask[:, here], cache)
            cache, start = outputs.cache, start + piece
            logits.append(np.asarray(outputs.logits))
        assert start == tokens.shape[1] == int(cache.index)
        return np.concatenate(logits, axis=1)

    return decode


@pytest.mark.parametrize("name", [f"{scheme}, alternating" for scheme in SCHEMES])
def test_pieces_and_single_tokens_give_what_the_whole_text_does(name):
    model, tokens = GPTS[name], texts(2, 9)
    params = params_of(model, tokens)
    expected = np.asarray(jitted(model, params)(tokens).logits)
    decode = decoder(model, params)
    close(decode(tokens, [3, 3, 3]), expected)
    close(decode(tokens, [1] * 9), expected)
    close(decode(tokens, [1, 3, 1, 3, 1]), expected)

    # Prompts of 1 and 3 tokens, padded on the left; then one token after the other.
    padded = np.concatenate([[[5, 7], [0, 0]], [tokens[0, :7], tokens[1, :7]]], axis=1).astype(np.int32)
    padded[1] = tokens[1]
    mask = np.ones((2, 9), bool)
    mask[0, :2] = False
    logits = decode(padded, [3, 1, 1, 1, 1, 1, 1], mask)
    assert np.isfinite(logits).all()
    close(logits[0, 2:], expected[0, :7])
    close(logits[1], expected[1])


def test_the_whole_prompt_in_one_piece():
    tokens = texts(2, 9)
    model = GPTS["alibi, dense"]
    params = params_of(model, tokens)
    decode = decoder(model, params)
    expected = jitted(model, params)(tokens).logits
    close(decode(tokens, [9]), expected)
    close(decode(tokens, [9], length=14), expected)  # more room than tokens


@pytest.mark.parametrize("scheme", ["sinusoidal", "rotary", "alibi", "relative"])
def test_a_window_needs_no_more_slots_however_long_the_text_is(scheme):
    """The cache is written round and round, pieces run over its end, and rows are padded on the left."""
    model, tokens = GPTS[f"{scheme}, banded"], texts(2, 27)
    params = params_of(model, tokens)
    decode = decoder(model, params)
    assert model.start(2, 27).positions.shape == (2, 6)  # twice the window
    assert model.start(2, 4).positions.shape == (2, 4)
    expected = np.asarray(jitted(model, params)(tokens).logits)
    close(decode(tokens, [1] * 27), expected)
    close(decode(tokens, [3, 1, 3, 1, 1, *[3] * 6]), expected)

    mask = np.ones((2, 27), bool)
    mask[1, :4] = False
    shifted = tokens.copy()
    shifted[1, 4:] = tokens[1, :-4]
    logits = decode(shifted, [3, 3, *[1] * 3, *[3] * 6], mask)
    close(logits[0], expected[0])
    close(logits[1, 4:], expected[1, :-4])


def test_more_tokens_than_slots_are_refused():
    model, tokens = GPTS["rotary, banded"], texts(1, 7)
    params = params_of(model, tokens)
    with pytest.raises(ValueError, match="7 tokens do not fit into a cache of 6"):
        decoder(model, params)(tokens, [7])


def test_experts_with_enough_room_decode_as_they_were_taught():
    model = GPT(**TINY, experts=Experts(3, capacity=3.0))
    tokens = texts(2, 7)
    params = params_of(model, tokens)
    expected = jitted(model, params)(tokens).logits
    close(decoder(model, params)(tokens, [3, 1, 1, 1, 1]), expected)


def test_half_precision_keeps_half_as_much():
    model, tokens = GPTS["rotary, alternating"].clone(dtype=jnp.bfloat16), texts(2, 7)
    params = params_of(model, tokens)
    expected = np.asarray(jitted(model, params)(tokens).logits)
    logits = decoder(model, params)(tokens, [3, 1, 1, 1, 1])
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()


def test_layers_that_are_scanned_over_have_no_cache():
    model, tokens = GPT(**TINY, scan=True), texts(1, 3)
    params = params_of(model, tokens)
    with pytest.raises(ValueError, match="no cache: unroll them"):
        model.apply({"params": params}, tokens, cache=model.start(1, 3))


def test_a_cache_is_a_value_with_a_fixed_structure():
    """As a loop on the device needs it; its dtype is the model's, its heads are the keys'."""
    model = GPTS["learned, banded"]  # with 2 key heads
    cache = model.start(3, 5)
    assert [layer.own.key.shape for layer in cache.layers] == [(3, 2, 5, 4)] * 2
    params = params_of(model, texts(3, 1))
    after = jax.eval_shape(lambda c: model.apply({"params": params}, texts(3, 1), cache=c).cache, cache)
    assert jax.tree.structure(after) == jax.tree.structure(cache)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), cache
    )
    half = model.clone(dtype="bfloat16").start(1, 2)
    assert {x.dtype.name for x in jax.tree.leaves(half.layers)} == {"bfloat16"}


def test_places_by_hand():
    cache = empty_cache(2, slots=4, depth=1, kv_heads=1, head_dim=2)
    valid = np.array([[False, True, True], [True, True, True]])
    new, slots = cache.place(valid)
    np.testing.assert_array_equal(new, [[EMPTY, 0, 1], [0, 1, 2]])
    np.testing.assert_array_equal(slots, [[EMPTY, 0, 1, EMPTY], [0, 1, 2, EMPTY]])
    mask = cached_mask(new, slots, window=2).array(3, 4)
    seen = [[[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0]], [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]]]
    np.testing.assert_array_equal(mask[:, 0], np.array(seen, bool))
    further, rolled = cache.replace(positions=slots, index=np.int32(3)).place(np.ones((2, 2), bool))
    np.testing.assert_array_equal(further, [[2, 3], [3, 4]])
    np.testing.assert_array_equal(rolled, [[3, 0, 1, 2], [4, 1, 2, 3]])  # the oldest slot is taken again


SEQ2SEQ = {
    "vocab_size": VOCAB,
    "context_length": 12,
    "width": 16,
    "encoder_depth": 1,
    "decoder_depth": 2,
    "num_heads": 4,
    "mlp_dim": 24,
}
RELATIVE = {"positions": "relative", "norm": "rms", "norm_position": "pre", "use_bias": False, "head_dim": 6}


@pytest.mark.parametrize("fields", [{}, {"positions": "learned"}, RELATIVE], ids=str)
def test_the_sources_keys_and_values_are_computed_once(fields):
    model = Seq2Seq(**SEQ2SEQ, **fields)
    source, target = texts(2, 5), texts(2, 6, seed=1)
    mask = np.array([[True] * 5, [True] * 3 + [False] * 2])
    params = params_of(model, source, target)
    variables = {"params": params}
    expected = jitted(model, params)(source, target, mask).logits
    context = jax.jit(lambda: model.apply(variables, source, mask, method="encode"))()

    @jax.jit
    def decode(tokens, context, cache):
        return model.apply(variables, tokens, context, mask, cache, method="decode")

    outputs = decode(target[:, :3], context, model.start(2, 6))
    logits = [outputs.logits]
    memory = outputs.cache.layers[1].memory
    assert memory.key.shape == (2, 4, 5, model.size_of_heads)
    for i in range(3, 6):
        outputs = decode(target[:, i : i + 1], None, outputs.cache)
        logits.append(outputs.logits)
    close(np.concatenate(logits, axis=1), expected)
    np.testing.assert_array_equal(outputs.cache.layers[1].memory.key, memory.key)

    def kernels_used(context):
        """The parameters that the computation after a prefill depends on."""
        jaxpr = jax.make_jaxpr(
            lambda p: model.apply({"params": p}, target[:, :1], context, mask, outputs.cache, method="decode")
        )(params)
        read = {v for equation in jaxpr.jaxpr.eqns for v in equation.invars if not hasattr(v, "val")}
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
        return [path for path, v in zip(paths, jaxpr.jaxpr.invars) if v in read]

    of_memory = "['cross_attention']['key']['kernel']"
    assert not [path for path in kernels_used(None) if of_memory in path]
    assert len([path for path in kernels_used(context) if of_memory in path]) == 2
