"""Trained vocabularies: the same from the same texts, and what their kind promises."""

import random
import subprocess
import sys

import pytest
from tokenizers import ByteLevelBPETokenizer

from jaxformer.data.text.tokenizer_training import Trained
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.errors import UserError

KINDS = ("bpe", "wordpiece", "unigram")


def texts():
    """Words of equal frequency, so that there are ties to break, in several scripts."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefgéhijkÀ漢字", k=rng.randint(1, 9))) for _ in range(600)]
    return iter([" ".join(rng.sample(words, 30)) + "\nIt's 1, 2." for _ in range(200)])


CHILD = """
import test_tokenizers_training as t
from jaxformer.data.text.tokenizer_training import Trained
print(*(Trained(kind, 500).build(t.texts).digest for kind in t.KINDS))
"""


def test_another_process_with_other_threads_trains_the_same(pytestconfig):
    """Hash tables of the library are seeded anew in each process."""
    here = [Trained(kind, 500).build(texts).digest for kind in KINDS]
    for parallel in ("true", "false"):
        child = subprocess.run(
            [sys.executable, "-c", CHILD],
            env={"PYTHONPATH": ":".join([*sys.path, str(__file__).rpartition("/")[0]]),
                 "TOKENIZERS_PARALLELISM": parallel},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert child.stdout.split() == here
    assert len(set(here)) == 3


def test_bpe_is_that_of_the_library():
    reference = ByteLevelBPETokenizer()
    reference.train_from_iterator(texts(), vocab_size=500, min_frequency=2, show_progress=False)
    tokenizer = Trained("bpe", 500).build(texts)
    assert tokenizer.hf.get_vocab() == reference.get_vocab()
    for text in texts():
        assert tokenizer.encode(text) == reference.encode(text).ids


def test_wordpiece_has_the_words_and_every_character():
    """Worked by hand: "aab" is there thrice, so a ##a and ##b are joined first and then the word is whole."""
    tokenizer = Trained("wordpiece", 9, template="none").build(lambda: iter(["aab aab aab c", "d"]))
    vocab = tokenizer.hf.get_vocab()
    assert sorted(vocab, key=vocab.get)[:7] == ["[UNK]", "a", "b", "c", "d", "##a", "##b"]
    assert len(vocab) == 9
    assert tokenizer.encode("aab c aaz") == [vocab["aab"], vocab["c"], 0]


def test_wordpiece_merges_as_the_library_does():
    """The library's own trainer finds the same pieces, in an order of its own."""
    from tokenizers import BertWordPieceTokenizer

    corpus = [
        f"{word} " * (3 + 2 * i) for i, word in enumerate(["hello", "hollow", "yellow", "low", "lowest"])
    ]
    reference = BertWordPieceTokenizer(lowercase=True)
    reference.train_from_iterator(corpus, vocab_size=30, special_tokens=["[UNK]"], show_progress=False)
    tokenizer = Trained("wordpiece", 30, lowercase=True).build(lambda: iter(corpus))
    assert set(tokenizer.hf.get_vocab()) == set(reference.get_vocab())


def test_rare_characters_of_wordpiece_are_unknown():
    many = "".join(chr(0x4E00 + i) for i in range(1200))  # each a word of its own
    tokenizer = Trained("wordpiece", 1100).build(lambda: iter([many, many[200:]]))
    assert tokenizer.vocab_size == 1001
    assert tokenizer.encode(many[0]) == [tokenizer.unk_id]
    assert tokenizer.encode(many[300]) != [tokenizer.unk_id]


def test_a_vocabulary_is_as_large_as_asked_for():
    for kind in KINDS:
        for template in ("none", "bert"):
            tokenizer = Trained(kind, 400, template=template, min_frequency=1).build(texts)
            assert tokenizer.vocab_size == 400, (kind, template)


@pytest.mark.parametrize("kind", KINDS)
def test_lowercase(kind):
    tokenizer = Trained(kind, 300, lowercase=True).build(lambda: iter(["the Cat sat ON the MAT"] * 5))
    assert tokenizer.encode("THE CAT") == tokenizer.encode("the cat")
    assert tokenizer.decode(tokenizer.encode("The MAT")) == "the mat"
    plain = Trained(kind, 300).build(lambda: iter(["the Cat sat ON the MAT"] * 5))
    assert plain.decode(plain.encode("the MAT")) == "the MAT"


@pytest.mark.parametrize("template", ["none", "gpt", "bert", "roberta", "t5", "seq2seq"])
def test_unigram_gets_the_special_tokens_of_the_template(template):
    tokenizer = Trained("unigram", 200, template=template).build(texts)
    expected = {
        "none": ["<unk>"],
        "gpt": ["<|endoftext|>", "<unk>"],
        "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        "roberta": ["<pad>", "<unk>", "<s>", "</s>", "<mask>"],
        "t5": ["<pad>", "</s>", "<unk>"],
        "seq2seq": ["<pad>", "<unk>", "<s>", "</s>"],
    }[template]
    assert [tokenizer.hf.id_to_token(i) for i in range(len(expected))] == expected
    assert tokenizer.encode("☃", special=False)[-1] == tokenizer.unk_id
    assert Tokenizer.from_json(tokenizer.to_json()).encode("a b") == tokenizer.encode("a b")


def test_unigram_takes_long_texts_whole():
    """sentencepiece leaves out lines over 4192 bytes unless they are cut."""
    text = " ".join(["zebra"] * 10_000 + ["квагга"] * 10_000)
    tokenizer = Trained("unigram", 60).build(lambda: iter([text]))
    assert {"▁zebra", "▁квагга"} <= set(tokenizer.hf.get_vocab())


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_more_characters_than_tokens_are_refused(kind):
    with pytest.raises(UserError, match="vocab_size=10: "):
        Trained(kind, 10).build(texts)
