"""Which tokens are kept, how often they are drawn, and from what randomness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from jaxformer.config import schema
from jaxformer.decoding import sampling as module
from jaxformer.decoding.sampling import BLOCK, Sampling, seen_tokens
from jaxformer.errors import UserError

filtered = jax.jit(module.filtered, static_argnames="sampling")
sample = jax.jit(module.sample, static_argnames="sampling")
nth_true = jax.jit(module.nth_true)

SAMPLINGS = [
    Sampling(),
    Sampling(temperature=0.3),
    Sampling(temperature=1.7),
    Sampling(top_k=1),
    Sampling(top_k=7),
    Sampling(top_k=10_000),
    Sampling(top_p=0.9),
    Sampling(top_p=0.3),
    Sampling(top_p=1e-6),
    Sampling(top_p=1.0),
    Sampling(min_p=0.05),
    Sampling(min_p=1.0),
    Sampling(repetition_penalty=1.3),
    Sampling(repetition_penalty=0.7, temperature=0.8, top_k=40),
    Sampling(temperature=0.8, top_k=40, top_p=0.9),
    Sampling(temperature=1.5, top_k=30, top_p=0.8, min_p=0.1, repetition_penalty=1.2),
]


def transformers_filtered(logits, sampling, prompts):
    """What transformers' own list of processors makes of logits [B, V], after prompts [B, T]."""
    config = GenerationConfig(
        do_sample=True,
        temperature=sampling.temperature,
        top_k=sampling.top_k or 0,
        top_p=1.0 if sampling.top_p is None else sampling.top_p,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        num_beams=1,
    )
    model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_layer=0, n_embd=4, n_head=1, n_positions=8))
    processors = model._get_logits_processor(config, input_ids_seq_length=prompts.shape[1])
    return processors(torch.tensor(prompts), torch.tensor(logits)).numpy()


def ours(logits, sampling, prompts):
    seen = seen_tokens(np.asarray(prompts).tolist(), logits.shape[1])
    return np.asarray(filtered(jnp.array(logits), sampling, seen))


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("vocab_size", [11, 1000])
def test_the_logits_are_those_of_transformers(sampling, vocab_size):
    generator = np.random.default_rng(vocab_size)
    scale = generator.uniform(0.1, 6, (32, 1))
    logits = (generator.normal(size=(32, vocab_size)) * scale).astype(np.float32)
    prompts = generator.integers(0, vocab_size, (32, 9))
    expected = transformers_filtered(logits, sampling, prompts)
    np.testing.assert_allclose(ours(logits, sampling, prompts), expected, rtol=1e-6)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_of_equal_logits_as_many_are_kept_as_in_transformers_and_the_first(sampling):
    # torch's sort leaves open which of equal logits top-p keeps, so its sets are compared up to that.
    generator = np.random.default_rng(0)
    logits = generator.integers(-2, 3, (64, 700)).astype(np.float32)
    prompts = generator.integers(0, 700, (64, 1))
    expected, result = transformers_filtered(logits, sampling, prompts), ours(logits, sampling, prompts)
    np.testing.assert_allclose(np.sort(result), np.sort(expected), rtol=1e-6)
    if sampling.top_p in (None, 1):
        np.testing.assert_allclose(result, expected, rtol=1e-6)
    unfiltered = ours(
        logits, Sampling(sampling.temperature, repetition_penalty=sampling.repetition_penalty), prompts
    )
    for row, kept in zip(unfiltered, result > -np.inf):
        weakest = np.flatnonzero(row == row[kept].min())
        count = kept[weakest].sum()
        assert kept[weakest[:count]].all()


@pytest.mark.parametrize("p", [0.5, 0.95, 0.999])
def test_top_p_of_a_large_vocabulary_is_exact_up_to_rounding(p):
    logits = np.random.default_rng(1).normal(size=(2, 50_257)).astype(np.float32) * np.float32([[1], [4]])
    kept = ours(logits, Sampling(top_p=p), np.zeros((2, 1), int)) > -np.inf
    for row, mask in zip(logits.astype(np.float64), kept):
        order = np.argsort(-row)
        probabilities = np.exp(row - row.max())[order] / np.exp(row - row.max()).sum()
        before = np.cumsum(probabilities) - probabilities  # of the likelier ones
        certain = np.abs(before - p) > 1e-5
        assert certain.mean() > 0.99
        np.testing.assert_array_equal(mask[order][certain], (before < p)[certain])


HARD = [
    Sampling(temperature=0, repetition_penalty=3.0),
    Sampling(temperature=1e-30, top_p=0.5, repetition_penalty=0.1),
    Sampling(temperature=0.3, top_k=2, min_p=1.0),
    Sampling(temperature=9.0, top_k=4, top_p=0.999999, min_p=0.1),
    Sampling(top_p=1e-9),
    Sampling(top_p=1e-40, min_p=1e-40),
    Sampling(temperature=1e-39, min_p=0.1),
    Sampling(temperature=1e-5, top_p=0.9),
    Sampling(temperature=1e300),
    Sampling(repetition_penalty=1e39),
    Sampling(repetition_penalty=1e-40),
]
EXTREMES = st.sampled_from(
    [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, 0.0, -0.0, 1.0, 1.0000001, -50.0]
)


@settings(max_examples=150, deadline=None)
@given(
    row=st.lists(EXTREMES, min_size=6, max_size=6),
    sampling=st.sampled_from(HARD),
    seen=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_whatever_the_logits_a_token_is_kept_and_drawn(row, sampling, seen):
    logits, seen = jnp.array([row], jnp.float32), jnp.array([seen])
    result = filtered(logits, sampling, seen)
    assert not jnp.isnan(result).any()
    assert not (result == jnp.inf).any()
    assert (result > -jnp.inf).any()
    token = int(sample(jax.random.key(0), logits, sampling, seen)[0])
    assert result[0, token] > -jnp.inf


def test_what_is_not_a_number_is_not_kept_and_infinity_is_the_largest():
    nan, inf = np.nan, np.inf
    logits = jnp.array([[nan, 1, 2], [nan, nan, nan], [-inf, -inf, -inf], [0, inf, inf], [-inf, nan, -3]])
    kept = filtered(logits, Sampling()) > -inf
    assert kept.tolist() == [
        [False, True, True],
        [True, False, False],
        [True, False, False],
        [True, True, True],
        [False, False, True],
    ]
    assert sample(jax.random.key(0), logits, Sampling(temperature=0)).tolist() == [2, 0, 0, 1, 2]
    assert sample(jax.random.key(0), logits, Sampling()).tolist()[2:4] in ([0, 1], [0, 2])


def test_temperature_0_takes_the_first_of_the_likeliest_after_the_penalty():
    logits = jnp.array([[1.0, 3.0, 3.0, 2.9], [-1.0, -2.0, -1.1, -5.0]])
    greedy = Sampling(temperature=0, repetition_penalty=1.2, top_k=3)
    assert sample(jax.random.key(0), logits, greedy).tolist() == [1, 0]
    seen = seen_tokens([[1, 2], [0, 0]], 4)  # 3 / 1.2 = 2.5 and -1 * 1.2 = -1.2
    assert sample(jax.random.key(0), logits, greedy, seen).tolist() == [3, 2]
    np.testing.assert_array_equal((filtered(logits, greedy, seen) > -np.inf).argmax(-1), [3, 2])
    np.testing.assert_array_equal((filtered(logits, greedy, seen) > -np.inf).sum(-1), [1, 1])


@pytest.mark.parametrize("temperature", [1e-5, 1e-7, 1e-30, 1e-39, 5e-324])
def test_a_temperature_of_all_but_0_draws_the_likeliest(temperature):
    logits = jnp.array([[1.0, 31.0, 30.0, 29.0], [-1.0, -2.0, -1.1, -5.0]])
    for seed in range(5):
        assert sample(jax.random.key(seed), logits, Sampling(temperature=temperature)).tolist() == [1, 0]


def test_the_tokens_of_a_text_are_seen():
    seen = seen_tokens([[3, 1], [2, 2, 3]], 5)
    assert seen.tolist() == [[False, True, False, True, False], [False, False, True, True, False]]


PROBABILITIES = np.array([0.02, 0.3, 0.04, 0.24, 0.15, 0.01, 0.14, 0.1])
DISTRIBUTIONS = [  # worked by hand from the probabilities
    (Sampling(), PROBABILITIES),
    (Sampling(temperature=0.5), PROBABILITIES**2),
    (Sampling(temperature=2.0), PROBABILITIES**0.5),
    (Sampling(top_k=3), PROBABILITIES * [0, 1, 0, 1, 1, 0, 0, 0]),
    (Sampling(top_p=0.75), PROBABILITIES * [0, 1, 0, 1, 1, 0, 1, 0]),
    (Sampling(min_p=0.12), PROBABILITIES * [0, 1, 1, 1, 1, 0, 1, 1]),
    # squared, the first two are 0.09 and 0.0576 of 0.202, 73% together, and 80% of the best three
    (Sampling(temperature=0.5, top_k=3, top_p=0.8), PROBABILITIES**2 * [0, 1, 0, 1, 0, 0, 0, 0]),
]


def chi_square(counts, expected):
    """The probability of counts at least as far from what is expected."""
    possible = expected > 0
    assert counts[~possible].sum() == 0
    expected = expected[possible] / expected.sum() * counts.sum()
    return stats.chisquare(counts[possible], expected).pvalue


@pytest.mark.parametrize(
    ("sampling", "expected"), DISTRIBUTIONS, ids=lambda x: str(x) if isinstance(x, Sampling) else ""
)
def test_tokens_are_drawn_as_often_as_they_are_likely(sampling, expected):
    logits = jnp.tile(jnp.log(jnp.array(PROBABILITIES, jnp.float32))[None], (20_000, 1))
    tokens = sample(jax.random.key(3), logits, sampling)
    assert chi_square(np.bincount(tokens, minlength=8), expected) > 0.01


def test_tokens_of_all_blocks_of_a_vocabulary_are_drawn_as_often_as_they_are_likely():
    vocab_size = 2 * BLOCK + 88
    logits = np.random.default_rng(0).normal(size=vocab_size).astype(np.float32)
    logits[BLOCK : BLOCK + 40] = -np.inf
    draw = jax.jit(jax.vmap(lambda key: sample(key, jnp.tile(logits[None], (100, 1)), Sampling())))
    counts = np.bincount(np.ravel(draw(jax.random.split(jax.random.key(5), 400))), minlength=vocab_size)
    assert chi_square(counts, np.exp(logits.astype(np.float64))) > 0.01


def test_a_row_does_not_depend_on_what_else_is_in_the_batch():
    key = jax.random.key(7)
    logits = jax.random.normal(jax.random.key(1), (16, 300))
    sampling = Sampling(temperature=1.2, top_k=50, top_p=0.95)
    tokens = sample(key, logits, sampling)
    np.testing.assert_array_equal(sample(key, logits[:5], sampling), tokens[:5])
    np.testing.assert_array_equal(sample(key, logits.at[5:].set(0), sampling)[:5], tokens[:5])
    some = jnp.array([9, 2, 13])
    np.testing.assert_array_equal(sample(key, logits[some], sampling, rows=some), tokens[some])


def test_rows_and_keys_differ():
    logits = jnp.zeros((200, 1000))
    one, two = (sample(jax.random.key(seed), logits, Sampling()) for seed in (0, 1))
    assert len(set(one.tolist())) > 150  # 181 different ones of 200 are to be expected
    assert (one == two).sum() < 5


def test_no_vocabulary_is_sorted():
    for sampling in SAMPLINGS:
        jaxpr = jax.make_jaxpr(lambda logits, key, s=sampling: sample(key, logits, s))(
            jnp.zeros((2, 600)), jax.random.key(0)
        )
        assert "= sort[" not in str(jaxpr)
    assert "= sort[" in str(jax.make_jaxpr(jnp.sort)(jnp.zeros(3)))  # so that is what it would look like


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, BLOCK, BLOCK + 1, 3 * BLOCK - 7]))
def test_the_nth_true_is_found(seed, size):
    generator = np.random.default_rng(seed)
    mask = generator.random((4, size)) < generator.choice([0.02, 0.5, 1])
    mask[:, generator.integers(size)] = True
    n = generator.integers(1, mask.sum(axis=1) + 1)
    expected = [np.flatnonzero(row)[count - 1] for row, count in zip(mask, n)]
    assert nth_true(jnp.array(mask), jnp.array(n, jnp.int32)[:, None])[:, 0].tolist() == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
    ],
)
def test_what_cannot_be_is_named(fields):
    (problem,) = schema.problems(Sampling(**fields))
    (name, value), *_ = fields.items()
    assert problem.startswith((f"{name}={value}: ", f"{name}: {value} is not a finite number"))
    with pytest.raises(UserError, match=name):
        Sampling(**fields).check()


def test_what_can_be_has_no_problems():
    for sampling in SAMPLINGS:
        sampling.check()
