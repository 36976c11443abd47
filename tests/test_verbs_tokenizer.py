"""`jaxformer data tokenizer` and `jaxformer data show` of texts."""

import re

import pytest
import tokenizers
from helpers.text_runs import LABELS, SENTENCE, write_texts

from jaxformer import cli

TEXT = "low lower lowest new newer newest wide wider widest\n" * 3


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def said(capsys):
    """What a command line that succeeds prints to stdout."""

    def ask(*argv):
        capsys.readouterr()
        code = cli.main(["data", *argv])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return ask


@pytest.fixture
def refused(capsys):
    """The message of a command line that is refused."""

    def ask(*argv):
        capsys.readouterr()
        assert cli.main(["data", *argv]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        return err

    return ask


@pytest.mark.parametrize(
    ("flags", "described", "pieces"),
    [
        (
            ["bpe", "--vocab-size", "270", "--template", "gpt"],
            "byte-level BPE, 270 tokens; special: <|endoftext|> 0",
            None,
        ),
        (
            ["wordpiece", "--vocab-size", "40", "--lowercase", "--template", "bert"],
            "WordPiece, 40 tokens; special: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4",
            "[CLS] {} [SEP]",
        ),
        (["unigram", "--vocab-size", "15"], "Unigram, 15 tokens; special: <unk> 0", None),
        (["characters"], "characters, 12 tokens; special: none", "l o w e r"),
    ],
)
def test_a_tokenizer_of_files_is_trained_saved_and_shown(flags, described, pieces, said, tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(TEXT)
    kind, *rest = flags
    printed = said(
        "tokenizer", "train", "a.txt", "b.txt", "--kind", kind, *rest, "--output", "deep/mine.json"
    )
    assert printed == f"deep/mine.json: {described}\n"
    library = tokenizers.Tokenizer.from_file("deep/mine.json")
    shown = said("tokenizer", "show", "deep/mine.json", "--text", "lower", "--text", "newest").splitlines()
    assert shown[:3] == [described, "", "lower"]
    encoding = library.encode("lower")
    rows = [line.split() for line in shown[3 : 3 + len(encoding)]]
    assert rows == [[str(index), token] for index, token in zip(encoding.ids, encoding.tokens)]
    assert shown[3 + len(encoding)] == f"{len(encoding)} tokens"
    if pieces is not None:
        assert re.fullmatch(re.escape(pieces).replace(r"\{\}", ".+"), " ".join(token for _, token in rows))


def test_a_tokenizer_of_a_dataset_knows_its_texts(said, refused, tmp_path):
    write_texts(tmp_path / "data")
    train = ("tokenizer", "train", "tiny", "--kind", "wordpiece", "--vocab-size", "60", "--template", "bert")
    said(*train, "--feature", "text,words", "--split", "train[:8]")
    assert "6 tokens" in said("tokenizer", "show", "tokenizer.json", "--text", "the cat saw the")
    assert "; decoded: the" in said("tokenizer", "show", "tokenizer.json", "--text", "the  zzz")
    assert re.search(r"has the texts .*\bwords\b.*; choose with --feature", refused(*train))
    assert "--feature: " in refused(*train, "--feature", "label")
    assert "has no split 'dev'" in refused(*train, "--feature", "text", "--split", "dev")


def test_texts_that_were_imported_need_no_feature(said, refused, tmp_path):
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "texts" / name).write_text(TEXT)
    said("import", "text", "texts", "--name", "mine")
    printed = said("tokenizer", "train", "mine", "--kind", "characters")
    # Not a path's letters, too.
    assert printed == f"tokenizer.json: characters, {len(set(TEXT))} tokens; special: none\n"
    said("tokenizer", "train", "mine", "--kind", "characters", "--feature", "path")
    (tmp_path / "table.csv").write_text("one,two,path\n" + "a b,c,d e\n" * 20)
    said("import", "csv", "table.csv", "--name", "table")
    message = refused("tokenizer", "train", "table", "--kind", "characters")
    assert "table/1.0.0: has the texts one, two; choose with --feature" in message


def test_mistakes_are_said_in_a_line(refused, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    train = ("tokenizer", "train", "a.txt", "--kind")
    assert "--vocab-size 10: expected 257 or more" in refused(*train, "bpe", "--vocab-size", "10")
    assert "--template: 'brt' is not a choice; did you mean 'bert'?" in refused(
        *train, "bpe", "--template", "brt"
    )
    assert "--vocab-size: is not for characters" in refused(*train, "characters", "--vocab-size", "10")
    assert "--split: is for datasets" in refused(*train, "bpe", "--split", "train")
    assert "latin.txt: is not UTF-8" in refused("tokenizer", "train", "latin.txt", "--kind", "bpe")
    assert "b.txt: cannot be read" in refused("tokenizer", "train", "a.txt", "b.txt", "--kind", "bpe")
    assert "b.txt: there is no such file" in refused("tokenizer", "train", "b.txt", "c.txt", "--kind", "bpe")
    assert "'nowhere' is not prepared" in refused("tokenizer", "train", "nowhere", "--kind", "bpe")
    assert "--kind: 'bp' is not a choice; did you mean 'bpe'?" in refused(*train, "bp")
    (tmp_path / "file").write_text("")
    assert "cannot write there" in refused(*train, "characters", "--output", "file/tokenizer.json")
    assert "file" in refused("tokenizer", "show", "file")


def test_a_dataset_of_text_is_shown_as_text(said, refused, tmp_path):
    write_texts(tmp_path / "data")
    shown = said("show", "tiny", "--split", "test", "--count", "3").split("\n\n")
    assert [part.splitlines()[0] for part in shown] == [f"tiny/1.0.0, test, index {i}" for i in (0, 4, 7)]
    values = dict(line.strip().split(": ", 1) for line in shown[0].splitlines()[1:])
    assert values["text"].split() == values["other"].split()[::-1]
    assert set(values["text"].split()) <= set(SENTENCE.split())
    assert values["words"] == values["text"]
    assert values["label"] == LABELS[len(values["text"].split()) % 3]
    assert values["answers/text"] in values["text"]
    names = {"Oslo": "B-place", "Ann": "B-person"}
    assert values["tags"].split() == [names.get(word, "O") for word in values["words"].split()]
    assert "--output: tiny has no images to draw" in refused("show", "tiny", "--output", "a.png")
    assert "count 0" in refused("show", "tiny", "--count", "0")
