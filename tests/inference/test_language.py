"""Going on with texts: what the full model says without a cache, for any lengths in a batch and beyond the context."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_writers import (
    CONTEXT,
    GPTS,
    LETTERS,
    best_hypothesis,
    gpt,
    log_softmax,
    next_logits,
    random_variables,
    tokenizer,
)

from jaxformer.config import schema
from jaxformer.decoding.loop import StopStrings
from jaxformer.decoding.sampling import Sampling
from jaxformer.errors import UserError
from jaxformer.inference.writers import CausalModel
from jaxformer.inference.writing import BATCH, Generation
from jaxformer.models.gpt import GPT
from jaxformer.models.mlp import Experts

GREEDY = Sampling(temperature=0)
PROMPTS = ["a", "bad cab", "h.\nface deed bag", "abcdefgh .abcdef"]


def greedy_ids(model, variables, prompt, count, penalty=1.0):
    """Greedy decoding by the full model; where the context is full it goes on from its last half."""
    text, window = [], list(prompt)
    for _ in range(count):
        logits = next_logits(model, variables, window)
        seen = np.unique(window)
        logits[seen] = np.where(logits[seen] < 0, logits[seen] * penalty, logits[seen] / penalty)
        text.append(int(np.argmax(logits)))
        window.append(text[-1])
        if len(window) > CONTEXT:
            window = window[-CONTEXT // 2 :]
    return text


@pytest.mark.parametrize("name", GPTS)
def test_greedy_decoding_is_the_argmax_of_the_full_model(name):
    writer = CausalModel(*gpt(name))
    prompts = [writer.encode(prompt) for prompt in PROMPTS]
    assert max(map(len, prompts)) == CONTEXT
    # The penalty keeps texts from being one letter for ever.
    how = Generation(2 * CONTEXT + 5, Sampling(temperature=0, repetition_penalty=1.5))
    together = [found.text for found in writer.generate(prompts, how)]
    expected = [greedy_ids(*gpt(name)[:2], prompt, how.max_new_tokens, penalty=1.5) for prompt in prompts]
    assert together == [writer.tokenizer.decode(ids) for ids in expected]
    assert all(len(set(text[CONTEXT:])) > 1 for text in together)
    alone = [found.text for prompt in prompts[1:3] for found in writer.generate([prompt], how)]
    assert alone == together[1:3]


def test_the_repetition_penalty_knows_the_prompt():
    writer = CausalModel(*gpt())
    prompt = writer.encode(PROMPTS[1])
    how = Generation(8, Sampling(temperature=0, repetition_penalty=3.0))
    (found,) = writer.generate([prompt], how)
    assert found.text == writer.tokenizer.decode(greedy_ids(*gpt()[:2], prompt, 8, penalty=3.0))
    assert found.text != writer.tokenizer.decode(greedy_ids(*gpt()[:2], prompt, 8))


def test_a_stream_gives_the_tokens_as_they_are_made():
    writer = CausalModel(*gpt())
    prompt = writer.encode("ab")
    stops = StopStrings((), writer.tokenizer.decode)
    ids, settled = [], []
    for chunk in writer.stream([prompt], Generation(40, GREEDY), stops):
        ids += chunk.tokens[0, : chunk.counts[0]].tolist()
        settled.append(stops.settled(0))
        assert settled[-1] == writer.tokenizer.decode(ids)
    assert ids == greedy_ids(*gpt()[:2], prompt, 40)
    assert len(settled) > 3


def test_a_text_that_has_ended_stays_as_it_is_while_others_go_on():
    writer = CausalModel(*gpt(template="gpt"))
    eos = writer.tokenizer.eos_id
    prompts = [writer.encode(letter) for letter in LETTERS[:3]] * 4  # equal ones are drawn anew
    stops = StopStrings((), writer.tokenizer.decode, len(prompts))
    counts = np.zeros(len(prompts), int)
    for chunk in writer.stream(prompts, Generation(60, Sampling(temperature=2.0)), stops):
        counts += chunk.counts
    lengths = [len(ids) for ids in stops.ids]
    assert counts.tolist() == lengths
    assert all(eos not in ids[:-1] for ids in stops.ids)
    assert all(ids[-1] == eos or len(ids) == 60 for ids in stops.ids)
    assert min(lengths) < CONTEXT  # some ended before the context was full,
    assert max(lengths) > 2 * CONTEXT  # and others went on long after


def test_samples_depend_on_their_number_and_not_on_the_batch():
    writer = CausalModel(*gpt())
    prompts = [writer.encode("bad")] * (BATCH + 3)
    how = Generation(12, Sampling(temperature=1.5), seed=7)
    texts = [found.text for found in writer.generate(prompts, how)]
    assert len(set(texts)) > BATCH  # no batch repeats the one before
    assert [found.text for found in writer.generate(prompts[:3], how)] == texts[:3]
    longer = [found.text for found in writer.generate(prompts[:3], Generation(13, how.sampling, seed=7))]
    assert [text[:12] for text in longer] == texts[:3]
    assert [found.text for found in writer.generate(prompts[:3], Generation(12, how.sampling))] != texts[:3]


def test_samples_beyond_the_context_do_not_depend_on_the_batch():
    writer = CausalModel(*gpt())
    prompts = [
        writer.encode(prompt) for prompt in PROMPTS
    ]  # of several lengths: they fill the context one by one
    how = Generation(3 * CONTEXT, Sampling(temperature=1.5, repetition_penalty=1.2), seed=7)
    together = [found.text for found in writer.generate(prompts, how)]
    for number, prompt in enumerate(prompts):
        stops = StopStrings((), writer.tokenizer.decode)
        for _ in writer.stream([prompt], how, stops):
            pass
        assert stops.texts[0] == together[number]
        assert [found.text for found in writer.generate([prompt], how)] == together[number : number + 1]


def test_a_stop_string_ends_a_text_and_one_that_never_comes_is_told():
    writer = CausalModel(*gpt())
    prompts = [writer.encode(prompt) for prompt in PROMPTS[:2]]
    whole = [found.text for found in writer.generate(prompts, Generation(30, GREEDY))]
    stop = whole[0][20:22]
    ended, other = writer.generate(prompts, Generation(30, GREEDY, (stop, "never")))
    assert ended.text == whole[0][: whole[0].index(stop)]
    assert ended.ended == "stop string"
    assert ended.tokens == whole[0].index(stop) + 2
    (never,) = writer.generate(prompts[:1], Generation(30, GREEDY, ("never",)))
    assert (never.text, never.ended, never.tokens) == (whole[0], "length", 30)
    texts = writer.generate_until(prompts, [stop], 30)
    assert texts == [ended.text, other.text]


def test_a_beam_search_is_not_told_how_to_draw():
    """In Python, where no flag says so."""
    assert not schema.problems(Generation(beams=2, length_penalty=1.0))
    (line,) = schema.problems(Generation(sampling=Sampling(temperature=0.5, top_k=3), beams=2))
    assert line == "temperature, top_k: has no effect with beams=2; leave one of them out"


@pytest.mark.parametrize("template", ["gpt", "none"])
def test_beams_find_the_best_continuation_of_all(template):
    model, variables, letters = gpt(template=template, letters="abc")
    writer = CausalModel(model, variables, letters)
    prompts = [writer.encode(prompt) for prompt in ("ab", "cabba", "a" * (CONTEXT - 2))]
    how = Generation(max_new_tokens=3, beams=32, length_penalty=1.0)
    found = list(writer.generate(prompts, how))
    for prompt, continuation in zip(prompts, found):
        best = best_hypothesis(
            lambda ids, prompt=prompt: next_logits(model, variables, [*prompt, *ids]),
            letters.vocab_size,
            letters.eos_id,
            3,
            1.0,
        )
        assert continuation.text == letters.decode(best)
        assert continuation.tokens == len(best)
        assert continuation.ended == ("end of text" if best[-1] == letters.eos_id else "length")
        assert template == "gpt" or len(best) == 3


def test_log_likelihoods_are_the_models_in_the_order_of_the_requests():
    model, variables, letters = gpt("rotary")
    writer = CausalModel(model, variables, letters)
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(BATCH + 8):
        length = CONTEXT + 1 if number == 5 else int(rng.integers(2, CONTEXT + 2))
        ids = rng.integers(0, letters.vocab_size, length).tolist()
        cut = int(rng.integers(1, length))
        pairs.append((ids[:cut], ids[cut:]))
    greedy = greedy_ids(model, variables, [1], 5)
    pairs.append(([1], greedy))
    answers = writer.log_likelihoods(pairs)
    each = writer.token_log_likelihoods(pairs)
    assert answers[-1][1] is True
    for (context, continuation), (total, is_greedy), tokens in zip(pairs, answers, each):
        logits = [
            next_logits(model, variables, [*context, *continuation[:i]]) for i in range(len(continuation))
        ]
        expected = [log_softmax(row)[token] for row, token in zip(logits, continuation)]
        np.testing.assert_allclose(tokens, expected, atol=1e-4)
        assert total == pytest.approx(sum(expected), abs=1e-3)
        assert is_greedy == ([int(np.argmax(row)) for row in logits] == continuation)


def test_padding_takes_no_places_of_experts():
    """Else a short text's second choices would find their experts full of padding."""
    model = GPT(
        vocab_size=11, context_length=32, width=16, depth=1, num_heads=2, experts=Experts(2, capacity=0.5)
    )
    variables = random_variables(model, jnp.zeros((1, 2), jnp.int32))
    writer = CausalModel(model, variables, tokenizer())
    ids = np.random.default_rng(0).integers(0, 11, 20).tolist()
    (found,) = writer.token_log_likelihoods([(ids[:1], ids[1:])])
    tokens = np.zeros((1, 32), np.int32)
    tokens[0, :19], mask = ids[:19], np.arange(32)[None] < 19
    logits = jax.jit(model.apply)(variables, tokens, mask).logits[0]
    expected = [log_softmax(np.asarray(logits[i], np.float64))[ids[i + 1]] for i in range(19)]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_empty_prompt_begins_with_the_token_that_begins_texts():
    with pytest.raises(UserError, match="is empty, and this tokenizer has no token that begins a text"):
        CausalModel(*gpt()).encode("")
    ends = CausalModel(*gpt(template="gpt"))
    assert ends.encode("") == [ends.tokenizer.eos_id]
    assert ends.encode("a") == ends.tokenizer.encode("a")
    begins = CausalModel(*gpt(template="seq2seq"))
    assert begins.encode("") == [begins.tokenizer.bos_id]
    assert begins.encode("a") == [begins.tokenizer.bos_id, begins.tokenizer.hf.token_to_id("a")]


def test_mistakes_are_said_in_a_line():
    writer = CausalModel(*gpt())
    long = [writer.encode("a")] * (BATCH + 1) + [writer.encode("a" * (CONTEXT + 1))]
    for how in (Generation(), Generation(beams=2)):
        with pytest.raises(UserError, match=r"prompt: has 17 tokens, the model's context is 16; shorten it"):
            next(writer.generate(long, how))
    with pytest.raises(UserError, match=r"'é' .* is not in the vocabulary"):
        writer.encode("é")
    assert list(writer.generate([], Generation())) == []
