"""EDA's operations: what each keeps, what it changes, and how much."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxformer.data.text.augment import (
    STOP_WORDS,
    delete_words,
    insert_words,
    places,
    replace_words,
    swap_words,
)
from jaxformer.data.text.thesaurus import word_list

SYNONYMS = {
    "film": ("motion picture", "movie"),
    "good": ("fine", "great", "nice"),
    "plot": ("story",),
    "actor": ("player",),
    "the": ("forbidden",),  # a stop word, so never to be seen
}
THESAURUS = word_list(SYNONYMS.items())
REPLACEMENTS = {name for word, names in SYNONYMS.items() if word != "the" for name in names}
PLAIN = ["film", "good", "plot", "actor", "the", "of", "tree", "seven", "Paris", "it"]
WORDS = st.lists(st.sampled_from([*PLAIN, ",", "...", "-"]), max_size=25)
SEEDS = st.integers(0, 2**32)


@given(WORDS, st.integers(1, 5), SEEDS)
def test_replacing_changes_as_many_words_as_it_says_to_synonyms_and_no_stop_words(words, count, seed):
    before = list(words)
    changed = replace_words(words, count, THESAURUS, np.random.default_rng(seed))
    assert words == before
    assert len(changed) == len(words)
    pairs = {(old, new) for old, new in zip(words, changed) if old != new}
    assert all(new in SYNONYMS[old] for old, new in pairs)
    assert not {old for old, _ in pairs} & STOP_WORDS
    known = {word for word in words if word in SYNONYMS} - STOP_WORDS
    assert len(pairs) == min(count, len(known))  # every word that is chosen gets one synonym, wherever it is


@given(WORDS, st.integers(1, 5), SEEDS)
def test_inserting_adds_as_many_synonyms_and_keeps_the_rest_in_order(words, count, seed):
    changed = insert_words(words, count, THESAURUS, np.random.default_rng(seed))
    known = {word for word in words if word in SYNONYMS} - STOP_WORDS
    added = Counter(changed) - Counter(words)
    assert sum(added.values()) == (count if known else 0)
    assert set(added) <= {name for word in known for name in SYNONYMS[word]}
    assert [word for word in changed if word not in REPLACEMENTS] == words


@given(WORDS, st.integers(1, 5), SEEDS)
def test_swapping_keeps_the_words_and_the_punctuations_places(words, count, seed):
    changed = swap_words(words, count, np.random.default_rng(seed))
    assert Counter(changed) == Counter(words)
    fixed = set(range(len(words))) - set(places(words))
    assert all(changed[index] == words[index] for index in fixed)
    assert sum(old != new for old, new in zip(words, changed)) <= 2 * count


def test_one_swap_swaps_two_places():
    words = [f"w{index}" for index in range(6)]
    seen = set()
    for seed in range(400):
        changed = swap_words(words, 1, np.random.default_rng(seed))
        seen.add(tuple(index for index in range(6) if changed[index] != words[index]))
    assert {len(places) for places in seen} == {2}
    assert len(seen) == 15  # every pair of places is drawn


@given(WORDS, st.floats(0.01, 1), SEEDS)
def test_deleting_keeps_the_order_and_never_empties(words, probability, seed):
    changed = delete_words(words, probability, np.random.default_rng(seed))
    rest = iter(words)
    assert all(word in rest for word in changed)  # a subsequence
    assert bool(places(changed)) == bool(places(words))
    assert [word for word in changed if not places([word])] == [word for word in words if not places([word])]


def test_deleting_everything_leaves_any_one_of_the_words():
    left = {tuple(delete_words(["a", "b", ",", "c"], 1.0, np.random.default_rng(seed))) for seed in range(60)}
    assert left == {("a", ","), ("b", ","), (",", "c")}


def test_deletion_has_its_probability():
    rng = np.random.default_rng(0)
    share = 1 - np.mean([len(delete_words(["w"] * 50, 0.2, rng)) for _ in range(400)]) / 50
    assert share == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / 20_000))


def test_synonyms_take_over_capitals_and_punctuation():
    words = ["“Plot,", "(ACTOR)", "plot's", "film."]
    changed = replace_words(
        words, 9, word_list((SYNONYMS | {"film": ("movie",)}).items()), np.random.default_rng(0)
    )
    assert changed == ["“Story,", "(PLAYER)", "plot's", "movie."]


def test_the_stop_words_are_those_of_the_papers_code():
    assert len(STOP_WORDS) == 127  # NLTK's list before it took in contractions
    assert {"i", "now", "the", "not", "don", "s", "t"} <= STOP_WORDS
    assert not {"", "film", "no one"} & STOP_WORDS
