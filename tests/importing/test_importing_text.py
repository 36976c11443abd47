"""Plain texts: every character comes back, and the tail is held out as nanoGPT holds it out."""

import tempfile
from pathlib import Path

import pytest
from helpers.importing_cases import bring, examples, real, refusal, write
from hypothesis import given, settings
from hypothesis import strategies as st

TEXTS = st.text(st.characters(exclude_characters="\r", codec="utf-8"), min_size=1, max_size=200).filter(
    lambda text: text.strip() and not text.startswith("\ufeff")
)


@settings(max_examples=20, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4), share=st.sampled_from([0.0, 0.1, 0.5, 0.99, 1e-18]))
def test_files_come_back_character_by_character(texts, share):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, text in enumerate(texts):
            write(folder / "files" / f"{number}.txt", text)
        made = bring(folder / "files", folder, "text", test_share=share)
        parts = [examples(made, split) for split in made.splits]
        whole = "".join(texts)
        assert "".join(e["text"] for part in parts for e in part) == whole
        assert all(e["text"] for part in parts for e in part)
        train = "".join(e["text"] for e in parts[0])
        assert train  # there is always something to learn
        if len(whole) > 1 and share >= 0.1:
            assert len(train) == max(int(len(whole) * (1 - share)), 1)


def test_the_tail_is_nanogpts(tmp_path):
    builder = real("tiny_shakespeare")
    splits = [builder.as_data_source(split)[0]["text"] for split in ("train", "validation", "test")]
    whole = b"".join(splits)
    made = bring(write(tmp_path / "input.txt", whole), tmp_path, "text")
    train, test = (examples(made, split)[0]["text"] for split in ("train", "test"))
    assert (len(train), len(test)) == (1_003_854, 111_540)  # nanoGPT, data/shakespeare_char/readme.md
    assert (train + test).encode() == whole


def test_paragraphs_and_lines_stay_whole(tmp_path):
    source = write(tmp_path / "poem.txt", "one\r\ntwo\r\n\r\n \t\r\n  three\nfour\n\n\n\nfive\u2028six")
    made = bring(source, tmp_path, "text", "paragraphs", unit="paragraph", test_share=0)
    assert examples(made, "train") == [
        {"text": "one\ntwo", "path": "poem.txt"},
        {"text": "  three\nfour", "path": "poem.txt"},
        {"text": "five\u2028six", "path": "poem.txt"},
    ]
    made = bring(source, tmp_path, "text", "lines", unit="line", test_share=0.35)
    assert [e["text"] for e in examples(made, "train")] == ["one", "two", "  three"]
    # 25 characters: the cut is at int(25 * 0.65) = 16, inside of "four", which is held out as a whole
    assert [e["text"] for e in examples(made, "test")] == ["four", "five\u2028six"]


def test_a_byte_order_mark_is_no_text(tmp_path):
    made = bring(write(tmp_path / "a.txt", "\ufeffHallo"), tmp_path, "text", test_share=0)
    assert examples(made, "train") == [{"text": "Hallo", "path": "a.txt"}]


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [
        ("train.txt", "val.txt", "test.txt"),
        ("train/a.txt", "dev/deep/a.txt", "testing/a.txt"),
        ("Train-00000-of-1.txt", "valid_v2.txt", "test2016.txt"),
    ],
)
def test_names_tell_splits(tmp_path, train, valid, test):
    for name, text in ((train, "a"), (valid, "b"), (test, "c")):
        write(tmp_path / "files" / name, text)
    write(tmp_path / "files" / ".hidden.txt", "d")
    made = bring(tmp_path / "files", tmp_path, "text")
    assert made.splits == {"train": 1, "validation": 1, "test": 1}
    for split, name, text in (("train", train, "a"), ("validation", valid, "b"), ("test", test, "c")):
        assert examples(made, split) == [{"text": text, "path": name}]


def test_other_names_tell_none(tmp_path):
    write(tmp_path / "files" / "test-driven.txt", "0123456789" * 5)
    write(tmp_path / "files" / "sub" / "training day.txt", "0123456789" * 5)
    made = bring(tmp_path / "files", tmp_path, "text")
    assert examples(made, "train")[0]["path"] == "test-driven.txt"
    assert [len(e["text"]) for e in examples(made, "train") + examples(made, "test")] == [50, 40, 10]


def test_training_data_alone_is_divided(tmp_path):
    made = bring(write(tmp_path / "train.txt", "0123456789"), tmp_path, "text")
    assert examples(made, "test") == [{"text": "9", "path": "train.txt"}]


def test_splits_that_contradict_each_other(tmp_path):
    write(tmp_path / "a" / "test.txt", "a")
    assert "there is test, but no train" in refusal(tmp_path / "a", tmp_path, "text")
    write(tmp_path / "a" / "other.txt", "a")
    assert "test.txt is in the split 'test', and other.txt in none" in refusal(
        tmp_path / "a", tmp_path, "text"
    )
    write(tmp_path / "a" / "train" / "x.txt", "a")
    text = refusal(tmp_path / "a", tmp_path, "text")
    assert "other.txt, test.txt beside train; expected folders of splits, or none" in text
    sources = [write(tmp_path / "b" / "train.txt", "a"), write(tmp_path / "b" / "test.txt", "b")]
    assert "leave `test_share` out" in refusal(sources, tmp_path, "text", test_share=0.1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "a.txt: is empty"),
        (b"\xef\xbb\xbf", "a.txt: is empty"),
        (b" \n\t\n", "a.txt: holds nothing but white space"),
        (b"gut\nsch\xf6n\n", "a.txt, line 2: byte 7 (0xf6) is not UTF-8"),
        (b"\xef\xbb\xbfgut\nsch\xf6n\n", "a.txt, line 2: byte 10 (0xf6) is not UTF-8"),
        ("abc".encode("utf-16"), "a.txt, line 1: byte 0 begins UTF-16"),
    ],
)
def test_files_that_are_no_text_are_named_or_left_out(tmp_path, content, words):
    path = write(tmp_path / "files" / "a.txt", content)
    assert words in refusal(path, tmp_path, "text")
    assert "no examples are left" in refusal(path, tmp_path, "text", skip_broken=True)
    write(tmp_path / "files" / "b.txt", "good")
    write(tmp_path / "files" / "c.pdf", "%PDF")
    assert "(and 1 more: a.txt)" in refusal(tmp_path / "files", tmp_path, "text")
    made = bring(tmp_path / "files", tmp_path, "text", skip_broken=True, test_share=0)
    assert examples(made, "train") == [{"text": "good", "path": "b.txt"}]
    assert sorted(path.name for path, _ in made.broken) == ["a.txt", "c.pdf"]


def test_sources_that_cannot_be(tmp_path):
    path = write(tmp_path / "a.txt", "text")
    assert "there is no such folder or file" in refusal(tmp_path / "b.txt", tmp_path, "text")
    assert "is given twice" in refusal([path, path], tmp_path, "text")
    (tmp_path / "void").mkdir()
    assert "no .md, .text, .txt files in there" in refusal(tmp_path / "void", tmp_path, "text")
    assert "`test_share` 1.0: must be" in refusal(path, tmp_path, "text", test_share=1.0)
    assert "`label`: is for csv, jsonl, parquet, not for text" in refusal(path, tmp_path, "text", label="x")
    bring(path, tmp_path, "text")
    assert "is there already" in refusal(path, tmp_path, "text")
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "back").symlink_to(tmp_path / "loop")
    write(tmp_path / "loop" / "a.txt", "text")
    assert bring(tmp_path / "loop", tmp_path, "text", "loop").splits == {"train": 1, "test": 1}
