"""The contract that every kind of tokenizer file keeps: one table, the same tests."""

import io
from dataclasses import dataclass
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import ByteLevelBPETokenizer

from jaxformer.data.text.tokenizer_training import Trained
from jaxformer.data.text.tokenizers import FromFile, Tokenizer, describe
from jaxformer.errors import UserError

CORPUS = ["the cat sat on the mat", "a dog ran to the log, and the cat ran too", "cats and dogs"] * 20
VOCABULARY = """[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat on mat a dog ran to , ##s and log too""".split()  # noqa: SIM905
ROLES = ("pad", "bos", "eos", "cls", "sep", "mask", "unk")


def wordpiece(folder: Path) -> Path:
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder / "vocab.txt"


def byte_level(*specials: str):
    def write(folder: Path) -> Path:
        bpe = ByteLevelBPETokenizer()
        bpe.train_from_iterator(CORPUS, vocab_size=300, special_tokens=list(specials), show_progress=False)
        bpe.save_model(str(folder))
        return folder / "vocab.json"

    return write


def spm(**options):
    def write(folder: Path) -> Path:
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_writer=model, hard_vocab_limit=False,
            minloglevel=2, **{"vocab_size": 60, **options},
        )  # fmt: skip
        (folder / "spiece.model").write_bytes(model.getvalue())
        return folder / "spiece.model"

    return write


def saved(kind: str, template: str):
    def write(folder: Path) -> Path:
        Trained(kind, 300, template=template).build(lambda: iter(CORPUS)).save(folder / "tokenizer.json")
        return folder / "tokenizer.json"

    return write


@dataclass(frozen=True)
class Kind:
    """A kind of file: how one is made, and what is to be found in it."""

    write: object
    described: str
    specials: str  # names of ROLES with their ids
    around: tuple[int, int] = (0, 0)  # special tokens before a text and after it
    damaged: str = "copy it again"  # words of the message for the first half of the file


FILES = {
    "vocab.txt": Kind(wordpiece, "WordPiece", "pad 0 unk 1 cls 2 sep 3 mask 4", (1, 1), "has no"),
    "GPT-2's": Kind(byte_level("<|endoftext|>"), "byte-level BPE", "bos 0 eos 0", damaged="broken ("),
    "RoBERTa's": Kind(
        byte_level("<s>", "<pad>", "</s>", "<unk>", "<mask>"), "byte-level BPE",
        "bos 0 cls 0 pad 1 eos 2 sep 2 unk 3 mask 4", (1, 1), "broken (",
    ),
    "unigram .model": Kind(spm(model_type="unigram"), "Unigram", "unk 0 bos 1 cls 1 eos 2 sep 2"),
    "T5's .model": Kind(
        spm(model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1), "Unigram", "pad 0 eos 1 sep 1 unk 2"
    ),
    "BPE .model": Kind(spm(model_type="bpe"), "BPE", "unk 0 bos 1 cls 1 eos 2 sep 2"),
    "Llama's .model": Kind(
        spm(model_type="bpe", byte_fallback=True, vocab_size=320, normalization_rule_name="identity"),
        "BPE", "unk 0 bos 1 cls 1 eos 2 sep 2",
    ),
    "BPE tokenizer.json": Kind(
        saved("bpe", "t5"), "byte-level BPE", "pad 0 eos 1 sep 1 unk 2", (0, 1), "not a tokenizer.json"
    ),
    "WordPiece tokenizer.json": Kind(
        saved("wordpiece", "bert"), "WordPiece", "pad 0 unk 1 cls 2 sep 3 mask 4", (1, 1), "not a tokenizer.json"
    ),
    "unigram tokenizer.json": Kind(
        saved("unigram", "seq2seq"), "Unigram", "pad 0 unk 1 bos 2 cls 2 eos 3 sep 3", (1, 1), "not a tokenizer.json"
    ),
}  # fmt: skip


@pytest.fixture(params=FILES.items(), ids=FILES)
def kind(request, tmp_path) -> tuple[Kind, Path]:
    _, kind = request.param
    return kind, kind.write(tmp_path)


def read(path: Path, **fields) -> Tokenizer:
    return FromFile(str(path), **fields).build(lambda: iter(()))


def test_texts_round_trip_and_their_special_tokens_are_left_out(kind):
    kind, path = kind
    tokenizer, text = read(path), "the cat sat on the mat"
    bare, whole = tokenizer.encode(text, special=False), tokenizer.encode(text)
    before, after = kind.around
    assert whole[before : len(whole) - after] == bare
    assert len(whole) == before + len(bare) + after
    assert tokenizer.decode(whole) == tokenizer.decode(bare) == text
    assert tokenizer.encode_batch([text, ""]) == [whole, whole[:before] + whole[len(whole) - after :]]
    assert max(whole) < tokenizer.vocab_size == max(tokenizer.hf.get_vocab().values()) + 1


def test_special_tokens_have_their_roles(kind):
    kind, path = kind
    tokenizer = read(path)
    parts = kind.specials.split()
    expected = dict.fromkeys(ROLES) | dict(zip(parts[::2], map(int, parts[1::2])))
    assert {role: getattr(tokenizer, f"{role}_id") for role in ROLES} == expected
    assert describe(tokenizer).startswith(f"{kind.described}, {tokenizer.vocab_size} tokens")


def test_a_saved_one_gives_equal_ids(kind, tmp_path):
    _, path = kind
    tokenizer = read(path)
    tokenizer.save(tmp_path / "again" / "tokenizer.json")
    texts = [*CORPUS[:3], "", "  two  spaces ", "unseen: é 漢字 😀", "a</s>b [SEP]"]
    for again in (
        Tokenizer.load(tmp_path / "again" / "tokenizer.json"),
        read(tmp_path / "again"),
        read(path),
    ):
        assert again.encode_batch(texts) == tokenizer.encode_batch(texts)
        assert again.digest == tokenizer.digest


def test_the_template_none_writes_nothing_around_a_text(kind):
    _, path = kind
    plain, tokenizer = read(path, template="none"), read(path)
    assert plain.encode("the cat") == tokenizer.encode("the cat", special=False)
    assert plain.vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize("damage", ["cut off", "empty", "a pickle"])
def test_a_damaged_file_is_named_in_one_line(kind, damage):
    kind, path = kind
    content = path.read_bytes()
    written = {
        "cut off": content[:15] if path.suffix == ".txt" else content[: len(content) // 3],
        "empty": b"",
        "a pickle": b"\x80\x04" + content,
    }
    path.write_bytes(written[damage])
    with pytest.raises(UserError) as raised:
        read(path)
    (line,) = raised.value.lines
    assert str(path) in line
    assert {"cut off": kind.damaged, "empty": "is empty", "a pickle": "is a pickle"}[damage] in line
