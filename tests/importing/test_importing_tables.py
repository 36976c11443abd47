"""CSV and JSON Lines: columns become features, and what is wrong is named with its line."""

import csv
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from helpers.importing_cases import bring, examples, real, refusal, write
from hypothesis import given, settings
from hypothesis import strategies as st

CELLS = st.text(st.characters(exclude_characters="\r", codec="utf-8"), max_size=40)
REVIEWS = 'text,label\n"good, very\ngood",pos\n"so ""so""",neg\nbad,neg\nfine,pos\n'


@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=20))
def test_texts_come_back_as_they_were_written(rows):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = io.StringIO(newline="")
        writer = csv.writer(table, quoting=csv.QUOTE_ALL)
        writer.writerows([("a", "b"), *rows])
        write(folder / "x.csv", table.getvalue())
        write(folder / "x.jsonl", "".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in rows))
        write(folder / "y.jsonl", "".join(json.dumps({"a": a}, ensure_ascii=False) + "\n" for a, _ in rows))
        for kind in ("csv", "jsonl"):
            made = bring(folder / f"x.{kind}", folder, kind, kind, text=("a", "b"), test_share=0)
            assert [(e["a"], e["b"]) for e in examples(made, "train")] == rows
        made = bring(folder / "y.jsonl", folder, "jsonl", text=("a",), test_share=0)
        assert [e["a"] for e in examples(made, "train")] == [a for a, _ in rows]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_sst2_as_a_table_comes_back(tmp_path, kind):
    builder = real("sst2")
    source = builder.as_data_source("validation")
    names = builder.info.features["label"].names
    rows = [
        {"idx": int(e["idx"]), "sentence": e["sentence"].decode(), "label": names[e["label"]]} for e in source
    ]
    path = tmp_path / f"sst.{kind}"
    if kind == "csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, rows[0])  # ends lines with \r\n
            writer.writeheader()
            writer.writerows(rows)
    else:
        write(path, "".join(json.dumps(row) + "\n" for row in rows))
    made = bring(path, tmp_path, kind, label="label", classes=tuple(names), test_share=0)
    assert made.class_names == names
    ours = examples(made, "train")
    assert [e["sentence"] for e in ours] == [row["sentence"] for row in rows]
    assert [e["idx"] for e in ours] == [row["idx"] for row in rows]
    assert [e["label"] for e in ours] == [int(e["label"]) for e in source]


def test_columns_are_what_all_their_cells_are(tmp_path):
    import tensorflow_datasets as tfds

    content = "id, note,x,y,empty,\n1,a,1,.5,,0\n-2,,2.5,1e3,,1\n+03,5,4,7,,2\n"
    made = bring(write(tmp_path / "a.csv", content), tmp_path, "csv", text=("note",), test_share=0)
    assert examples(made, "train") == [
        {"id": 1, "note": "a", "x": 1.0, "y": 0.5},
        {"id": -2, "note": "", "x": 2.5, "y": 1000.0},
        {"id": 3, "note": "5", "x": 4.0, "y": 7.0},
    ]
    features = tfds.builder_from_directory(made.folder).info.features
    assert [features[key].np_dtype for key in ("id", "x")] == [np.int64, np.float32]
    assert made.notes == ["left out: columns 'empty', one without a name"]


def test_json_has_types(tmp_path):
    lines = [
        {"t": "5", "i": 1, "f": 1, "b": True, "n": {}},
        {"t": "x", "i": 2, "f": 0.5, "b": False, "n": []},
    ]
    content = "\n\n".join(map(json.dumps, lines))
    made = bring(write(tmp_path / "a.jsonl", content), tmp_path, "jsonl", test_share=0)
    assert examples(made, "train") == [
        {"t": "5", "i": 1, "f": 1.0, "b": True},
        {"t": "x", "i": 2, "f": 0.5, "b": False},
    ]
    assert made.notes == ["left out: columns 'n'"]


def test_labels_are_classes_or_numbers(tmp_path):
    path = write(tmp_path / "a.csv", "text,stars\na,10\nb,9\nc,9\nd,10\n")
    made = bring(path, tmp_path, "csv", "classes", label="stars", test_share=0)
    assert made.class_names == ["9", "10"]  # by value
    assert [e["stars"] for e in examples(made, "train")] == [1, 0, 0, 1]
    made = bring(path, tmp_path, "csv", "numbers", label="stars", regression=True, test_share=0)
    assert [e["stars"] for e in examples(made, "train")] == [10.0, 9.0, 9.0, 10.0]
    assert made.class_names == []
    made = bring(path, tmp_path, "csv", "given", label="stars", classes=("10", "9", "8"), test_share=0)
    assert [e["stars"] for e in examples(made, "train")] == [0, 1, 1, 0]


def test_every_class_is_held_out_by_its_share_and_always_the_same(tmp_path):
    rows = [f"text {number},{'rare' if number % 10 == 0 else 'often'}" for number in range(100)]
    path = write(tmp_path / "a.csv", "text,label\n" + "\n".join(rows))
    one, two = (bring(path, tmp_path, "csv", name, label="label") for name in ("one", "two"))
    test = examples(one, "test")
    assert np.bincount([e["label"] for e in test]).tolist() == [18, 2]  # a fifth of 90 and of 10
    assert test == examples(two, "test")
    both = [e["text"] for split in ("train", "test") for e in examples(one, split)]
    assert sorted(both) == sorted(f"text {number}" for number in range(100))


def test_files_of_splits(tmp_path):
    for name, rows in (("train", "a,x\nb,y\n"), ("dev", "c,x\n"), ("test", "d,y\n")):
        write(tmp_path / "files" / f"{name}.csv", "text,label\n" + rows)
    made = bring(tmp_path / "files", tmp_path, "csv", "splits", label="label")
    assert made.splits == {"train": 2, "validation": 1, "test": 1}
    assert examples(made, "test") == [{"text": "d", "label": 1}]
    write(tmp_path / "files" / "test.csv", "text,label\nd,Y\n")
    assert "no example in train for Y; check how" in refusal(
        tmp_path / "files", tmp_path, "csv", label="label"
    )
    write(tmp_path / "files" / "test.csv", "text\nd\n")
    text = refusal(tmp_path / "files", tmp_path, "csv", label="label")
    assert "test.csv, line 2: has no column 'label'" in text


def test_long_cells_are_read(tmp_path):
    limit = csv.field_size_limit()
    made = bring(write(tmp_path / "a.csv", "text\n" + "x" * 200_000), tmp_path, "csv", test_share=0)
    assert len(examples(made, "train")[0]["text"]) == 200_000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("text,text\na,b\n", {}, "line 1: there are two columns 'text'"),
        ("\ntext\na\n", {}, "line 1: is empty; the first line names the columns"),
        ("1,2\n3,4\n", {}, "line 1: 1, 2: numbers, where the columns' names belong"),
        ("text,label\n", {}, "no examples are left"),
        (REVIEWS, {"label": "labels"}, "has no column 'labels', which `label` names; did you mean 'label'?"),
        (REVIEWS, {"text": ("txt",)}, "has no column 'txt', which `text` names; did you mean 'text'?"),
        ("text,label\nx,y\n", {"label": "label"}, "only the class 'y'; two are needed"),
        ("text,n\na,1\nb,2\nc,many\n", {}, "line 4: column 'n' holds text, but a whole number in line 2"),
        ("a,b\n1,2\n", {}, "no column holds texts; there are: a, b"),
        ("a/b\nx\n", {}, "column 'a/b': TFDS takes no '/' in names"),
        ('text\na\n"b\nc\n', {}, "line 3: not CSV (unexpected end of data)"),
        ('text\na\n"b" c\n', {}, "line 3: not CSV (',' expected after '\"')"),
        ("text;label\na;b\n", {}, "line 1: is one column, 'text;label'; put commas between columns"),
    ],
)
def test_csvs_that_cannot_be_are_refused(tmp_path, content, options, words):
    path = write(tmp_path / "a.csv", content)
    assert words in refusal(path, tmp_path, "csv", **options)


@pytest.mark.parametrize(
    ("row", "options", "words"),
    [
        ("x,y,z", {}, "line 7: has 3 values for 2 columns"),
        ("x", {}, "line 7: has 1 value for 2 columns"),
        ("x, ", {"label": "label"}, "line 7: column 'label' holds nothing"),
        (
            "x,maybe",
            {"label": "label", "classes": ("neg", "pos")},
            "holds 'maybe', which is not in `classes`",
        ),
        ('x,"a\nb"', {"label": "label"}, "line 7: column 'label': 'a\\nb' is no name of a class"),
    ],
)
def test_rows_that_are_broken_are_named_or_left_out(tmp_path, row, options, words):
    path = write(tmp_path / "a.csv", REVIEWS + row + "\n")  # the first row takes lines 2 and 3
    text = refusal(path, tmp_path, "csv", **options)
    assert words in text
    assert "`skip_broken=True`" in text
    made = bring(path, tmp_path, "csv", skip_broken=True, test_share=0, **options)
    assert made.splits == {"train": 4}
    assert len(made.broken) == 1


@pytest.mark.parametrize("value", ["", "x", "nan", "1e39", "0x1", "١", "1_0"])
def test_numbers_that_are_none(tmp_path, value):
    path = write(tmp_path / "a.csv", f"text,y\na,1\nb,{value}\n")
    text = refusal(path, tmp_path, "csv", label="y", regression=True)
    assert "a.csv, line 3: column 'y' holds" in text
    path = write(tmp_path / "b.csv", "text,n\na,1\nb,9223372036854775808\n")
    assert "line 3: column 'n' holds 9223372036854775808, which is too large" in refusal(
        path, tmp_path, "csv"
    )


GOOD = '{"text": "a", "n": 1}\n'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "a", "n": 1', "line 2: not JSON (Expecting ',' delimiter at character 21)"),
        ('["a", 1]', "line 2: expected a JSON object"),
        ('{"text": "a", "text": "b", "n": 1}', "line 2: 'text' is there twice"),
        ('{"text": "a", "n": NaN}', "line 2: NaN is not JSON"),
        ('{"text": "a"}', "line 2: has no column 'n'"),
        ('{"text": null, "n": 1}', "line 2: column 'text' holds nothing"),
        ('{"text": "\\ud83d", "n": 1}', "line 2: column 'text' holds half of a surrogate pair"),
        ('{"text": "a", "n": 9223372036854775808}', "line 2: column 'n' holds 9223372036854775808, which"),
        ('{"text": ' + "[" * 100_000, "line 2: not JSON that can be read: it is nested too deeply"),
    ],
)
def test_json_lines_that_are_broken_are_named_or_left_out(tmp_path, line, words):
    path = write(tmp_path / "a.jsonl", GOOD + line + "\n" + GOOD)
    assert words in refusal(path, tmp_path, "jsonl")
    made = bring(path, tmp_path, "jsonl", skip_broken=True, test_share=0)
    assert examples(made, "train") == [{"text": "a", "n": 1}] * 2


@pytest.mark.parametrize(
    ("column", "kind"), [("label", "text"), ("Sentiment", "text"), ("target", "integer")]
)
def test_a_column_that_looks_like_the_label_is_named(tmp_path, column, kind):
    cells = "ab" if kind == "text" else "01"
    path = write(tmp_path / "a.csv", f"text,{column}\na,{cells[0]}\nb,{cells[1]}\n")
    note = f"column {column!r} is kept as {kind}; give `label` to make it the label"
    assert note in bring(path, tmp_path, "csv", "one", test_share=0).notes
    assert bring(path, tmp_path, "csv", "two", label=column, test_share=0).notes == []


def test_too_few_rows_for_a_test_split_are_said(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\na,x\nb,y\n")
    made = bring(path, tmp_path, "csv", label="label")
    assert made.splits == {"train": 2}
    assert made.notes == [
        "there is no split test: of 2 examples no share of 0.2 can be held out; "
        "take a larger `test_share`, or more examples"
    ]


def test_mixed_types_name_both_lines(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD + GOOD + '{"text": 5, "n": 1}\n')
    text = refusal(path, tmp_path, "jsonl")
    assert "a.jsonl, line 3: column 'text' holds a whole number, but text in line 1" in text
    text = refusal(path, tmp_path, "jsonl", text=("text",))
    assert "line 3: column 'text' holds 5, which is no text" in text
    path = write(tmp_path / "b.jsonl", GOOD + '{"text": "b", "n": 1.5}\n')
    assert "holds 1.5, which is no class's name" in refusal(path, tmp_path, "jsonl", label="n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"regression": True}, "`regression`: is about the label, and there is none"),
        ({"classes": ("a", "b")}, "`classes`: is about the label"),
        ({"label": "x", "classes": ("a", "b"), "regression": True}, "give `classes` or `regression`"),
        ({"label": "x", "text": ("x",)}, "`text`: 'x' is the label"),
        ({"label": "x", "classes": ("a", "a")}, "`classes`: the class 'a' is there twice"),
        ({"label": "x", "classes": ("a", "")}, "`classes`: '' is no name of a class"),
        ({"label": "x", "classes": ("a",)}, "`classes`: there is only 'a'"),
    ],
)
def test_options_that_contradict_each_other(tmp_path, options, words):
    assert words in refusal(write(tmp_path / "a.csv", "x\na\n"), tmp_path, "csv", **options)
