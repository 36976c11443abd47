"""Characters, bytes, and what every tokenizer does."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFace
from tokenizers import decoders, models, pre_tokenizers

from jaxformer.config import schema
from jaxformer.data.config import TOKENIZERS
from jaxformer.data.text.tokenizer_templates import TEMPLATES, byte_alphabet
from jaxformer.data.text.tokenizer_training import Bytes, Characters, Trained
from jaxformer.data.text.tokenizers import Tokenizer, describe
from jaxformer.errors import UserError

TEXTS = [
    "",
    " ",
    " \t\n\r\n  ",
    "Hello, world!\nA second line.",
    "naïve Straße, Ελληνικά, русский, हिन्दी, العربية, 漢字かな",
    "👨‍👩‍👧 🇩🇪 e\u0301 \u200b \ufeff \x00 \U0010ffff",
    "  two  spaces, and one at the end ",
    "word " * 20_000,
]


def texts():
    return iter(TEXTS)


@pytest.fixture(scope="module", params=["characters", "bytes", "bpe"])
def lossless(request) -> Tokenizer:
    config = {"characters": Characters(), "bytes": Bytes(), "bpe": Trained("bpe", 400)}[request.param]
    return config.build(texts)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_every_text_round_trips(lossless, text):
    assert lossless.decode(lossless.encode(text)) == text


@pytest.mark.parametrize("config", [Bytes("bert"), Trained("bpe", 300, template="gpt")], ids=["bytes", "bpe"])
def test_bytes_write_texts_that_were_never_seen(config):
    tokenizer = config.build(lambda: iter(["a few plain words"]))

    @settings(max_examples=200, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def check(text):
        ids = tokenizer.encode(text, special=False)
        assert tokenizer.decode(ids, skip_special=False) == text  # the text may be '[SEP]'

    check()


def test_characters_are_in_code_point_order():
    tokenizer = Characters().build(lambda: iter(["b\na", "é b"]))
    assert tokenizer.encode("\n abé") == [0, 1, 2, 3, 4]
    assert tokenizer.vocab_size == 5


def test_characters_of_shakespeare_are_as_in_nanogpt():
    """Karpathy's "Let's build GPT" (2023) prints 65 and [46, 47, 47, 1, 58, 46, 43, 56, 43] for "hii there"."""
    folder = os.environ.get("TFDS_DATA_DIR", "")
    if not (Path(folder) / "tiny_shakespeare").is_dir():
        pytest.skip("needs tiny_shakespeare, prepared as array_record, in TFDS_DATA_DIR")
    import tensorflow_datasets as tfds

    source = tfds.builder("tiny_shakespeare", data_dir=folder).as_data_source("train")
    tokenizer = Characters().build(lambda: (example["text"].decode() for example in source))
    assert tokenizer.vocab_size == 65
    assert tokenizer.encode("hii there") == [46, 47, 47, 1, 58, 46, 43, 56, 43]


def test_bytes_are_themselves_without_special_tokens():
    tokenizer = Bytes().build(texts)
    for text in TEXTS:
        assert tokenizer.encode(text) == list(text.encode())
    assert tokenizer.vocab_size == 256


def test_bytes_are_as_in_byt5():
    from transformers import ByT5Tokenizer

    reference, tokenizer = ByT5Tokenizer(extra_ids=0), Bytes("t5").build(texts)
    assert [tokenizer.encode(text) for text in TEXTS] == [reference(text)["input_ids"] for text in TEXTS]
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2)


def test_the_byte_alphabet_is_that_of_gpt2():
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    assert dict(enumerate(byte_alphabet())) == bytes_to_unicode()


def test_an_unknown_character_is_named():
    tokenizer = Characters().build(lambda: iter(["to be"]))
    with pytest.raises(UserError, match=r"'q' \(U\+0071\) in 'to q be' is not in the vocabulary"):
        tokenizer.encode_batch(["to be", "to q be"])


@pytest.mark.parametrize("template", ["bert", "roberta", "t5", "seq2seq"])
@pytest.mark.parametrize(
    "config", [Characters, lambda t: Trained("wordpiece", 40, template=t)], ids=["characters", "wordpiece"]
)
def test_an_unknown_character_is_the_unknown_token_where_there_is_one(config, template):
    tokenizer = config(template).build(lambda: iter(["to be"]))
    assert tokenizer.encode("q", special=False) == [tokenizer.unk_id]


@pytest.mark.parametrize(
    "config", [Characters(), Bytes(), Trained("bpe", 300)], ids=lambda c: type(c).__name__
)
def test_half_a_surrogate_pair_is_refused(config):
    with pytest.raises(UserError, match=r"U\+D83D\) in 'a \\ud83d' is half a surrogate pair"):
        config.build(lambda: iter(["a b"])).encode("a \ud83d")


@pytest.mark.parametrize("config", [Characters(), Trained("bpe"), Trained("unigram"), Trained("wordpiece")])
def test_texts_without_characters_are_refused(config):
    with pytest.raises(UserError, match="the texts are empty"):
        config.build(lambda: iter(["", ""]))


# (ids of "a", ids of "a" and "b", types of the pair), as the models' papers and releases have them.
TEMPLATED = {
    "none": ("a", "a b", "0 1"),
    "gpt": ("a", "a b", "0 1"),
    "bert": ("[CLS] a [SEP]", "[CLS] a [SEP] b [SEP]", "0 0 0 1 1"),
    "roberta": ("<s> a </s>", "<s> a </s> </s> b </s>", "0 0 0 0 0 0"),
    "t5": ("a </s>", "a </s> b </s>", "0 0 0 0"),
    "seq2seq": ("<s> a </s>", "<s> a </s> b </s>", "0 0 0 0 0"),
}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("name", ["characters", "bytes", "bpe", "wordpiece"])
def test_templates(name, template):
    made = {"characters": Characters, "bytes": Bytes}
    config = made[name](template) if name in made else Trained(name, 300, False, template, min_frequency=1)
    tokenizer = Tokenizer.from_json(config.build(lambda: iter(["a b"])).to_json())
    single, pair, types = TEMPLATED[template]
    encoded = tokenizer.hf.encode("a", "b")
    assert tokenizer.hf.encode("a").tokens == single.split()
    assert encoded.tokens == pair.split()
    assert encoded.type_ids == [int(kind) for kind in types.split()]
    assert tokenizer.encode("a", special=False) == [tokenizer.hf.token_to_id("a")]
    assert tokenizer.decode(tokenizer.encode("a")) == "a"
    if template not in ("none", "gpt"):
        assert tokenizer.pad_id == 0


# pad, bos, eos, cls, sep, mask, unk
SPECIALS = {
    "none": (None, None, None, None, None, None, None),
    "gpt": (None, 0, 0, None, None, None, None),
    "bert": (0, None, None, 2, 3, 4, 1),
    "roberta": (0, 2, 3, 2, 3, 4, 1),
    "t5": (0, None, 1, None, 1, None, 2),
    "seq2seq": (0, 2, 3, 2, 3, None, 1),
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_special_tokens_are_found_by_name(template):
    tokenizer = Bytes(template).build(texts)
    roles = ("pad", "bos", "eos", "cls", "sep", "mask", "unk")
    assert tuple(getattr(tokenizer, f"{role}_id") for role in roles) == SPECIALS[template]
    assert tokenizer.vocab_size == 256 + {"none": 0, "gpt": 1, "t5": 3, "seq2seq": 4}.get(template, 5)


def test_a_special_token_in_the_text_is_that_token():
    tokenizer = Bytes("bert").build(texts)
    assert tokenizer.encode("[MASK]", special=False) == [4]
    assert tokenizer.decode([4], skip_special=False) == "[MASK]"


def test_a_piece_that_looks_like_a_special_token_is_none_until_it_is_marked():
    hf = HuggingFace(models.WordLevel({"<s>": 0, "x": 1}, unk_token="x"))
    assert Tokenizer(hf).bos_id is None
    hf.add_special_tokens(["<s>"])
    assert Tokenizer(hf).bos_id == 0


def test_padding_and_truncation_of_a_file_are_off():
    hf = Bytes("bert").build(texts).hf
    plain = Tokenizer.from_json(hf.to_str())
    hf.enable_truncation(3)
    hf.enable_padding(length=4)
    loaded = Tokenizer.from_json(hf.to_str())
    assert len(loaded.encode("a long text")) == len("a long text") + 2
    assert loaded.encode("") == [2, 3]
    assert loaded.digest == plain.digest


def test_the_digest_is_of_what_a_file_means(tmp_path):
    tokenizer = Trained("bpe", 300).build(texts)
    content = json.loads(tokenizer.to_json())
    layouts = [
        json.dumps(content, indent=7, ensure_ascii=True),
        json.dumps(dict(reversed(content.items()))),
        json.dumps(content | {"truncation": {"direction": "Right", "max_length": 5, "strategy": "LongestFirst",
                                             "stride": 0}}),
    ]  # fmt: skip
    merges = [" ".join(pair) for pair in content["model"]["merges"]]  # as files had them before 2024
    layouts.append(json.dumps(content | {"model": content["model"] | {"merges": merges}}))
    for layout in layouts:
        assert Tokenizer.from_json(layout).digest == tokenizer.digest
    vocab = content["model"]["vocab"]
    vocab["!"], vocab["#"] = vocab["#"], vocab["!"]
    assert Tokenizer.from_json(json.dumps(content)).digest != tokenizer.digest
    assert Bytes("t5").build(texts).digest != Bytes("seq2seq").build(texts).digest


@pytest.mark.parametrize(
    "config", [Characters("bert"), Bytes(), Trained("unigram", 60), Trained("wordpiece", 200)]
)
def test_one_file_saves_every_kind(tmp_path, config):
    tokenizer = config.build(texts)
    tokenizer.save(tmp_path / "run" / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "run" / "tokenizer.json")
    assert loaded.digest == tokenizer.digest
    assert loaded.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert os.listdir(tmp_path / "run") == ["tokenizer.json"]


def test_threads_share_a_tokenizer():
    tokenizer = Trained("bpe", 400).build(texts)
    expected = tokenizer.encode_batch(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        assert all(
            found == expected for found in pool.map(lambda _: tokenizer.encode_batch(TEXTS), range(40))
        )


def test_vocab_size_is_the_largest_id_and_one():
    hf = HuggingFace(models.WordLevel({"a": 0, "b": 9}, unk_token="a"))
    hf.pre_tokenizer, hf.decoder = pre_tokenizers.FixedLength(1), decoders.Fuse()
    assert Tokenizer(hf).vocab_size == 10


def test_describe():
    assert describe(Characters().build(lambda: iter(["ab"]))) == "characters, 2 tokens; special: none"
    assert describe(Bytes("gpt").build(texts)) == "bytes, 257 tokens; special: <|endoftext|> 0"
    assert describe(Trained("bpe", 300, min_frequency=1).build(texts)).startswith(
        "byte-level BPE, 300 tokens"
    )
    wordpiece = describe(Trained("wordpiece", 200, template="bert").build(texts))
    assert wordpiece.endswith("special: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4")


PROBLEMS = {
    "a misspelt kind": ("trained", {"kind": "bpee"}, "kind: 'bpee' is not a choice; did you mean 'bpe'?"),
    "a misspelt template": ("bytes", {"template": "bertt"}, "did you mean 'bert'?"),
    "no path": ("file", {"path": " "}, 'path=" ": expected a tokenizer.json'),
    "fewer tokens than bytes": (
        "trained",
        {"vocab_size": 200},
        "vocab_size=200: expected 257 or more (256 bytes, the special tokens, and a merge)",
    ),
    "bytes without special tokens": ("trained", {"vocab_size": 260, "template": "bert"}, "262 or more"),
    "no tokens": ("trained", {"kind": "unigram", "vocab_size": 0}, "vocab_size=0: expected 1 or more"),
    "no frequency": ("trained", {"min_frequency": 0}, "min_frequency=0: expected 1 or more"),
}


@pytest.mark.parametrize(("name", "fields", "message"), PROBLEMS.values(), ids=PROBLEMS)
def test_problems(name, fields, message):
    with pytest.raises(UserError) as raised:
        schema.build(TOKENIZERS, {"name": name, **fields}, "tokenizer")
    assert len(raised.value.lines) == 1
    assert message in raised.value.lines[0]


def test_a_config_for_a_template_that_is_none_is_a_problem_too():
    for config in (Characters("bertt"), Trained(template="bertt")):  # type: ignore[arg-type]
        assert list(schema.problems(config)) == ["template: 'bertt' is not a choice; did you mean 'bert'?"]
