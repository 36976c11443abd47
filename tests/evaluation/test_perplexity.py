"""Perplexity with a sliding window: exact values, every token once, with enough before it."""

import itertools
import math

import numpy as np
import pytest
from helpers.bigram import Bigram, characters, random_table, words

from jaxformer.errors import UserError
from jaxformer.evaluation.likelihood import perplexity, windows

# After a: a 1/2, b 1/4, é 1/4. After b: a 1/8, b 1/8, é 3/4. After é: a, b, é 1/3, 1/3, 1/3. After <s>: all a.
TABLE = [[0, 1, 0, 0], [0, 1 / 2, 1 / 4, 1 / 4], [0, 1 / 8, 1 / 8, 3 / 4], [0, 1 / 3, 1 / 3, 1 / 3]]
VOCABULARY = ["<s>", "a", "b", "é"]


class Counting(Bigram):
    """log p of a token is minus the number of tokens that the model had seen before it."""

    def token_log_likelihoods(self, pairs):
        super().token_log_likelihoods(pairs)
        return [-np.arange(len(c), len(c) + len(n), dtype=np.float32) for c, n in pairs]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("start", ["bos", "eos"])
def test_a_hand_worked_text(start, stride):
    model = Bigram(words(VOCABULARY, **{start: 0}), TABLE, context_length=3)
    result = perplexity(model, "aabéb", stride)
    probability = 1 * 1 / 2 * 1 / 4 * 3 / 4 * 1 / 3  # <s>a aa ab bé éb
    assert result["tokens"] == 5
    assert result["bytes"] == 6  # é has two
    assert result["loss"] == pytest.approx(-math.log(probability) / 5, rel=1e-6)
    assert result["perplexity"] == pytest.approx(probability ** (-1 / 5), rel=1e-6)
    assert result["bits_per_byte"] == pytest.approx(-math.log2(probability) / 6, rel=1e-6)


def test_token_ids_are_the_same_as_their_text():
    model = Bigram(words(VOCABULARY, bos=0), TABLE)
    expected = perplexity(model, "aabéb")
    assert perplexity(model, np.array([1, 1, 2, 3, 2])) == expected
    assert perplexity(model, [0, 1, 1, 2, 3, 2]) == expected, "the start is put in front only once"
    twice = perplexity(model, [1, 1, 2, 3, 2], text_bytes=12)
    assert twice["bits_per_byte"] == pytest.approx(expected["bits_per_byte"] / 2)


def test_without_a_token_that_begins_texts_the_first_is_only_context():
    text = "abacab"
    tokenizer = characters([text])
    table = random_table(tokenizer.vocab_size)
    ids = tokenizer.encode(text, special=False)
    result = perplexity(Bigram(tokenizer, table, context_length=2), text, 1)
    losses = [-math.log(table[a, b]) for a, b in itertools.pairwise(ids)]
    assert result["tokens"] == 5
    assert result["loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    assert result["bits_per_byte"] == pytest.approx(
        np.mean(losses) / math.log(2), rel=1e-6
    )  # 6 tokens, 6 bytes


@pytest.mark.parametrize("context_length", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("length", [2, 3, 7, 8, 9, 10, 16, 17, 25])
def test_windows_score_each_token_once_with_enough_before_it(length, context_length):
    for stride in range(1, context_length + 1):
        scored = []
        for start, begin, end in windows(length, context_length, stride):
            assert 0 <= start < begin < end <= length
            assert end - 1 - start == min(end - 1, context_length), "as much as the model can see"
            if begin > 1:
                assert begin - start >= min(begin, context_length - stride + 1)
                assert end - begin <= stride
            scored += range(begin, end)
        assert scored == list(range(1, length)), "each once, in order"


def test_stride_one_shows_each_token_all_that_the_model_can_see():
    model = Counting(words(VOCABULARY, bos=0), TABLE, context_length=4)
    seen = [min(before, 4) for before in range(1, 11)]
    assert perplexity(model, "abé" * 3 + "a", 1)["loss"] == np.mean(seen)


def test_windows_are_those_of_a_hand_worked_example():
    """The example in lm-evaluation-harness's `LM.loglikelihood_rolling`: 10 tokens, of which 4 are seen at once."""
    tokenizer = words(["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "B"], bos=10)
    model = Bigram(tokenizer, random_table(11), context_length=4)
    perplexity(model, "0123456789", stride=4)
    assert model.asked == [([10], [0, 1, 2, 3]), ([3], [4, 5, 6, 7]), ([5, 6, 7], [8, 9])]


def test_default_stride_is_half_the_context():
    model = Counting(words(VOCABULARY, bos=0), TABLE, context_length=4)
    assert perplexity(model, "ab" * 9) == perplexity(model, "ab" * 9, 2) != perplexity(model, "ab" * 9, 3)


def test_many_windows_are_asked_in_parts():
    model = Bigram(words(VOCABULARY, bos=0), TABLE, context_length=2)
    result = perplexity(model, "a" * 1000, 1)
    assert result["tokens"] == 1000
    assert result["loss"] == pytest.approx(999 / 1000 * math.log(2), rel=1e-6)


def test_impossible_text():
    result = perplexity(Bigram(words(VOCABULARY, bos=0), TABLE), "b")
    assert result["loss"] == result["perplexity"] == result["bits_per_byte"] == math.inf


@pytest.mark.parametrize("text", ["", []])
def test_nothing_to_score(text):
    with pytest.raises(UserError, match="nothing to score"):
        perplexity(Bigram(words(VOCABULARY, bos=0), TABLE), text)


def test_a_character_that_is_no_token_is_named_with_its_line():
    tokenizer = characters(["ab\n"])
    model = Bigram(tokenizer, random_table(tokenizer.vocab_size))
    with pytest.raises(UserError, match=r"^text, line 3: 'é' \(U\+00E9\) in 'aéb' is not in the vocabulary"):
        perplexity(model, "ab\n\naéb\nb")


def test_one_token_with_nothing_before_it():
    with pytest.raises(UserError, match="nothing to score"):
        perplexity(Bigram(words(VOCABULARY), TABLE), "a")


@pytest.mark.parametrize("stride", [0, -1, 5])
def test_stride_out_of_range(stride):
    with pytest.raises(UserError, match=rf"stride={stride}: expected 1 to 4"):
        perplexity(Bigram(words(VOCABULARY, bos=0), TABLE, context_length=4), "ab", stride)


def test_a_broken_model_is_no_perplexity():
    model = Bigram(words(VOCABULARY, bos=0), np.full((4, 4), np.nan))
    with pytest.raises(UserError, match="NaN"):
        perplexity(model, "ab")
