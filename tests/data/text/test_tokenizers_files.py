"""Published files are read as transformers reads them; broken ones are refused in words."""

import json
import pickle

import pytest
from tokenizers import AddedToken, ByteLevelBPETokenizer

from jaxformer.data.text.tokenizer_training import Trained
from jaxformer.data.text.tokenizers import FromFile, Tokenizer
from jaxformer.errors import UserError

CORPUS = [
    "the cat sat on the mat, and the dog didn't",
    "Where's the naïve Élan? 1,234.5 — über 漢字!",
    "the quick brown fox jumps over the lazy dog",
]
TEXTS = [
    *CORPUS,
    "",
    " \t\n ",
    "THE Cat's  café\u00a0x",
    "e\u0301clair \u200b\x00\ufffd control\x07",
    "漢字かな交じり文 中文",
    "😀 👨‍👩‍👧 unseen Ωmega",
    "a [MASK] b [SEP]c",
    "x" * 300,
    "the cat sat " * 5000,
]
BERT = [
    "[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "on", "mat",
    "ca", "##fe", "##fé", "naive", "na", "##ive", "##ïve", "漢", "e", "##s", ",", ".", "'", "!", "a",
    "b", "c", "d", "x", "##x", "##x", "##clair", "u", "##ber", "1", "##234", "—", "中", "文", "Where",
    "where", "T", "##he", "El", "##an",
]  # fmt: skip


def corpus():
    return iter(CORPUS * 3)


def no_texts():
    return iter(())


def write_vocab(path, tokens=BERT):
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return path


def same(tokenizer, reference):
    """Ids, types, offsets and texts are equal, for single texts and for pairs."""
    reference = reference.backend_tokenizer
    for text in TEXTS:
        assert tokenizer.encode(text) == reference.encode(text).ids
        ours, theirs = tokenizer.hf.encode(text, "the dog, 1"), reference.encode(text, "the dog, 1")
        assert (ours.ids, ours.type_ids) == (theirs.ids, theirs.type_ids)
        assert ours.offsets == theirs.offsets
        assert tokenizer.decode(ours.ids) == reference.decode(theirs.ids)


@pytest.mark.parametrize("lowercase", [True, False])
def test_vocab_txt_is_read_as_by_transformers(tmp_path, lowercase):
    from transformers import BertTokenizer

    path = write_vocab(tmp_path / "vocab.txt")
    tokenizer = FromFile(str(path), lowercase=lowercase).build(no_texts)
    same(tokenizer, BertTokenizer(vocab=str(path), do_lower_case=lowercase))
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id) == (0, 2, 3, 4)
    assert tokenizer.vocab_size == len(BERT)  # of a token that stands there twice, the last counts


def test_windows_line_ends_change_nothing(tmp_path):
    path = write_vocab(tmp_path / "vocab.txt")
    expected = FromFile(str(path)).build(no_texts).digest
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert FromFile(str(path)).build(no_texts).digest == expected


def test_whether_bert_lowercases_is_seen(tmp_path):
    path = write_vocab(tmp_path / "vocab.txt", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the"])
    assert FromFile(str(path)).build(no_texts).encode("THE", special=False) == [5]
    write_vocab(path, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "The"])
    assert FromFile(str(path)).build(no_texts).encode("The THE", special=False) == [6, 1]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert FromFile(str(tmp_path)).build(no_texts).encode("The THE", special=False) == [5, 5]
    assert FromFile(str(path), lowercase=False).build(no_texts).encode("The", special=False) == [6]


def byte_level(folder, specials):
    """A vocabulary, trained and written by the library's own class."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(CORPUS * 3, vocab_size=330, special_tokens=specials, show_progress=False)
    folder.mkdir()
    bpe.save_model(str(folder))
    return str(folder / "vocab.json"), str(folder / "merges.txt")


def test_gpt2_is_read_as_by_transformers(tmp_path):
    from transformers import GPT2Tokenizer

    vocab, merges = byte_level(tmp_path / "gpt2", ["<|endoftext|>"])
    tokenizer = FromFile(str(tmp_path / "gpt2")).build(no_texts)
    reference = GPT2Tokenizer(vocab=vocab, merges=merges).backend_tokenizer
    for text in [*TEXTS, "one<|endoftext|> two"]:
        assert tokenizer.encode(text) == reference.encode(text).ids
        assert tokenizer.decode(tokenizer.encode(text)) == reference.decode(reference.encode(text).ids)
    assert tokenizer.bos_id == tokenizer.eos_id == 0
    assert tokenizer.pad_id is None
    assert (
        FromFile(vocab).build(no_texts).digest == FromFile(merges).build(no_texts).digest == tokenizer.digest
    )


def test_roberta_is_read_as_by_transformers(tmp_path):
    from transformers import RobertaTokenizer

    vocab, merges = byte_level(tmp_path / "roberta", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer = FromFile(str(tmp_path / "roberta")).build(no_texts)
    mask = AddedToken("<mask>", lstrip=True, normalized=False)  # as in the release's tokenizer.json
    same(tokenizer, RobertaTokenizer(vocab=vocab, merges=merges, mask_token=mask))
    assert tokenizer.encode("the <mask>") == [0, tokenizer.hf.token_to_id("the"), 4, 2]


@pytest.mark.parametrize("template", ["bert", "roberta", "t5"])
def test_transformers_reads_what_is_saved(tmp_path, template):
    from transformers import PreTrainedTokenizerFast

    tokenizer = Trained("bpe", 400, template=template).build(corpus)
    tokenizer.save(tmp_path / "tokenizer.json")
    reference = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert reference(TEXTS)["input_ids"] == tokenizer.encode_batch(TEXTS)
    assert FromFile(str(tmp_path)).build(no_texts).digest == tokenizer.digest


def test_another_template_for_a_file(tmp_path):
    path = tmp_path / "tokenizer.json"
    Trained("bpe", 300, template="roberta").build(corpus).save(path)
    plain, seq2seq, t5 = (FromFile(str(path), t).build(no_texts) for t in ("none", "seq2seq", "t5"))
    ids = plain.encode("the cat")
    assert seq2seq.encode("the cat") == [2, *ids, 3]
    assert t5.encode("the cat") == [*ids, 3]
    assert plain.vocab_size == seq2seq.vocab_size == 300
    remedy = r"no \[CLS\], \[SEP\]; templates that fit it: none, roberta, t5, seq2seq"
    with pytest.raises(UserError, match=remedy):
        FromFile(str(path), "bert").build(no_texts)


def test_offsets_leave_out_the_space_before_a_word():
    tokenizer = Trained("bpe", 330, template="roberta").build(corpus)
    encoded = tokenizer.hf.encode("the cat sat")
    assert encoded.tokens[2] == "Ġcat"
    assert encoded.offsets[2] == (4, 7)


def test_lowercase_is_refused_where_the_file_says_it(tmp_path):
    path = tmp_path / "tokenizer.json"
    Trained("bpe", 300).build(corpus).save(path)
    with pytest.raises(UserError, match="says by itself what is lowercased; leave it out"):
        FromFile(str(path), lowercase=True).build(no_texts)


class Bomb:
    """Raises when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('it was unpickled')",)


BROKEN = {
    "empty json": ("tokenizer.json", b"", "is empty"),
    "blank vocab": ("vocab.txt", b" \n\n", "is empty"),
    "cut off": ("tokenizer.json", b'{"version": "1.0", "model": {"type"', "not a tokenizer.json"),
    "other json": ("tokenizer.json", b'{"a": 1}', "not a tokenizer.json"),
    "an unknown model": (
        "tokenizer.json",
        b'{"version": "1.0", "model": {"type": "X"}}',
        "not a tokenizer.json",
    ),
    "binary": ("tokenizer.json", bytes(range(128, 256)), "not a tokenizer.json"),
    "a pickle": ("tokenizer.json", pickle.dumps(Bomb()), "is a pickle, which is never loaded"),
    "a pickled vocab": ("vocab.txt", pickle.dumps(Bomb(), protocol=2), "is a pickle, which is never loaded"),
    "a pickled model": ("spiece.model", pickle.dumps(Bomb()), "is a pickle, which is never loaded"),
    "PyTorch's archive": ("tokenizer.model", b"PK\x03\x04\x00\x00", "is a pickle, which is never loaded"),
    "not UTF-8": ("vocab.txt", b"[UNK]\n\xff\xfe\n", "line 2: byte 6 (0xff) is not UTF-8"),
    "not BERT's": ("vocab.txt", b"the\ncat\n[UNK]\n", "has no [CLS], [SEP]"),
    "no sentencepiece model": ("tokenizer.model", b"hello, world", "sentencepiece model"),
    "an empty protobuf": ("tokenizer.model", b"\x0a\x03\x0a\x01a", "it has no unknown piece"),
    "merges missing": ("vocab.json", b"{}", "put merges.txt beside it"),
    "another kind": ("vocab.bin", b"x", "not a kind that is read"),
}


@pytest.mark.parametrize(("name", "content", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        FromFile(str(path)).build(no_texts)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match="there is no such file or folder; give a tokenizer"):
        FromFile(str(tmp_path / "tokenizer.json")).build(no_texts)
    with pytest.raises(UserError, match="the folder holds none; give a tokenizer"):
        FromFile(str(tmp_path)).build(no_texts)
    with pytest.raises(UserError, match="cannot be read"):
        Tokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match=r"the tokenizer's JSON: not a tokenizer\.json"):
        Tokenizer.from_json("{}")


BROKEN_BPE = {
    "no json": ("{", "#version: 0.2\na b\n", "broken ("),
    "a merge of unknown tokens": ('{"a": 0}', "#version: 0.2\na b\n", "broken ("),
    "a line that is no merge": ('{"a": 0}', "#version: 0.2\nab\n", "broken ("),
    "characters, not bytes": ('{"a": 0, "b": 1, "ab": 2}', "#version: 0.2\na b\n", "it is not byte-level"),
    "empty merges": ('{"a": 0}', "", "is empty"),
}


@pytest.mark.parametrize(("vocab", "merges", "message"), BROKEN_BPE.values(), ids=BROKEN_BPE)
def test_broken_bpe(tmp_path, vocab, merges, message):
    (tmp_path / "vocab.json").write_text(vocab)
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(UserError) as raised:
        FromFile(str(tmp_path)).build(no_texts)
    assert message in str(raised.value)


def test_a_folder_with_several_is_read_in_order(tmp_path):
    byte_level(tmp_path / "both", ["<|endoftext|>"])
    write_vocab(tmp_path / "both" / "vocab.txt")
    assert FromFile(str(tmp_path / "both")).build(no_texts).eos_id == 0
    Trained("bpe", 300).build(corpus).save(tmp_path / "both" / "tokenizer.json")
    assert FromFile(str(tmp_path / "both")).build(no_texts).eos_id is None
    assert json.loads((tmp_path / "both" / "tokenizer.json").read_text())["truncation"] is None
