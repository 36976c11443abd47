"""Pairs of lines and tagged sentences: what was written comes back, and what does not fit is named."""

import tempfile
from pathlib import Path

import pytest
from helpers.importing_cases import bring, examples, real, refusal, write
from hypothesis import given, settings
from hypothesis import strategies as st

LINES = st.text(st.characters(exclude_characters="\r\n\t", codec="utf-8"), min_size=1, max_size=30).filter(
    lambda line: line.strip() and not line.startswith("\ufeff")
)


@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.tuples(LINES, LINES), min_size=1, max_size=20), end=st.sampled_from(["", "\n"]))
def test_lines_come_back_as_they_were_written(rows, end):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write(folder / "a.src", "\n".join(a for a, _ in rows) + end)
        target = write(folder / "a.tgt", "\r\n".join(b for _, b in rows) + end)
        made = bring([source, target], folder, "pairs", "sides", test_share=0)
        assert [(e["src"], e["tgt"]) for e in examples(made, "train")] == rows
        both = write(folder / "a.txt", "\n".join(f"{a}\t{b}" for a, b in rows) + end)
        made = bring(both, folder, "pairs", "tabs", test_share=0)
        assert [(e["source"], e["target"]) for e in examples(made, "train")] == rows


def test_multi30k_as_files_comes_back(tmp_path):
    builder = real("multi30k")
    written = {}
    for split, name in (("train[:500]", "train"), ("validation", "val"), ("test", "test_2016_flickr")):
        rows = [(e["en"].decode(), e["de"].decode()) for e in builder.as_data_source(split)]
        for side, language in enumerate(("en", "de")):
            write(tmp_path / "files" / f"{name}.{language}", "".join(f"{row[side]}\n" for row in rows))
        written[split.split("[")[0]] = rows
    made = bring(tmp_path / "files", tmp_path, "pairs")
    assert made.splits == {split: len(rows) for split, rows in written.items()}
    for split, rows in written.items():
        assert [(e["en"], e["de"]) for e in examples(made, split)] == rows


@pytest.mark.parametrize(
    ("first", "second", "features"),
    [
        ("corpus.en", "corpus.de", {"en", "de"}),
        ("english.en.txt", "german.pt-br.txt", {"en", "pt-br"}),
        ("english.txt", "german.txt", {"source", "target"}),
        ("a.v1", "a.v2", {"source", "target"}),
    ],
)
def test_suffixes_name_the_features(tmp_path, first, second, features):
    sources = [write(tmp_path / first, "good\n"), write(tmp_path / second, "gut\n")]
    made = bring(sources, tmp_path, "pairs", test_share=0)
    assert set(made.features) == features
    assert [examples(made, "train")[0][name] for name in made.features] == ["good", "gut"]


def test_a_fifth_of_the_pairs_is_held_out(tmp_path):
    source = write(tmp_path / "a.tsv", "".join(f"{n}\t{n}\n" for n in range(50)))
    made = bring(source, tmp_path, "pairs")
    assert made.splits == {"train": 40, "test": 10}
    numbers = [int(e["source"]) for split in made.splits for e in examples(made, split)]
    assert sorted(numbers) == list(range(50))
    assert numbers[40:] != list(range(40, 50))  # not the tail


def test_lines_without_a_partner(tmp_path):
    sources = [write(tmp_path / "a.en", "1\n2\n3\n"), write(tmp_path / "a.de", "1\n2\n3\n4\n5")]
    text = refusal(sources, tmp_path, "pairs")
    assert "a.en has 3 lines and" in text
    assert "a.de 5: they do not belong together" in text
    assert "a.de, line 4; if lines in the middle are missing" in text


def test_empty_lines(tmp_path):
    sources = [write(tmp_path / "a.en", "1\n\n3\n \n5\n"), write(tmp_path / "a.de", "1\n2\n3\n\n5\n")]
    assert "a.en, line 2: is empty, and not in a.de; repair" in refusal(sources, tmp_path, "pairs")
    made = bring(sources, tmp_path, "pairs", skip_broken=True, test_share=0)
    assert [e["en"] for e in examples(made, "train")] == ["1", "3", "5"]
    assert made.notes == ["left out: 1 line, empty on both sides"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("no tab", "line 2: has 0 tabs; expected one"),
        ("a\tb\tc", "line 2: has 2 tabs; expected one"),
        ("\tb", "line 2: is empty on the left of the tab"),
        ("a\t ", "line 2: is empty on the right of the tab"),
    ],
)
def test_lines_that_are_no_pairs(tmp_path, line, words):
    path = write(tmp_path / "a.tsv", f"a\tb\n{line}\n")
    assert words in refusal(path, tmp_path, "pairs")
    assert bring(path, tmp_path, "pairs", skip_broken=True, test_share=0).splits == {"train": 1}


def test_files_that_do_not_belong_together(tmp_path):
    folder = tmp_path / "files"
    for name in ("train.en", "train.de", "test.en"):
        write(folder / name, "a\n")
    assert "test: 1 file of that name (test.en); expected two" in refusal(folder, tmp_path, "pairs")
    write(folder / "test.fr", "a\n")
    text = refusal(folder, tmp_path, "pairs")
    assert "end with de and en, but other files with en and fr; expected the same languages" in text
    text = refusal([folder / "train.en", folder / "test.en"], tmp_path, "pairs")
    assert "name two splits; pair files of one split" in text
    write(folder / "bad.de", b"\xff\n")
    text = refusal([folder / "bad.de", write(folder / "bad.en", "a\n")], tmp_path, "pairs")
    assert "bad.de, line 1: byte 0 (0xff) is not UTF-8" in text
