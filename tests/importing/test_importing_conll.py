"""Tagged sentences: words and tags come back, IOB1 becomes BIO, and what does not fit is named."""

import pytest
from helpers.importing_cases import bring, examples, real, refusal, write
from hypothesis import given
from hypothesis import strategies as st

from jaxformer.importing.formats.conll import to_bio

NEWS = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC
call NN I-NP O

-DOCSTART- -X- -X- O
Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""


def entities(tags: list[str]) -> list[tuple[int, int, str]]:
    """First word, last word and type of each entity, by the rules of conlleval (startOfChunk, endOfChunk)."""
    found, begin = [], None
    for place, tag in enumerate([*tags, "O"]):
        before = tags[place - 1] if place else "O"
        ends = before != "O" and (tag[0] in "BO" or tag[2:] != before[2:])
        if ends:
            found.append((begin, place - 1, before[2:]))
        if tag != "O" and (ends or before == "O"):
            begin = place
    return found


@given(st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"]), max_size=12))
def test_iob1_becomes_bio_with_the_same_entities(tags):
    converted = to_bio(tags)
    assert entities(converted) == entities(tags)
    for before, tag in zip(["O", *converted], converted):
        assert tag[0] != "I" or before[2:] == tag[2:]
    assert to_bio(converted) == converted


def test_iob1_by_hand():
    # Two adjacent entities of a type, then one of another type at once, and one after O.
    assert to_bio(["I-PER", "I-PER", "B-PER", "I-ORG", "O", "I-LOC"]) == [
        "B-PER",
        "I-PER",
        "B-PER",
        "B-ORG",
        "O",
        "B-LOC",
    ]


def test_wnut17_as_files_comes_back(tmp_path):
    builder = real("wnut17")
    names = builder.info.features["ner"].feature.names
    written = {}
    for split, name in (("train[:300]", "train"), ("validation", "dev"), ("test", "test")):
        rows = [
            ([t.decode() for t in e["tokens"]], [names[tag] for tag in e["ner"]])
            for e in builder.as_data_source(split)
        ]
        blocks = ["".join(f"{t}\t{tag}\n" for t, tag in zip(*row)) for row in rows]
        write(tmp_path / "files" / f"{name}.conll", "\n".join(blocks))
        written[split.split("[")[0]] = rows
    made = bring(tmp_path / "files", tmp_path, "conll")
    assert made.class_names == ["O", *sorted(set(names) - {"O"})]
    assert made.notes == []
    for split, rows in written.items():
        ours = examples(made, split)
        assert [e["tokens"] for e in ours] == [tokens for tokens, _ in rows]
        assert [[made.class_names[tag] for tag in e["tags"]] for e in ours] == [tags for _, tags in rows]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_columns_of_conll_2003(tmp_path, end):
    path = write(tmp_path / "eng.txt", NEWS.replace("\n", end))
    made = bring(path, tmp_path, "conll", "ner", test_share=0)
    assert made.class_names == ["O", "B-MISC", "B-ORG", "B-PER", "I-PER"]
    assert examples(made, "train") == [
        {"tokens": ["EU", "rejects", "German", "call"], "tags": [2, 0, 1, 0]},
        {"tokens": ["Peter", "Blackburn"], "tags": [3, 4]},
    ]
    made = bring(path, tmp_path, "conll", "pos", columns=(1, 2), test_share=0)
    assert made.class_names == ["JJ", "NN", "NNP", "VBZ"]
    made = bring(path, tmp_path, "conll", "given", classes=("B-PER", "I-PER", "B-ORG", "B-MISC", "O"))
    assert made.class_names == ["B-PER", "I-PER", "B-ORG", "B-MISC", "O"]


def test_files_of_conll_2003_tell_their_splits(tmp_path):
    for number, name in enumerate(("eng.train", "eng.testa", "eng.testb")):
        write(tmp_path / "files" / name, NEWS + "\nx x x O\n" * number)
    made = bring(tmp_path / "files", tmp_path, "conll")
    assert made.splits == {"train": 2, "validation": 3, "test": 4}


def test_iob1_is_counted(tmp_path):
    path = write(tmp_path / "a.conll", "Peter I-PER\nBlackburn I-PER\n\nIn O\nBern I-LOC\n")
    made = bring(path, tmp_path, "conll", test_share=0)
    assert [[made.class_names[t] for t in e["tags"]] for e in examples(made, "train")] == [
        ["B-PER", "I-PER"],
        ["O", "B-LOC"],
    ]
    assert made.notes == ["changed: 2 tags I-X at the beginning of an entity, to B-X (IOB1 to BIO)"]


@pytest.mark.parametrize(
    ("line", "options", "words"),
    [
        ("Bern B-LOC B-LOC", {}, "line 5: has 3 columns, and not 2 as before"),
        ("Bern", {}, "line 5: has 1 column, and not 2 as before"),
        ("Bern E-LOC", {}, "line 5: tag 'E-LOC' is none of O, B-X and I-X"),
        ("Bern B-", {}, "line 5: tag 'B-' is none of O, B-X and I-X"),
        ("Bern B-L\u2028OC", {}, "line 5: tag 'B-L\\u2028OC' is no name of a class; expected one line"),
        ("Bern B-LOC", {"classes": ("O", "B-PER", "I-PER")}, "line 5: tag 'B-LOC' is not in `classes`"),
    ],
)
def test_sentences_that_are_broken_are_named_or_left_out(tmp_path, line, options, words):
    path = write(tmp_path / "a.conll", f"Peter B-PER\nBlackburn I-PER\n\nIn O\n{line}\n\nYes O\n")
    assert words in refusal(path, tmp_path, "conll", **options)
    made = bring(path, tmp_path, "conll", skip_broken=True, test_share=0, **options)
    assert [e["tokens"] for e in examples(made, "train")] == [["Peter", "Blackburn"], ["Yes"]]


def test_what_cannot_be_read_as_tags(tmp_path):
    path = write(tmp_path / "a.conll", "just\nwords\n")
    assert "line 1: has 1 column; expected a word and its tag" in refusal(path, tmp_path, "conll")
    path = write(tmp_path / "b.conll", "a O\nb O\n")
    assert "only the class 'O'; two are needed" in refusal(path, tmp_path, "conll")
    assert "line 1: has 2 columns; expected column 4" in refusal(path, tmp_path, "conll", columns=(1, 4))
    for columns in ((1, 1), (0, 1), (1,), (1, 2, 3), (1, 2, 1), (1.0, 2), ("1", "2"), (True, 2)):
        given = ",".join(map(str, columns))
        said = refusal(path, tmp_path, "conll", columns=columns)
        assert f"`columns` {given}: expected the word's and the tag's" in said
