"""Names of classes: one key in every format and option, and nothing is parsed as anything but a name."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from helpers.annotated_cases import coco, mask_of, png, save, text, voc, yolo
from helpers.importing_cases import bring, examples, refusal, write
from hypothesis import example, given
from hypothesis import strategies as st

from jaxformer.data.names import class_key
from jaxformer.importing.contents import natural

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
WAYS = [DECOMPOSED, "caf\u00e9 ", "\u200bcaf\u00e9", "ca\u00adfe\u0301\u00a0", "\ufeffcaf\u200d\u00e9"]
NOTE = "one class, 'caf\u00e9': it is written as "


@given(st.text())
@example("\u0301 ")
@example(" \u200b a\u200b\u0301")
def test_a_key_is_a_key_of_itself_in_normal_form_without_what_is_not_seen(name):
    key = class_key(name)
    assert class_key(key) == key == key.strip() == unicodedata.normalize("NFC", key)
    assert not any(unicodedata.category(character) == "Cf" for character in key)


@pytest.mark.parametrize(
    "unseen",
    ["͏", "ᅟ", "ᅠ", "឴", "឵", "᠋", "᠏", "\u2065", "ㅤ", "︀", "️", "ﾠ", "󠄀", "󠇯"],
)
def test_what_nobody_sees_is_not_of_the_name(unseen):
    assert class_key(f"{unseen}ca{unseen}t{unseen}") == "cat"


@pytest.mark.parametrize("blank", ["  ", "\u00a0", " \u2003", "\u3000"])
def test_white_space_in_a_name_is_one_blank_and_it_is_said(tmp_path, blank):
    assert class_key(f"New{blank}York") == "New York"
    path = write(tmp_path / "a.csv", f"text,label\na,New York\nb,New{blank}York\nc,tea\n")
    made = bring(path, tmp_path, "csv", label="label", test_share=0)
    assert made.class_names == ["New York", "tea"]
    written = ascii(f"New{blank}York")
    assert f"one class, 'New York': it is written as 'New York' and {written}" in made.notes


def test_case_and_what_stands_inside_are_of_the_name():
    names = ["Cat", "cat", "hot dog", "hotdog", "\uff43at", "1", "01", "1.0", "\u0661"]
    assert list(map(class_key, names)) == names


def as_csv(root: Path, first: str, second: str):
    return write(root / "a.csv", f"text,label\na,{first}\nb,{second}\nc,tea\n"), "csv", {"label": "label"}


def as_jsonl(root: Path, first: str, second: str):
    rows = [{"text": "a", "label": name} for name in (first, second, "tea")]
    return write(root / "a.jsonl", "\n".join(map(json.dumps, rows))), "jsonl", {"label": "label"}


def as_conll(root: Path, first: str, second: str):
    return write(root / "a.conll", f"a\t{first}\nb\t{second}\nc\ttea\n"), "conll", {}


def as_folders(root: Path, first: str, second: str):
    for seed, name in enumerate((first, second, "tea")):
        save(root / name / f"{seed}.png", seed)
    return root, "images", {}


def as_image_csv(root: Path, first: str, second: str):
    for seed in range(3):
        save(root / f"{seed}.png", seed)
    return text(root / "a.csv", f"path,label\n0.png,{first}\n1.png,{second}\n2.png,tea\n"), "images", {}


def as_voc(root: Path, first: str, second: str):
    for seed, name in enumerate((first, second, "tea")):
        bounds = "<xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax>"
        voc(
            root / f"{seed}.xml",
            2,
            root / f"{seed}.png",
            f"<object><name>{name}</name><bndbox>{bounds}</bndbox></object>",
        )
        save(root / f"{seed}.png", seed)
    return root, "voc", {}


@pytest.mark.parametrize("make", [as_csv, as_jsonl, as_conll, as_folders, as_image_csv, as_voc])
@pytest.mark.parametrize("way", WAYS)
def test_ways_to_write_a_name_are_one_class_and_it_is_said(tmp_path, make, way):
    source, kind, options = make(tmp_path / "files", COMPOSED, way)
    made = bring(source, tmp_path, kind, test_share=0, **options)
    assert made.class_names == [COMPOSED, "tea"]
    # White space around a name is not of it where the format has it so.
    seen = way.strip() if make is as_voc else way.strip(" ") if make is as_conll else way
    both = {f"{NOTE}{one!a} and {other!a}" for one, other in ((COMPOSED, seen), (seen, COMPOSED))}
    assert len(both & set(made.notes)) == (seen != COMPOSED)


@pytest.mark.parametrize("make", [as_csv, as_jsonl, as_conll, as_folders, as_image_csv, as_voc])
@pytest.mark.parametrize("name", ["a\u2028b", "a\u0085b", "a\u007fb", "\u200b"])
def test_names_that_are_no_line_are_refused_by_name(tmp_path, make, name):
    source, kind, options = make(tmp_path / "files", "tree", name)
    assert f"{name!r} is no name of a class; expected one line" in refusal(source, tmp_path, kind, **options)


@pytest.mark.parametrize("name", ["a\nb", "a\x1bb", "a\rb"])
def test_a_folder_whose_name_holds_control_characters_is_refused_by_name(tmp_path, name):
    source, kind, _ = as_folders(tmp_path / "files", "tree", name)
    said = refusal(source, tmp_path, kind)
    assert said.startswith(f"{source}: the folder {name!r} is no name of a class; expected one line of text")
    assert said.endswith("; rename it")


def test_a_folder_whose_name_is_not_utf8_is_refused_by_name(tmp_path):
    source, kind, _ = as_folders(tmp_path / "files", "tree", "caf\udce9")
    assert "the folder 'caf\\udce9' is no name of a class" in refusal(source, tmp_path, kind)
    path = write(tmp_path / "texts" / "caf\udce9" / "a.txt", "abc\n")
    assert "its name, 'caf\\udce9/a.txt', is not UTF-8; rename it" in refusal(
        tmp_path / "texts", tmp_path, "text"
    )
    assert bring(path, tmp_path, "text", test_share=0).splits == {"train": 1}


def test_a_single_class_that_is_written_in_two_ways_is_named_with_both(tmp_path):
    path = write(tmp_path / "a.csv", f"text,label\na,{COMPOSED}\nb,{DECOMPOSED}\n")
    said = refusal(path, tmp_path, "csv", label="label")
    assert "there is only the class 'caf\u00e9'; two are needed" in said
    assert said.endswith(f"{NOTE}{COMPOSED!a} and {DECOMPOSED!a}")


def test_classes_that_are_listed_are_compared_by_their_keys(tmp_path):
    path = write(tmp_path / "a.csv", f"text,label\na,{DECOMPOSED}\nb,tea \n")
    made = bring(path, tmp_path, "csv", label="label", classes=("tea", COMPOSED + "\u200b"), test_share=0)
    assert made.class_names == ["tea", COMPOSED]
    assert [row["label"] for row in examples(made, "train")] == [1, 0]
    twice = f"the class 'caf\u00e9' is there twice, as {COMPOSED!a} and {DECOMPOSED!a}"
    classes = (COMPOSED, DECOMPOSED)
    assert f"`classes`: {twice}" in refusal(path, tmp_path, "csv", label="label", classes=classes)
    tags = write(tmp_path / "a.conll", f"a {DECOMPOSED}\nb tea\n")
    made = bring(tags, tmp_path, "conll", "tags", classes=(COMPOSED, "tea"), test_share=0)
    assert examples(made, "train")[0]["tags"] == [0, 1]
    yolo(tmp_path / "yolo" / "0.txt", 0, tmp_path / "yolo" / "0.png")
    names = text(tmp_path / "yolo" / "classes.txt", f"{COMPOSED}\n{DECOMPOSED}\ntea\n")
    other = tmp_path / "other"
    assert f"classes.txt: {twice}" in refusal(names, other, "yolo")
    described = text(tmp_path / "yolo" / "data.yaml", f"train: .\nnames: [{COMPOSED}, {DECOMPOSED}, tea]\n")
    assert f"data.yaml: {twice}" in refusal(described, other, "yolo")
    save(tmp_path / "masks" / "images" / "0.png", 0)
    write(tmp_path / "masks" / "masks" / "0.png", png(mask_of(0)))
    text(tmp_path / "masks" / "classes.txt", f"{COMPOSED}\n{DECOMPOSED}\ntea\n")
    assert f"classes.txt: {twice}" in refusal(tmp_path / "masks", other, "segmentation")
    categories = [{"id": number, "name": name} for number, name in enumerate((COMPOSED, DECOMPOSED))]
    path = coco(tmp_path / "a.json", [0], tmp_path, categories=categories)
    assert "categories[1]: the id 1 or the name" in refusal(path, other, "coco")


@pytest.mark.parametrize(
    "names",
    [
        "no yes on off null ~ true",
        "1.0 1 01 0x10 1e3 .inf",
        "2024-01-01 12:30:45 1_000 y n =",
        "<< # * & ! %",
    ],
)
@pytest.mark.parametrize("form", ["list", "numbers", "texts", "quoted"])
def test_yaml_gives_names_and_no_other_values(tmp_path, names, form):
    words = names.split()
    if form == "quoted":
        listed = json.dumps(words)
    else:
        words = [word for word in words if word not in ("#", "*", "&", "!", "%", "=")]
        lines = {"list": "- {1}", "numbers": "{0}: {1}", "texts": "'{0}': {1}"}[form]
        listed = "\n  " + "\n  ".join(lines.format(*pair) for pair in enumerate(words))
    root = tmp_path / "files"
    yolo(root / "0.txt", 2, root / "0.png")
    text(root / "0.txt", "0 0.5 0.5 0.2 0.2\n")
    made = bring(
        text(root / "data.yaml", f"train: .\nval: ~\ntest: null\nnames: {listed}\n"), tmp_path, "yolo"
    )
    assert made.class_names == words


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([True, False], ["false", "true"]),
        ([1, 0, "1"], ["0", "1"]),
        ([1, "01", "1.0"], ["01", "1", "1.0"]),
        (["null", "None", "nan"], ["None", "nan", "null"]),
        ([10**30, 2], ["2", str(10**30)]),
    ],
)
def test_json_gives_names_as_they_are_written(tmp_path, values, names):
    lines = [json.dumps({"text": "a", "label": value}) for value in values]
    made = bring(
        write(tmp_path / "a.jsonl", "\n".join(lines)), tmp_path, "jsonl", label="label", test_share=0
    )
    assert made.class_names == names
    labels = [made.class_names[row["label"]] for row in examples(made, "train")]
    assert labels == [value if isinstance(value, str) else json.dumps(value) for value in values]
    one = "one class, '1': it is written as 1 and '1'"
    assert (one in made.notes) == (values == [1, 0, "1"])


@pytest.mark.parametrize(
    "value", ["1.0", "1e3", "null", '""', "[1]", "{}", '" "', '"a\\u0000b"', '"\\ud83d"']
)
def test_json_that_is_no_name_is_refused(tmp_path, value):
    path = write(tmp_path / "a.jsonl", f'{{"text": "a", "label": {value}}}\n{{"text": "a", "label": "b"}}\n')
    assert "a.jsonl, line 1: column 'label'" in refusal(path, tmp_path, "jsonl", label="label")


def test_a_csv_keeps_the_zeros_of_names(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\na,01\nb,1\nc,1.0\nd,True\ne,null\n")
    made = bring(path, tmp_path, "csv", label="label", test_share=0)
    assert made.class_names == ["01", "1", "1.0", "True", "null"]


def test_numbers_of_any_length_are_ordered_by_value():
    names = ["9" * 5000, "10", "9", "010", "b", "0"]
    assert sorted(names, key=natural) == ["0", "9", "010", "10", "9" * 5000, "b"]


def test_batches_have_the_keys_of_names_in_a_dataset_of_others(tmp_path):
    import tensorflow_datasets as tfds

    from jaxformer.data import DataConfig, make_batches
    from jaxformer.data.base import record, recorded
    from jaxformer.data.writing import write_dataset

    names = [DECOMPOSED, "tea\u200b"]
    features = {"image": tfds.features.Image(shape=(8, 8, 3)), "label": tfds.features.ClassLabel(names=names)}
    rows = [{"image": png(np.full((8, 8, 3), 9, np.uint8)), "label": 0}]
    write_dataset(tmp_path, "theirs", "1.0.0", features, {"train": rows})
    batches = make_batches(DataConfig(name="theirs", data_dir=str(tmp_path)), "train", train=False)
    assert batches.class_names == [COMPOSED, "tea"]
    known = json.loads(json.dumps(record(batches) | {"class_names": names}))  # as older runs have it
    assert recorded(known, 1).class_names == [COMPOSED, "tea"]
