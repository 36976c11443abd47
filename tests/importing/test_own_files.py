"""Files of a user's own in the place of a dataset's name: imported once, into the cache."""

import json
import logging
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow.ipc
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxformer.config.schema import build
from jaxformer.data.catalog import find_dataset, open_builder
from jaxformer.data.kinds import KINDS
from jaxformer.data.records import open_records
from jaxformer.errors import UserError
from jaxformer.importing import pipeline


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(name, **examples):
    kind = {"name": "sequences", "length": 8, "features": ["text"], **examples}
    return SimpleNamespace(
        name=name, examples=build(KINDS, kind, "data.examples"), data_dir=None, version=None
    )


def table(path, header="text,label", rows=None, encoding="utf-8"):
    rows = (
        [f'"film {i} was, well, {i % 2}",{"Very Good" if i % 2 else "bad"}' for i in range(20)]
        if rows is None
        else rows
    )
    path.write_bytes("\n".join([header, *rows]).encode(encoding))
    return path


def opened(config):
    found = find_dataset(config)
    builder = tfds.builder_from_directory(found.folder)
    return (
        found,
        {split: list(builder.as_data_source(split)) for split in builder.info.splits},
        builder.info.features,
    )


def refused(config):
    with pytest.raises(UserError) as caught:
        find_dataset(config)
    return str(caught.value)


def test_a_table_becomes_a_dataset_with_a_share_held_out(here, caplog):
    table(here / "reviews.csv")
    with caplog.at_level(logging.INFO, "jaxformer"):
        found, splits, features = opened(config_of("csv:reviews.csv"))
    assert found.name.startswith("reviews_")
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 16, "test": 4}
    assert features["label"].names == ["Very Good", "bad"]
    with pytest.raises(UserError, match=r"^csv:reviews\.csv has no split 'tset'; did you mean 'test'\?$"):
        open_records(open_builder(found), found, "tset")
    assert (
        sorted(row["text"].decode() for rows in splits.values() for row in rows)[0] == "film 0 was, well, 0"
    )
    assert sum(row["label"] for row in splits["test"]) == 2  # of each class the same share
    assert "csv:reviews.csv: 16 train, 4 test; classes: Very Good, bad; kept in " in caplog.text


def test_the_same_content_is_imported_once_and_other_content_anew(here, monkeypatch):
    table(here / "reviews.csv")
    first = find_dataset(config_of("csv:reviews.csv"))

    def never(*_, **__):
        raise AssertionError("imported again")

    with monkeypatch.context() as patch:
        patch.setattr("jaxformer.importing.own.import_dataset", never)
        assert find_dataset(config_of("csv:reviews.csv")) == first
    table(here / "reviews.csv", rows=["good,a", "bad,b"] * 5)
    second = find_dataset(config_of("csv:reviews.csv"))
    third = find_dataset(config_of("csv:reviews.csv", label_feature=None))
    assert len({first.folder, second.folder, third.folder}) == 3


@pytest.mark.parametrize(
    ("header", "examples", "taken"),
    [
        ("Review,Sentiment", {}, {"text", "label"}),
        ("words,label", {}, {"text", "label"}),
        ("comment,stars", {"features": ["comment"], "label_feature": "stars"}, {"comment", "stars"}),
        ("sentence,class", {"features": ["sentence"]}, {"sentence", "label"}),
    ],
)
def test_columns_are_those_that_are_named_or_look_like_it(header, examples, taken, here, caplog):
    table(here / "a.csv", header)
    with caplog.at_level(logging.INFO, "jaxformer"):
        _, splits, features = opened(config_of("csv:a.csv", **examples))
    assert set(features) == taken
    text = next(name for name in taken if isinstance(features[name], tfds.features.Text))
    assert splits["train"][0][text].decode().startswith("film")
    for name in {*header.split(",")} - taken:
        assert f"its column {name!r} is taken as " in caplog.text


def test_other_columns_are_left_out_and_pairs_are_two(here):
    rows = [f"a {i},b {i},{i % 2}.5,x,{i}" for i in range(10)]
    table(here / "a.csv", "premise,hypothesis,score,x,id", rows)
    config = config_of("csv:a.csv", features=["premise", "hypothesis"], label_feature="score")
    _, splits, features = opened(config)
    assert set(features) == {"premise", "hypothesis", "score"}
    assert features["score"].np_dtype == np.float32
    assert {row["score"] for row in splits["train"]} == {0.5, 1.5}


def test_json_lines_and_folders_of_pictures(here):
    lines = [f'{{"text": "film {i}", "label": {i % 2}}}' for i in range(10)]
    (here / "a.jsonl").write_text("\n".join(lines))
    _, splits, features = opened(config_of("jsonl:a.jsonl"))
    assert features["label"].names == ["0", "1"]
    assert len(splits["train"]) == 8
    for name, colour in (("red ones", (255, 0, 0)), ("blue", (0, 0, 255))):
        (here / "pictures" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (8, 8 + i), colour).save(here / "pictures" / name / f"{i}.png")
    config = SimpleNamespace(name="folder:pictures", examples=build(KINDS, "images", "data.examples"))
    _, splits, features = opened(config)
    assert features["label"].names == ["blue", "red ones"]
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 8, "test": 2}


def test_parquet_and_arrow_with_the_names_of_classes_that_hugging_face_notes(here):
    about = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["bad", "Very Good"]}}}}
    columns = {
        "text": [f"film {i}" for i in range(10)],
        "label": [i % 2 for i in range(10)],
        "list": [[1]] * 10,
    }
    written = pyarrow.table(columns).replace_schema_metadata({"huggingface": json.dumps(about)})
    pyarrow.parquet.write_table(written, here / "a.parquet")
    for name, new in (("stream.arrow", pyarrow.ipc.new_stream), ("file.arrow", pyarrow.ipc.new_file)):
        with new(str(here / name), written.schema) as writer:
            writer.write_table(written)
    for name in ("a.parquet", "stream.arrow", "file.arrow"):
        _, splits, features = opened(config_of(f"parquet:{name}"))
        assert features["label"].names == ["Very Good", "bad"]
        assert set(features) == {"text", "label"}
        of = {row["text"].decode(): features["label"].names[row["label"]] for row in splits["train"]}
        assert len(of) == 8
        assert all(label == ("Very Good" if int(text[-1]) % 2 else "bad") for text, label in of.items())
    (here / "torn.parquet").write_bytes((here / "a.parquet").read_bytes()[:-9])
    (here / "torn.arrow").write_bytes(b"ARROW1 and nothing else")
    for name in ("torn.parquet", "torn.arrow"):
        assert f"{name}: is no table of Parquet or Arrow" in refused(config_of(f"parquet:{name}"))


@pytest.mark.parametrize(
    ("header", "rows", "examples", "line"),
    [
        ("text,label", [], {}, "a.csv: no examples are left"),
        ("reviewed,x,label", ["a,b,c"] * 3, {"features": ["reveiwed"]}, "names; did you mean 'reviewed'?"),
        ("a,b,label", ["a,b,c", "a,b,d"], {}, "has no column 'text', which data.examples.features[0] names; there"),
        ("text,klass", None, {}, "has no column 'label', which data.examples.label_feature names"),
        ("text,label", ["good,a", "better,a"], {}, "there is only the class 'a'; two are needed at least"),
        ("text,label", ['a "torn,b', '"quote,c'], {}, "not CSV"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line(header, rows, examples, line, here):
    table(here / "a.csv", header, rows)
    assert line in refused(config_of("csv:a.csv", **examples))


def test_other_encodings_empty_files_and_unknown_kinds_are_named(here):
    table(here / "latin.csv", rows=["caf\u00e9,a", "the,b"], encoding="latin-1")
    message = refused(config_of("csv:latin.csv"))
    assert "latin.csv, line 2: " in message
    assert "UTF-8" in message
    assert "`jaxformer data import csv latin.csv ...` has options for that" in message
    (here / "empty.csv").write_text("")
    assert "empty.csv: " in refused(config_of("csv:empty.csv"))
    assert "nowhere.csv: there is no such file or folder" in refused(config_of("csv:nowhere.csv"))
    assert "'csv:': names nothing; write a path" in refused(config_of("csv:"))
    assert "there is no kind 'cvs' of files; did you mean 'csv'?" in refused(config_of("cvs:a.csv"))


def test_of_two_imports_at_once_both_find_the_first(here, monkeypatch):
    table(here / "reviews.csv")
    real = pipeline.import_dataset

    def slower(*arguments, **options):
        real(*arguments, **options)  # another process
        return real(*arguments, **options)

    monkeypatch.setattr("jaxformer.importing.own.import_dataset", slower)
    assert find_dataset(config_of("csv:reviews.csv")).folder.exists()


def test_a_dataset_of_the_hub_is_imported_once_with_its_classes(here, monkeypatch):
    asked = []

    class Split:
        features = {}

        def __init__(self, count):
            self.count = count

        def to_parquet(self, path):
            columns = {
                "text": [f"film {i}" for i in range(self.count)],
                "label": [i % 2 for i in range(self.count)],
            }
            features = {"label": {"_type": "ClassLabel", "names": ["dull", "fine"]}}
            noted = {"huggingface": json.dumps({"info": {"features": features}})}
            pyarrow.parquet.write_table(pyarrow.table(columns).replace_schema_metadata(noted), path)

    def load_dataset(name, config, revision):
        asked.append((name, config, revision))
        if name == "no/such":
            raise FileNotFoundError("Couldn't reach it")
        return (
            {"odd": Split(2)}
            if name == "odd"
            else {"train": Split(6), "test": Split(4), "unsupervised": Split(9)}
        )

    stub = SimpleNamespace(load_dataset=load_dataset, Image=bytes, ClassLabel=list)
    monkeypatch.setitem(sys.modules, "datasets", stub)
    for _ in range(2):
        _, splits, features = opened(config_of("hf:some/films:small@v1"))
    assert asked == [("some/films", "small", "v1")]
    assert {name: len(split) for name, split in splits.items()} == {"train": 6, "test": 4}
    assert features["label"].names == ["dull", "fine"]
    assert "cannot be had (Couldn't reach it)" in refused(config_of("hf:no/such"))
    assert "has no split of train, validation or test, but odd" in refused(config_of("hf:odd"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "needs the package `datasets`" in refused(config_of("hf:another"))


def test_a_dataset_of_pictures_of_the_hub_becomes_folders_of_classes(here, monkeypatch):
    class Pictures:
        """What `datasets` documents of features and `cast_column`; `decode=False` gives bytes and path."""

        def __init__(self, labels, first=0, **features):
            self.first = first
            self.labels, self.features = labels, {"image": Image_(), "label": ClassLabel(), **features}

        def cast_column(self, column, to):
            assert (column, to.decode) == ("image", False)
            return self

        def __iter__(self):
            for i, label in enumerate(self.labels, self.first):
                Image.fromarray(np.full((4, 4, 3), 10 * i, np.uint8)).save(here / f"{i}.png")
                stored = {"bytes": (here / f"{i}.png").read_bytes(), "path": None if i % 2 else f"{i}.JPG"}
                yield {"image": stored, "label": label}

    class Image_:
        def __init__(self, decode=True):
            self.decode = decode

    class ClassLabel:
        names = ("a/b", ".c")

    found = {"train": Pictures([0, 1, -1, 0, 1]), "test": Pictures([1, None, 0], first=6)}
    stub = SimpleNamespace(load_dataset=lambda *_, **__: found, Image=Image_, ClassLabel=ClassLabel)
    monkeypatch.setitem(sys.modules, "datasets", stub)
    config = SimpleNamespace(
        name="hf:some/pictures", examples=build(KINDS, {"name": "images"}, "data.examples")
    )
    config.data_dir = config.version = None
    _, splits, features = opened(config)
    shown = {name: sorted((x["image"][0, 0, 0], x["label"]) for x in split) for name, split in splits.items()}
    assert features["label"].names == ["_c", "a_b"]
    assert shown == {"train": [(0, 1), (10, 0), (30, 1), (40, 0)], "test": [(60, 0), (80, 1)]}
    found["train"] = Pictures([0, 1], other=ClassLabel())
    config.name = "hf:two/labels"
    assert "expected one column of classes, and its pictures have label, other" in refused(config)
