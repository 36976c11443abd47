"""Converted sentencepiece models give the ids that sentencepiece gives."""

import io
import random

import pytest
import sentencepiece

from jaxformer.data.text.tokenizers import FromFile
from jaxformer.errors import UserError

WORDS = [
    "the",
    "cat",
    "sat",
    "naïve",
    "straße",
    "漢字",
    "hello",
    "don't",
    "1,234",
    "ＡＢＣ",
    "①",
    "a\u0301",
    "…",
]
PROBES = [
    "", " ", "   ", "a", " a ", " a  b ", "a\nb\t c", "hello😀😀world", "漢字かな", "ｆｕｌｌ　ｗｉｄｔｈ",
    "e\u0301 é ﬁ ½ ™", "\n", "▁x▁ y", "a\u00a0b", "\u200bx", "हिन्दी क्षि", "ก็", "👨‍👩‍👧 🇩🇪", "the cat sat " * 2000,
]  # fmt: skip


def sentences(number, seed=0):
    rng = random.Random(seed)
    words = [*WORDS, *("".join(rng.choices("abcdefghij", k=rng.randint(2, 7))) for _ in range(200))]
    return [" ".join(rng.choices(words, k=12)) for _ in range(number)]


def noise(number):
    rng = random.Random(1)
    return ["".join(rng.choices("abc de  éß漢😀\n", k=rng.randint(1, 30))) for _ in range(number)]


def trained(**options) -> bytes:
    model = io.BytesIO()
    defaults = {"vocab_size": 400, "character_coverage": 0.99, "hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(800)), model_writer=model, **(defaults | options)
    )
    return model.getvalue()


MODELS = {
    "T5": {"model_type": "unigram"},
    "lowercase": {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc_cf"},
    "unigram with bytes": {
        "model_type": "unigram",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
    },
    "no space before": {"model_type": "unigram", "add_dummy_prefix": False},
    "over spaces": {"model_type": "unigram", "split_by_whitespace": False},
    "bpe": {"model_type": "bpe"},
    "bpe over spaces": {"model_type": "bpe", "split_by_whitespace": False},
    "Llama": {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    },
    "symbols": {"model_type": "unigram", "user_defined_symbols": ["<x>", "[y+]"]},
    "bpe with symbols": {
        "model_type": "bpe",
        "user_defined_symbols": ["<x>"],
        "remove_extra_whitespaces": False,
    },
}


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_ids_are_those_of_sentencepiece(tmp_path, options):
    model = trained(**options)
    (tmp_path / "spiece.model").write_bytes(model)
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = FromFile(str(tmp_path)).build(lambda: iter(()))
    assert tokenizer.vocab_size == reference.vocab_size()
    texts = [*PROBES, *sentences(150, seed=2), *noise(400)]
    if "user_defined_symbols" in options:
        texts += ["a<x>b", "a <x> b", " <x><x> the", "the [y+]<x>"]
    ids = reference.encode(texts)
    for text, found, expected in zip(texts, tokenizer.encode_batch(texts), ids):
        # "aaa" may be "a aa" or "aa a", which are equally likely.
        tie = options["model_type"] == "unigram" and sorted(found) == sorted(expected)
        assert found == expected or tie, text
    assert (
        sum(found == expected for found, expected in zip(tokenizer.encode_batch(texts), ids)) > len(ids) - 5
    )
    assert tokenizer.unk_id == reference.unk_id()
    known = [found for found in ids if reference.unk_id() not in found]
    assert [tokenizer.decode(found) for found in known] == [reference.decode(found) for found in known]


def test_a_template_for_a_model(tmp_path):
    """As T5 was trained: padding, end, unknown at the first ids; </s> after a text."""
    model = trained(model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    path = tmp_path / "spiece.model"
    path.write_bytes(model)
    tokenizer = FromFile(str(path), template="t5").build(lambda: iter(()))
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert tokenizer.encode("the cat") == reference.encode("the cat", add_eos=True)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2)
    with pytest.raises(UserError, match=r"no \[CLS\], \[SEP\]; templates that fit it: none, t5$"):
        FromFile(str(path), template="bert").build(lambda: iter(()))


REFUSED = {
    "words": ({"model_type": "word"}, "neither a unigram nor a BPE model"),
    "spaces as suffixes": (
        {"model_type": "unigram", "treat_whitespace_as_suffix": True},
        "treat_whitespace_as_suffix is not supported",
    ),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_converted_is_refused(tmp_path, options, message):
    (tmp_path / "m.model").write_bytes(trained(**options))
    with pytest.raises(UserError, match=message):
        FromFile(str(tmp_path / "m.model")).build(lambda: iter(()))


def test_a_model_that_is_cut_off_is_refused(tmp_path):
    (tmp_path / "m.model").write_bytes(trained(model_type="unigram")[:-300])
    with pytest.raises(UserError, match=r"m\.model: not a sentencepiece model, or cut off; copy it again"):
        FromFile(str(tmp_path / "m.model")).build(lambda: iter(()))


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_piece_that_is_not_utf8_is_damage(tmp_path, kind):
    content = trained(model_type=kind)
    (tmp_path / "a.model").write_bytes(content.replace("▁cat".encode(), "▁".encode() + b"\xffat"))
    with pytest.raises(UserError, match="a piece is not UTF-8, so the file is damaged; copy it again"):
        FromFile(str(tmp_path / "a.model")).build(lambda: iter(()))
