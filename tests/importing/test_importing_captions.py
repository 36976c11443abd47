"""Images with captions: what of CSV, JSON Lines and COCO's JSON becomes a pair, and what is refused."""

import json

import pytest
from helpers.annotated_cases import save
from helpers.importing_cases import bring, examples, refusal, write

ROWS = {0: ["a red cat", "a cat, sitting"], 1: ["two dogs"], 2: ["Zürich 🚋"]}


@pytest.fixture
def root(tmp_path):
    for number in ROWS:
        save(tmp_path / "files" / "sub" / f"{number}.png", number)
    return tmp_path / "files"


def csv(root):
    rows = [f'sub/{n}.png,"{caption}"' for n, captions in ROWS.items() for caption in captions]
    return write(root / "rows.csv", "\n".join(["path,caption", *rows, rows[0]]))


def lines(root):
    objects = [{"file_name": f"sub/{n}.png", "text": captions} for n, captions in ROWS.items()]
    return write(
        root / "rows.jsonl",
        "\n".join(json.dumps(each) for each in [*objects, objects[0] | {"text": "a red cat"}]),
    )


def coco(root):
    images = [{"id": 10 + n, "file_name": f"sub/{n}.png"} for n in ROWS]
    said = [{"image_id": 10 + n, "caption": caption} for n, captions in ROWS.items() for caption in captions]
    content = {"images": images, "annotations": [*said, said[0]], "info": {}}
    return write(root / "captions.json", json.dumps(content))


@pytest.mark.parametrize("made_by", [csv, lines, coco])
def test_all_three_forms_say_the_same(made_by, root, tmp_path):
    made = bring(made_by(root), tmp_path, "image-text", test_share=0)
    assert made.splits == {"train": 3}
    found = {row["path"]: row["caption"] for row in examples(made, "train")}
    assert found == {f"sub/{n}.png": captions for n, captions in ROWS.items()}
    assert {"4 captions", "left out: 1 caption that the same image has before"} <= set(made.notes)


def test_further_captions_are_features_of_their_own(root, tmp_path):
    rows = "path,caption,caption_de\nsub/0.png,a cat,eine Katze\nsub/1.png,two dogs,zwei Hunde\n"
    made = bring(write(root / "rows.csv", rows), tmp_path, "image-text", test_share=0)
    assert [row["caption_de"] for row in examples(made, "train")] == [["eine Katze"], ["zwei Hunde"]]
    assert {"caption: 2 captions", "caption_de: 2 captions"} <= set(made.notes)
    without = write(root / "without.csv", rows.replace("zwei Hunde", ""))
    assert "line 3: has an empty caption_de" in refusal(without, tmp_path, "image-text", name="other")


def test_files_and_columns_tell_splits(root, tmp_path):
    first = write(root / "train.csv", "path,caption\nsub/0.png,one\nsub/1.png,two\n")
    second = write(root / "val.csv", "path,caption\nsub/2.png,three\n")
    assert bring([first, second], tmp_path, "image-text").splits == {"train": 2, "validation": 1}
    both = write(root / "a.csv", "image,caption,split\nsub/0.png,one,train\nsub/1.png,two,test\n")
    assert bring(both, tmp_path, "image-text", name="other").splits == {"train": 1, "test": 1}
    split = write(root / "b.csv", "image,caption,split\nsub/0.png,one,train\nsub/0.png,two,test\n")
    assert "'sub/0.png' is in the split 'train' before, and here in 'test'" in refusal(
        split, tmp_path, "image-text", name="third"
    )


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("sub/9.png,x", "line 3: there is no image 'sub/9.png' in "),
        ("../files/sub/1.png,x", "line 3: there is no image '../files/sub/1.png' in "),
        ("sub/1.png, ", "line 3: has an empty caption"),
        (",x", "line 3: names no image"),
        ("sub/1.png", "line 3: has 1 value for 2 columns"),
        ("rows.csv,x", "rows.csv: not a readable image"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(row, words, root, tmp_path):
    path = write(root / "rows.csv", f"path,caption\nsub/0.png,one\n{row}\n")
    assert words in refusal(path, tmp_path, "image-text")
    made = bring(path, tmp_path, "image-text", test_share=0, skip_broken=True)
    assert made.splits == {"train": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([{"image_id": 1, "caption": "x"}], "annotations[0]: there is no image of the id 1"),
        ([{"image_id": 0, "caption": ""}], "annotations[0]: has an empty caption"),
        ([{"image_id": 0, "caption": 7}], "annotations[0]: its caption holds 7, which is no text"),
        ([], "the image 'sub/0.png' has no caption"),
        ({}, "is not COCO's JSON of captions; it has no lists images and annotations"),
    ],
)
def test_what_is_wrong_in_cocos_json_is_named_with_its_place(content, words, root, tmp_path):
    images = [{"id": 0, "file_name": "sub/0.png"}]
    path = write(root / "a.json", json.dumps({"images": images, "annotations": content}))
    assert words in refusal(path, tmp_path, "image-text")


def test_other_sources_are_refused(root, tmp_path):
    assert "expected a CSV or JSON Lines of path and caption" in refusal(root, tmp_path, "image-text")
    named = write(root / "a.csv", "file,caption\nsub/0.png,x\n")
    assert "line 2: has no column 'path' (nor 'file_name' or 'image'); there are: file, caption" in refusal(
        named, tmp_path, "image-text"
    )
    assert "are of two kinds" in refusal([csv(root), coco(root)], tmp_path, "image-text")


def test_the_kind_captions_reads_what_was_made(root, tmp_path, monkeypatch):
    from jaxformer.data import DataConfig, make_batches
    from jaxformer.data.kinds.captions import Captions
    from jaxformer.data.text.tokenizer_training import Bytes

    monkeypatch.setenv("JAXFORMER_CACHE", str(tmp_path / "cache"))
    bring(csv(root), tmp_path, "image-text", test_share=0)
    config = DataConfig(
        name="mine", data_dir=str(tmp_path / "tfds"), examples=Captions(length=40), tokenizer=Bytes("seq2seq")
    )
    source = make_batches(config, "train", train=False).source
    assert [source.text_of(index) for index in range(len(source))] == [
        c for captions in ROWS.values() for c in captions
    ]
