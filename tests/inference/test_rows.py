"""A text is written as if it were alone, whatever stands beside it: greedy, drawn or searched."""

import logging
from dataclasses import replace
from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_writers import GPTS, SEQ2SEQS, SIZES, random_variables, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxformer.decoding.sampling import Sampling
from jaxformer.errors import UserError
from jaxformer.inference.writers import CausalModel, TextToText
from jaxformer.inference.writing import Generation, generation
from jaxformer.models.gpt import GPT
from jaxformer.models.mlp import Experts
from jaxformer.models.seq2seq import Seq2Seq

CONTEXT, LETTERS = 64, "abcdefgh .\n"
SMALL = {**SIZES, "context_length": CONTEXT}
DECODERS = {
    **{name: GPTS[name] for name in ("learned", "alibi", "windows", "every other layer")},
    "experts": {"experts": Experts(2, top_k=1, capacity=0.5)},
    "experts and windows": {"window": 5, "experts": Experts(4, capacity=0.5)},
}
HOW = {
    "greedy": Generation(30, Sampling(temperature=0)),
    "penalty": Generation(70, Sampling(temperature=0, repetition_penalty=1.5)),
    "drawn": Generation(70, Sampling(temperature=1.2, top_p=0.9, repetition_penalty=1.1), seed=3),
    "stops": Generation(30, Sampling(temperature=1.0), stops=("a", "bc"), seed=1),
    "beams": Generation(30, beams=3),
    "long beams": Generation(30, beams=2, length_penalty=2.0, stops=("ab",)),
}
PROMPTS = ["It", "b" * 55, "abc dec bad", ".", "ab" * 32]


@cache
def decoder(name):
    made = tokenizer("gpt", LETTERS + "It")
    model = GPT(vocab_size=made.vocab_size, depth=2, tied=False, **SMALL, **DECODERS[name])
    return CausalModel(model, random_variables(model, jnp.zeros((1, 2), jnp.int32)), made)


@cache
def translator(name):
    made = tokenizer("seq2seq", LETTERS + "It")
    depths = {"encoder_depth": 1, "decoder_depth": 2}
    model = Seq2Seq(vocab_size=made.vocab_size, **SMALL, **depths, **SEQ2SEQS[name])
    example = jnp.zeros((1, 2), jnp.int32)
    return TextToText(model, random_variables(model, example, example), made)


def assert_alone(writer, prompts, how):
    ids = [writer.encode(prompt) for prompt in prompts]
    for row, together in zip(ids, writer.generate(ids, how), strict=True):
        assert [together] == list(writer.generate([row], how))


QUICK = [("learned", "beams"), ("learned", "drawn"), ("experts and windows", "penalty")]
SLOW = [(name, how) for name in DECODERS for how in HOW if (name, how) not in QUICK]


@pytest.mark.parametrize(
    ("name", "how"), [*QUICK, *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW)]
)
def test_a_text_goes_on_as_if_it_were_alone(name, how):
    assert_alone(decoder(name), PROMPTS, HOW[how])


@pytest.mark.parametrize(
    "how", ["beams", *(pytest.param(how, marks=pytest.mark.slow) for how in HOW if how != "beams")]
)
@pytest.mark.parametrize("name", SEQ2SEQS)
def test_a_text_is_translated_as_if_it_were_alone(name, how):
    assert_alone(translator(name), ["It", "b" * 55, "abc dec bad"], HOW[how])


@pytest.mark.slow
@given(
    st.lists(st.text(LETTERS, min_size=1, max_size=CONTEXT), min_size=2, max_size=5, unique=True),
    st.integers(1, 40),
    st.sampled_from([1, 2]),
)
@settings(max_examples=8, deadline=None)
def test_any_prompts_and_any_lengths(prompts, tokens, beams):
    sampling = Sampling() if beams > 1 else Sampling(temperature=0.9)
    prompts = [*prompts, "a" * CONTEXT][:5]
    assert_alone(decoder("learned"), list(dict.fromkeys(prompts)), Generation(tokens, sampling, beams=beams))


def test_what_ends_a_search_is_said():
    """Beside a prompt that leaves room for ten tokens another one has its thirty."""
    made = tokenizer("none", LETTERS + "It")  # nothing ends a text
    model = GPT(vocab_size=made.vocab_size, depth=1, tied=False, **SMALL)
    writer = CausalModel(model, random_variables(model, jnp.zeros((1, 2), jnp.int32)), made)
    found = list(writer.generate([writer.encode("It"), writer.encode("b" * 55)], Generation(30, beams=2)))
    assert [(one.tokens, one.ended) for one in found] == [(30, "length"), (CONTEXT + 1 - 55, "context")]
    (drawn,) = writer.generate([writer.encode("b" * 55)], Generation(30))
    assert (drawn.tokens, drawn.ended) == (30, "length")  # it goes on from the last half of the context
    long = list(translator("post").generate([[4, 1]], Generation(500, Sampling(temperature=0))))
    assert [one.ended for one in long] in (["context"], ["end of text"])


def test_equal_prompts_are_drawn_anew_and_others_do_not_matter():
    writer = decoder("learned")
    one, other = writer.encode("bad"), writer.encode("cab")
    how = Generation(12, Sampling(temperature=1.5), seed=7)
    first, second = (found.text for found in writer.generate([one, one], how))
    assert first != second
    mixed = [found.text for found in writer.generate([other, one, other, one], how)]
    assert (mixed[1], mixed[3]) == (first, second)


def test_likelihoods_do_not_see_their_batch():
    for name in ("alibi", "experts"):
        writer, rng = decoder(name), np.random.default_rng(0)
        texts = [rng.integers(0, 8, length).tolist() for length in (3, 64, 9, 33, 65)]
        pairs = [(ids[:1], ids[1:]) for ids in texts]
        for pair, together in zip(pairs, writer.token_log_likelihoods(pairs), strict=True):
            (alone,) = writer.token_log_likelihoods([pair])
            np.testing.assert_array_equal(together, alone, err_msg=name)


def test_special_tokens_that_are_written_are_told(caplog):
    writer = decoder("learned")
    made = tokenizer("bert", LETTERS)
    marked = TextToText.__new__(TextToText)
    marked.tokenizer, marked.special = made, {made.pad_id, made.mask_id}
    with caplog.at_level(logging.WARNING):
        writer.warn_of_special([[1, 2, 3]])
        assert not caplog.messages
        marked.warn_of_special([[made.mask_id, 7, made.pad_id], [made.pad_id]])
    (line,) = caplog.messages
    assert line == "3 of 4 tokens that were written are special ones ([MASK], [PAD]), which are not shown"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("seed", 2**32),
        ("max_new_tokens", 0),
        ("beams", 0),
        ("length_penalty", -1.0),
        ("stop", 5),
    ],
)
def test_impossible_values_are_named_before_anything_is_written(field, value):
    arguments = {"max_new_tokens": 5, "stop": (), "seed": 0, "beams": 1, "length_penalty": 0.6}
    with pytest.raises(UserError, match=field):
        generation(**{**arguments, field: value})
    assert generation(**arguments) == replace(Generation(), max_new_tokens=5)


def test_a_prompt_that_cannot_be_encoded_is_named():
    with pytest.raises(UserError, match=r"prompt 2: 'Ä' .*is not in the vocabulary"):
        decoder("learned").encoded([("It", "prompt 1"), ("ÄÖ", "prompt 2")])
    with pytest.raises(UserError, match="the second: has 65 tokens, the model's context is 64; shorten it"):
        decoder("learned").encoded([("It", "the first"), ("a" * 65, "the second")])
