"""Beam search against all sequences there are, against transformers, and against its own definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.tree_util import Partial
from transformers import GPT2Config, GPT2LMHeadModel

from jaxformer.config import schema
from jaxformer.decoding import beam
from jaxformer.decoding.beam import repeat_rows, take_rows
from jaxformer.decoding.loop import Rules, stream
from jaxformer.decoding.sampling import Sampling
from jaxformer.inference.writing import Generation

EOS, PAD = 1, 2
STATIC = ("beams", "max_new_tokens", "eos_id", "pad_id", "length_penalty", "reorder")
search = jax.jit(beam.beam_search, static_argnames=STATIC)


def second_order(table, state, tokens):
    """A model whose next token depends on the last two: so a state that is not reordered shows."""
    logits = table[state["before"], tokens]
    return logits, {"before": tokens, "read": state["read"] + 1}


def model(batch, vocab_size, beams, seed=0, scale=2.0):
    """A step, its state for a search, and the first logits."""
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(vocab_size, vocab_size, vocab_size)).astype(np.float32) * scale
    first = generator.normal(size=(batch, vocab_size)).astype(np.float32) * scale
    state = {"before": jnp.zeros(batch, jnp.int32), "read": jnp.int32(0)}
    return Partial(second_order, jnp.array(table)), repeat_rows(state, batch, beams), jnp.array(first)


def log_probability(step, first, ids):
    """Of a sequence after a prompt with first logits [V], in float64."""
    table, total, before, logits = np.asarray(step.args[0], np.float64), 0.0, 0, np.asarray(first, np.float64)
    for token in ids:
        total += logits[token] - np.log(np.exp(logits).sum())
        before, logits = token, table[before, token]
    return total


def score(step, first, ids, alpha):
    return log_probability(step, first, ids) / ((5 + len(ids)) / 6) ** alpha


def all_hypotheses(vocab_size, n):
    """Every sequence that ends with the end token or has n tokens."""
    others = [token for token in range(vocab_size) if token != EOS]
    for length in range(n):
        for prefix in itertools.product(others, repeat=length):
            yield [*prefix, EOS]
    yield from (list(ids) for ids in itertools.product(others, repeat=n))


def listed(result, row):
    """The hypotheses of a prompt, and their scores."""
    tokens, lengths, scores = (np.asarray(x)[row] for x in result)
    return [ids[:n].tolist() for ids, n in zip(tokens, lengths)], scores


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize(("vocab_size", "n"), [(4, 4), (5, 3), (3, 1)])
def test_a_beam_that_is_wide_enough_finds_the_best_of_all_sequences(vocab_size, n, alpha):
    beams = vocab_size * (vocab_size - 1) ** (n - 1)
    step, state, first = model(3, vocab_size, beams, seed=n)
    result = search(
        step, state, first, beams=beams, max_new_tokens=n, eos_id=EOS, pad_id=PAD, length_penalty=alpha
    )
    hypotheses = list(all_hypotheses(vocab_size, n))
    for row in range(3):
        best = sorted(((score(step, first[row], ids, alpha), ids) for ids in hypotheses), reverse=True)[
            :beams
        ]
        found, scores = listed(result, row)
        assert found == [ids for _, ids in best]
        np.testing.assert_allclose(scores, [value for value, _ in best], rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.6])
@pytest.mark.parametrize("beams", [1, 3, 4])
def test_hypotheses_are_in_order_and_have_the_scores_that_are_theirs(beams, alpha):
    step, state, first = model(6, 9, beams, seed=beams)
    result = search(
        step, state, first, beams=beams, max_new_tokens=8, eos_id=EOS, pad_id=PAD,
        length_penalty=alpha,
    )  # fmt: skip
    assert result[0].shape == (6, beams, 8)
    assert result[0].dtype == result[1].dtype == jnp.int32
    for row in range(6):
        found, scores = listed(result, row)
        assert len({tuple(ids) for ids in found}) == beams
        assert (np.diff(scores) <= 0).all()
        np.testing.assert_allclose(scores, [score(step, first[row], ids, alpha) for ids in found], rtol=1e-5)
        for ids, tokens in zip(found, np.asarray(result[0][row])):
            assert ids[-1] == EOS or len(ids) == 8
            assert EOS not in ids[:-1]
            assert (tokens[len(ids) :] == PAD).all()


def test_a_wider_beam_finds_nothing_worse_on_small_models_and_the_widest_the_best():
    # It may on large ones: a prefix that a narrow beam keeps can be pushed out of a wider one.
    for seed in range(5):
        best = []
        for beams in (1, 4, 108):
            step, state, first = model(4, 4, beams, seed=seed)
            result = search(step, state, first, beams=beams, max_new_tokens=4, eos_id=EOS, pad_id=PAD)
            best.append(np.asarray(result[2][:, 0]))
        assert (best[0] <= best[2] + 1e-6).all()
        assert (best[1] <= best[2] + 1e-6).all()


@pytest.mark.parametrize("n", [1, 6, 20])
def test_a_beam_of_1_without_length_penalty_is_greedy_decoding(n):
    step, state, first = model(16, 7, 1, scale=1.0)
    tokens, lengths, _ = search(
        step, state, first, beams=1, max_new_tokens=n, eos_id=EOS, pad_id=PAD, length_penalty=0.0
    )
    chunks = list(
        stream(
            step, state, first, Rules(Sampling(temperature=0), (EOS,), PAD), key=jax.random.key(0), max_new_tokens=n,
        )
    )  # fmt: skip
    expected = np.concatenate([chunk.tokens for chunk in chunks], axis=1)
    expected = np.pad(expected, [(0, 0), (0, n - expected.shape[1])], constant_values=PAD)
    np.testing.assert_array_equal(tokens[:, 0], expected)
    np.testing.assert_array_equal(lengths[:, 0], sum(chunk.counts for chunk in chunks))
    assert n == 1 or len(set(lengths[:, 0].tolist())) > 1


@pytest.mark.parametrize("beams", [2, 4, 7])
def test_hypotheses_are_those_of_transformers(beams):
    torch.manual_seed(5)
    config = GPT2Config(
        vocab_size=10, n_layer=0, n_embd=16, n_head=1, n_positions=10, tie_word_embeddings=False
    )
    module = GPT2LMHeadModel(config).eval()  # without layers: the logits depend on a token and its position
    with torch.no_grad():
        module.transformer.wpe.weight.normal_(0, 0.02)
        module.lm_head.weight.normal_(0, 0.25)
        tables = module(torch.arange(10)[:, None].expand(10, 10)).logits.numpy()  # [token, position, V]
    prompts = torch.arange(2, 10)[:, None]
    expected = module.generate(
        prompts, attention_mask=torch.ones_like(prompts), do_sample=False, num_beams=beams,
        num_return_sequences=beams, max_new_tokens=9, length_penalty=0.0,
        early_stopping="never", eos_token_id=EOS, pad_token_id=PAD,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    step = Partial(
        lambda tables, position, tokens: (tables[tokens, position], position + 1), jnp.array(tables)
    )
    tokens, lengths, scores = search(
        step, jnp.int32(1), jnp.array(tables[2:, 0]), beams=beams, max_new_tokens=9, eos_id=EOS, pad_id=PAD,
        length_penalty=0.0,
    )  # fmt: skip
    sequences = expected.sequences[:, 1:].numpy().reshape(8, beams, -1)
    np.testing.assert_allclose(scores, expected.sequences_scores.numpy().reshape(8, beams), rtol=1e-4)
    np.testing.assert_array_equal(tokens[:, :, : sequences.shape[2]], sequences)
    assert len(set(np.ravel(lengths).tolist())) > 2


def test_the_search_goes_on_while_a_longer_hypothesis_may_become_the_best():
    # An end at once has log 0.6 / (6 / 6). Ten times token 0 have log 0.4 / (15 / 6): worse only at the beginning.
    step = Partial(lambda state, tokens: (jnp.array([[50.0, 0.0, 0.0]]), state))
    first = jnp.log(jnp.array([[0.4, 0.6, 1e-9]]))
    result = search(
        step, None, first, beams=1, max_new_tokens=10, eos_id=EOS, pad_id=PAD,
        length_penalty=1.0,
    )  # fmt: skip
    found, scores = listed(result, 0)
    assert found == [[0] * 10]
    np.testing.assert_allclose(scores, [-0.3665], rtol=1e-3)


def test_a_prompt_does_not_depend_on_the_others():
    options = {
        "beams": 3,
        "max_new_tokens": 12,
        "eos_id": EOS,
        "pad_id": PAD,
    }
    step, state, first = model(8, 6, 3)
    together = search(step, state, first, **options)
    for row in range(8):
        alone = search(step, model(1, 6, 3)[1], first[row : row + 1], **options)
        np.testing.assert_array_equal(alone[0][0], together[0][row])
        np.testing.assert_allclose(alone[2][0], together[2][row], rtol=1e-6)


def test_the_search_ends_when_no_beam_can_become_better():
    step, state, first = model(4, 6, 3)
    calls = []

    def counted(state, tokens):
        jax.debug.callback(lambda: calls.append(1))
        return step(state, tokens)

    options = {"beams": 3, "max_new_tokens": 200, "eos_id": EOS, "pad_id": PAD}
    jax.block_until_ready(search(Partial(counted), state, first, **options))
    jax.effects_barrier()
    assert 0 < len(calls) < 199


def test_hypotheses_that_there_are_not_have_no_score():
    step, state, first = model(2, 3, 8)
    tokens, lengths, scores = search(step, state, first, beams=8, max_new_tokens=2, eos_id=EOS, pad_id=PAD)
    # eos; a eos, b eos; a a, a b, b a, b b: seven
    assert (lengths[:, :7] > 0).all()
    assert lengths[:, 7].tolist() == [0, 0]
    assert (scores[:, 7] == -jnp.inf).all()
    assert (tokens[:, 7] == PAD).all()


def test_the_callers_reorder_takes_the_place_of_the_default():
    step, state, first = model(5, 6, 4)
    options = {"beams": 4, "max_new_tokens": 7, "eos_id": EOS, "pad_id": PAD}
    expected = search(step, state, first, **options)
    stacked = {
        "before": jnp.stack([state["before"]] * 2),
        "read": state["read"],
    }  # [2, B * K]: not by its first axis

    def unstacked(state, tokens):
        logits, state = step({"before": state["before"][1], "read": state["read"]}, tokens)
        return logits, {"before": jnp.stack([state["before"]] * 2), "read": state["read"]}

    def reorder(state, rows):
        return {"before": state["before"][:, rows], "read": state["read"]}

    for one, two in zip(search(Partial(unstacked), stacked, first, reorder=reorder, **options), expected):
        np.testing.assert_array_equal(one, two)
    wrong = search(Partial(unstacked), stacked, first, **options)
    assert (wrong[0] != expected[0]).any()


def test_rows_are_repeated_and_taken_where_there_are_as_many():
    state = {"cache": jnp.arange(6.0).reshape(3, 2), "index": jnp.int32(5), "other": jnp.arange(4)}
    repeated = repeat_rows(state, 3, 2)
    assert repeated["cache"].tolist() == [[0, 1], [0, 1], [2, 3], [2, 3], [4, 5], [4, 5]]
    assert int(repeated["index"]) == 5
    taken = take_rows(repeated, jnp.array([4, 4, 0, 1, 2, 2]))
    assert taken["cache"].tolist() == [[4, 5], [4, 5], [0, 1], [0, 1], [2, 3], [2, 3]]
    assert taken["other"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("wrong", [{"beams": 0}, {"max_new_tokens": 0}, {"length_penalty": -1.0}])
def test_what_cannot_be_is_refused(wrong):
    (name,) = wrong
    assert name in schema.problems(Generation(**wrong))[0]
