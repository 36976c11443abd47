"""Augmentation of text: what each operation keeps and changes, and that tokens, masks and types still fit."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as HuggingFace

from jaxformer.config import schema
from jaxformer.data.text.augment import (
    Eda,
    RandomDeletion,
    RandomInsertion,
    RandomSwap,
    SynonymReplacement,
    TokenCutoff,
)
from jaxformer.data.text.text_transforms import Bound, TextTransform
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.errors import UserError

SYNONYMS = {
    "film": ("motion picture", "movie"),
    "good": ("fine", "great", "nice"),
    "plot": ("story",),
    "actor": ("player",),
}
PLAIN = ["film", "good", "plot", "actor", "the", "of", "tree", "seven", "Paris", "it", ",", "...", "-"]
WORDS = st.lists(st.sampled_from(PLAIN), max_size=25)
SEEDS = st.integers(0, 2**32)

VOCABULARY = """
    [PAD] [UNK] [CLS] [SEP] [MASK] film movie good fine great nice plot story play actor motion picture the of tree
    seven paris it , . ##er ##s
"""
PIECES = VOCABULARY.split()
CLS, SEP, UNK = PIECES.index("[CLS]"), PIECES.index("[SEP]"), PIECES.index("[UNK]")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """A WordPiece tokenizer of a few words, made with the library alone."""
    hf = HuggingFace(
        models.WordPiece({piece: index for index, piece in enumerate(PIECES)}, unk_token="[UNK]")
    )
    hf.normalizer, hf.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    hf.decoder = decoders.WordPiece()
    hf.add_special_tokens([AddedToken(piece, special=True) for piece in PIECES[:5]])
    return Tokenizer(hf)


@pytest.fixture(scope="module")
def thesaurus(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text("\n".join(f"{word}: {', '.join(names)}" for word, names in SYNONYMS.items()))
    return str(path)


def example(tokenizer: Tokenizer, first: str, second: str | None = None) -> dict:
    """[CLS] first [SEP], or [CLS] first [SEP] second [SEP], as BERT's."""
    tokens = [CLS, *tokenizer.encode(first, special=False), SEP]
    types = [0] * len(tokens)
    if second is not None:
        tokens += [*tokenizer.encode(second, special=False), SEP]
        types += [1] * (len(tokens) - len(types))
    return {
        "tokens": np.array(tokens, np.int32),
        "token_mask": np.ones(len(tokens), bool),
        "token_types": np.array(types, np.int32),
        "labels": 1,
    }


def text(tokenizer: Tokenizer, result: dict) -> str:
    return tokenizer.decode(result["tokens"])


def every(thesaurus: str) -> list[TextTransform]:
    return [
        SynonymReplacement(thesaurus, 0.3),
        RandomInsertion(thesaurus, 0.3),
        RandomSwap(0.3),
        RandomDeletion(0.3),
        Eda(thesaurus),
        TokenCutoff(0.3),
    ]


@pytest.mark.parametrize(
    ("number", "alpha", "count"), [(1, 0.1, 1), (19, 0.1, 1), (20, 0.1, 2), (39, 0.2, 7)]
)
def test_the_number_of_changes_is_the_papers(thesaurus, tokenizer, number, alpha, count):
    """n = max(1, int(alpha * number of words)); punctuation does not count as words."""
    words = ["film"] * number + [","] * 30
    transform = RandomInsertion(thesaurus, alpha)
    synonyms = transform.load(tokenizer)
    assert len(transform.augment(words, np.random.default_rng(0), synonyms)) == len(words) + count


@settings(max_examples=40, deadline=None)
@given(words=WORDS, second=st.none() | WORDS, seed=SEEDS)
def test_what_comes_out_fits_together(tokenizer, thesaurus, words, second, seed):
    given_ = example(tokenizer, " ".join(words), None if second is None else " ".join(second))
    copies = {key: np.array(value) for key, value in given_.items()}
    first, rest = given_["tokens"].tolist().index(SEP), []
    if second is not None:
        rest = given_["tokens"][first:].tolist()
    for transform in every(thesaurus):
        result = transform.bind(tokenizer)(given_, np.random.default_rng(seed))
        tokens = result["tokens"]
        assert result.keys() == given_.keys()
        assert {result[key].shape for key in ("tokens", "token_mask", "token_types")} == {tokens.shape}
        for key in ("tokens", "token_mask", "token_types"):
            assert result[key].dtype == given_[key].dtype
        assert tokens[0] == CLS
        assert tokens[-1] == SEP
        assert len(tokens) <= len(given_["tokens"])
        cut = tokens.tolist().index(SEP)
        if second is not None:
            assert tokens[cut:].tolist() == rest
        np.testing.assert_array_equal(result["token_types"], np.arange(len(tokens)) > cut)
        assert result["labels"] == 1
    for key, value in copies.items():
        np.testing.assert_array_equal(given_[key], value)


def test_only_the_first_text_of_a_pair_changes(tokenizer, thesaurus):
    pair = example(tokenizer, "good film", "good film")
    transform = SynonymReplacement(thesaurus, 1.0).bind(tokenizer, max_length=20)
    for seed in range(20):
        first, second = text_of_parts(tokenizer, transform(pair, np.random.default_rng(seed)))
        assert set(first.split()) & {"fine", "great", "nice"}
        assert set(first.split()) & {"movie", "motion"}
        assert second == "good film"


def test_an_empty_first_text_leaves_the_second_alone(tokenizer, thesaurus):
    pair = example(tokenizer, "", "good film")
    for transform in every(thesaurus)[:-1]:
        assert transform.bind(tokenizer)(pair, np.random.default_rng(0)) is pair


def text_of_parts(tokenizer: Tokenizer, result: dict) -> tuple[str, str]:
    tokens = result["tokens"].tolist()
    cut = tokens.index(SEP)
    return tokenizer.decode(tokens[:cut]), tokenizer.decode(tokens[cut:])


def change_words(example: dict, tokenizer: Tokenizer, change, max_length: int | None = None) -> dict:
    return Bound(TextTransform(), tokenizer, None, max_length).change_words(example, change)


def test_a_longer_text_loses_its_end_unless_there_is_room(tokenizer):
    given_ = example(tokenizer, "the film of seven actors")
    added = ["the", "good", "film", "of", "seven", "actors"]
    assert text(tokenizer, change_words(given_, tokenizer, lambda _: added)) == "the good film of seven actor"
    assert (
        text(tokenizer, change_words(given_, tokenizer, lambda _: added, 8)) == "the good film of seven actor"
    )
    roomy = change_words(given_, tokenizer, lambda _: added, 9)
    assert text(tokenizer, roomy) == "the good film of seven actors"
    assert roomy["token_mask"].tolist() == [True] * 9


def test_a_word_that_is_not_in_the_vocabulary_stays_unknown_and_is_moved_like_others(tokenizer):
    given_ = example(tokenizer, "xyzzy film")
    result = change_words(given_, tokenizer, lambda words: words[::-1])
    assert result["tokens"].tolist() == [CLS, PIECES.index("film"), UNK, SEP]


def test_words_that_do_not_change_leave_the_tokens_alone(tokenizer):
    given_ = example(tokenizer, "the film")
    given_["tokens"][1:3] = PIECES.index("##s"), PIECES.index("film")  # would be encoded in another way
    assert change_words(given_, tokenizer, list) is given_


def test_an_empty_text_stays_empty(tokenizer, thesaurus):
    given_ = example(tokenizer, "")
    for transform in every(thesaurus):
        np.testing.assert_array_equal(
            transform.bind(tokenizer)(given_, np.random.default_rng(0))["tokens"], [CLS, SEP]
        )


def test_without_a_mask_and_types_none_are_made(tokenizer, thesaurus):
    given_ = {"tokens": example(tokenizer, "good film , good plot")["tokens"], "labels": 0}
    result = SynonymReplacement(thesaurus, 0.9).bind(tokenizer)(given_, np.random.default_rng(0))
    assert result.keys() == {"tokens", "labels"}
    assert result["tokens"].tolist() != given_["tokens"].tolist()


def test_a_synonym_that_cannot_be_spelt_leaves_the_example_as_it_is(thesaurus):
    letters = HuggingFace(models.WordLevel({letter: index for index, letter in enumerate("plot ")}))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    letters.decoder = decoders.Fuse()
    given_ = {"tokens": np.array([0, 1, 2, 3], np.int32), "labels": 0}  # "plot"; "story" has letters it lacks
    bound = SynonymReplacement(thesaurus).bind(Tokenizer(letters))
    assert bound(given_, np.random.default_rng(0)) is given_


def test_a_byte_level_tokenizer_keeps_the_space_before_the_text():
    """GPT-2's tokens differ with a space before: here every token is a byte, the space being "Ġ"."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    hf = HuggingFace(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf.decoder = decoders.ByteLevel()
    bytewise = Tokenizer(hf)
    for start in ("", " "):
        given_ = {"tokens": np.array(bytewise.encode(start + "née à Paris"), np.int32), "labels": 0}
        result = change_words(given_, bytewise, lambda words: words[::-1])
        assert text(bytewise, result) == start + "Paris à née"


# --- Eda and cutoff


def test_eda_does_each_operation_a_quarter_of_the_time_and_leaves_its_share_alone(tokenizer, thesaurus):
    words = ["tree", "of", "good", "seven", "Paris"]  # every operation shows, and shows which it was
    transform = Eda(thesaurus, share=0.8, alpha_deletion=0.5)
    synonyms = transform.load(tokenizer)
    kinds: Counter[str] = Counter()
    rng = np.random.default_rng(0)
    for _ in range(4000):
        changed = transform.augment(words, rng, synonyms)
        if changed == words:
            kinds["none"] += 1
        elif len(changed) != len(words):
            kinds["insertion" if len(changed) > len(words) else "deletion"] += 1
        else:
            kinds["swap" if Counter(changed) == Counter(words) else "replacement"] += 1
    unchanged_by_deletion = 0.2 * 0.5**5
    expected = dict.fromkeys(("replacement", "insertion", "swap"), 0.2)
    expected |= {"deletion": 0.2 - unchanged_by_deletion, "none": 0.2 + unchanged_by_deletion}
    for kind, share in expected.items():
        assert kinds[kind] / 4000 == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 4000)), kind


def test_an_operation_with_alpha_0_is_left_out(tokenizer, thesaurus):
    transform = Eda(thesaurus, 0, 0, 0.1, 0, share=1.0)
    synonyms = transform.load(tokenizer)
    words = ["tree", "of", "good", "seven"]
    changed = [transform.augment(words, np.random.default_rng(seed), synonyms) for seed in range(50)]
    assert all(Counter(result) == Counter(words) and result != words for result in changed)


@settings(max_examples=40, deadline=None)
@given(words=WORDS, share=st.floats(0.01, 1), seed=SEEDS)
def test_cutoff_hides_its_share_but_no_special_token_and_not_everything(tokenizer, words, share, seed):
    given_ = example(tokenizer, " ".join(words))
    result = TokenCutoff(share).bind(tokenizer)(given_, np.random.default_rng(seed))
    number = len(given_["tokens"]) - 2
    np.testing.assert_array_equal(result["tokens"], given_["tokens"])
    assert result["token_mask"][[0, -1]].all()
    hidden = int((~result["token_mask"]).sum())
    assert hidden == max(0, min(int(share * number), number - 1))
    assert given_["token_mask"].all()


def test_cutoff_makes_a_mask_and_leaves_padding_masked(tokenizer):
    tokens = np.array([CLS, *[PIECES.index("film")] * 10, SEP, 0, 0, 0], np.int32)
    for given_ in ({"tokens": tokens}, {"tokens": tokens, "token_mask": tokens != 0}):
        mask = TokenCutoff(0.5).bind(tokenizer)(given_, np.random.default_rng(0))["token_mask"]
        assert mask.dtype == bool
        assert (~mask[1:11]).sum() == 5
    assert not mask[12:].any()


# --- as transforms of a config


def test_the_same_numbers_give_the_same_tokens_and_others_others(tokenizer, thesaurus):
    given_ = example(
        tokenizer, "the good film of the good actor , the plot of seven trees it . film plot actor"
    )
    for transform in every(thesaurus):
        one, two = transform.bind(tokenizer), transform.bind(tokenizer)
        results = []
        for seed, position in [(0, 5), (0, 5), (0, 6), (1, 5), (0, 7), (0, 8)]:
            for bound in (one, two):
                rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, position]))
                result = bound(given_, rng)
                results.append((result["tokens"].tolist(), result["token_mask"].tolist()))
        assert results[0] == results[1] == results[2] == results[3]
        assert any(result != results[0] for result in results[4:])


def test_binding_leaves_the_config_as_it_is(tokenizer, thesaurus):
    for transform in every(thesaurus):
        assert transform.random
        config = schema.to_dict(transform)
        bound = transform.bind(tokenizer)
        wider = bound.within(50)
        assert (bound.max_length, wider.max_length) == (None, 50)
        assert bound.transform == wider.transform == transform
        assert schema.to_dict(transform) == config


@pytest.mark.parametrize(
    "more", [{"labels": np.zeros(4, np.int32)}, {"targets": np.zeros(4, np.int32)}, {"start": 1, "end": 2}]
)
def test_labels_of_tokens_are_refused(tokenizer, thesaurus, more):
    given_ = example(tokenizer, "good film") | more
    with pytest.raises(UserError, match=f"RandomSwap: moves words, so the examples' {next(iter(more))}"):
        RandomSwap().bind(tokenizer)(given_, np.random.default_rng(0))
    TokenCutoff().bind(tokenizer)(given_, np.random.default_rng(0))  # moves none


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            SynonymReplacement("/nowhere/words.txt"),
            'thesaurus="/nowhere/words.txt": expected a file that is there',
        ),
        (RandomInsertion(""), 'thesaurus="": expected a file that is there'),
        (RandomSwap(0.0), "alpha=0.0: expected more than 0, and at most 1"),
        (RandomDeletion(1.5), "alpha=1.5: expected more"),
        (TokenCutoff(-0.1), "share=-0.1: expected more"),
        (Eda(__file__, alpha_swap=2.0), "alpha_swap=2.0: expected 0 to 1"),
        (Eda(__file__, 0, 0, 0, 0), "alpha_replacement=0: so are all the others"),
        (Eda(__file__, share=0), "share=0.0: expected more"),
    ],
)
def test_values_that_cannot_work_are_said(transform, message):
    problems = list(schema.problems(transform))
    assert len(problems) == 1
    assert problems[0].startswith(message)


def test_a_thesaurus_that_cannot_be_read_is_said_when_it_is_bound(tokenizer, tmp_path):
    path = tmp_path / "broken.txt"
    path.write_text("big: large\nsmall\n")
    assert list(schema.problems(Eda(str(path)))) == []
    with pytest.raises(UserError, match=r"broken\.txt, line 2"):
        Eda(str(path)).bind(tokenizer)


def test_good_values_have_no_problems(thesaurus):
    assert not [problem for transform in every(thesaurus) for problem in schema.problems(transform)]
