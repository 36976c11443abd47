"""Importing pictures with boxes: COCO, VOC and YOLO give back the same scene, and mistakes are named."""

import json
import os

import numpy as np
import pytest
from helpers.annotated_cases import (
    HEIGHT,
    NAMES,
    WIDTH,
    bring,
    coco,
    expected,
    refusal,
    save,
    seen,
    text,
    voc,
    yolo,
)
from PIL import Image

from jaxformer import cli
from jaxformer.importing.sources import split_of_folders


def in_coco(root, split_names=("train2017", "val2017")):
    for number, split in enumerate(split_names):
        coco(
            root / "annotations" / f"instances_{split}.json", range(6 * number, 6 * number + 6), root / split
        )
    return root


def in_voc(root):
    for seed in range(12):
        voc(root / "Annotations" / f"{seed}.xml", seed, root / "JPEGImages" / f"{seed}.png")
    for number, split in enumerate(("train", "val")):
        lines = "".join(f"{seed}\n" for seed in range(6 * number, 6 * number + 6))
        text(root / "ImageSets" / "Main" / f"{split}.txt", lines)
        text(root / "ImageSets" / "Main" / f"blob_{split}.txt", "0 -1\n")
    return root


def in_yolo(root):
    for seed in range(12):
        split = "train" if seed < 6 else "val"
        yolo(root / "labels" / split / f"{seed}.txt", seed, root / "images" / split / f"{seed}.png")
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(NAMES))
    text(
        root / "data.yaml", f"path: /nowhere\ntrain: ../images/train\nval: images/val\ntest:\nnames:\n{names}"
    )
    return root


@pytest.mark.parametrize("make", [in_coco, in_voc, in_yolo])
def test_all_formats_give_back_the_scene_in_its_splits(make, tmp_path):
    imported = bring(make(tmp_path / "files"), tmp_path)
    assert imported.splits == {"train": 6, "validation": 6}
    assert imported.class_names == NAMES
    assert imported.broken == []
    assert imported.notes == []
    assert seen(tmp_path, "train") == expected(range(6))
    assert seen(tmp_path, "validation") == expected(range(6, 12))


def test_a_share_is_held_out_where_there_are_no_splits(tmp_path):
    file = coco(tmp_path / "files" / "labels.json", range(10), tmp_path / "files" / "images")
    imported = bring(file, tmp_path, test_share=0.3)
    assert imported.splits == {"train": 7, "test": 3}
    assert seen(tmp_path, "train") | seen(tmp_path, "test") == expected(range(10))


def test_coco_of_roboflow_has_a_file_in_each_folder(tmp_path):
    for split, seeds in (("train", range(6)), ("valid", range(6, 8))):
        folder = tmp_path / "files" / split
        coco(folder / "_annotations.coco.json", seeds, folder)
    assert bring(tmp_path / "files", tmp_path).splits == {"train": 6, "validation": 2}


def test_voc_that_counts_from_zero_is_noticed(tmp_path):
    files = tmp_path / "files"
    for seed in range(6):
        voc(files / f"{seed}.xml", seed, files / f"{seed}.png", first=0)
    corners = "<xmin>0</xmin><ymin>30</ymin><xmax>5</xmax><ymax>40</ymax>"
    edge = f"<object><name>disc</name><bndbox>{corners}</bndbox></object>"
    voc(files / "8.xml", 8, files / "8.png", edge, first=0)
    imported = bring(files, tmp_path, test_share=0)
    assert imported.notes == ["pixels are counted from 0, as boxes begin at 0; VOC's own count from 1"]
    assert seen(tmp_path, "train") == expected(range(6)) | {8: [(2, 0, 30, 5, 40)]}


def test_yolo_may_have_classes_beside_the_labels_and_polygons(tmp_path):
    files = tmp_path / "files"
    for seed in (0, 1, 2):
        yolo(files / f"{seed}.txt", seed, files / f"{seed}.png")
    save(files / "5.png", 5)  # without labels: it has no objects
    text(files / "1.txt", "2 0.1 0.25 0.5 0.5 0.3 0.75\n")
    text(files / "classes.txt", "\n".join(NAMES))
    bring(files, tmp_path, test_share=0)
    assert seen(tmp_path, "train") == expected([0, 2, 5]) | {1: [(2, 6, 10, 30, 30)]}


def test_crowds_and_boxes_that_reach_out_are_counted(tmp_path):
    file = coco(tmp_path / "files" / "a.json", range(3), tmp_path / "files")
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [-5, 10, 15, 100]
    content["annotations"][1]["iscrowd"] = 1
    file.write_text(json.dumps(content))
    imported = bring(file, tmp_path, test_share=0)
    assert imported.notes[:2] == [
        "left out: crowds (iscrowd), boxes around many objects: 1",
        "clipped: 1 box that reached out of the image",
    ]
    first = content["annotations"][0]["category_id"] // 10
    assert seen(tmp_path, "train")[0] == [(first, 0, 10, 10, HEIGHT)]


def changed(tmp_path, **changes):
    return coco(tmp_path / "a.json", range(3), tmp_path, **changes)


def annotation(**changes):
    return [{"image_id": 0, "category_id": 7, "bbox": [1, 1, 5, 5]} | changes]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "a.json: is not COCO's JSON of objects; it has no list 'images'"),
        ({"categories": []}, "a.json: has no categories"),
        (
            {"categories": [{"id": 1, "name": " "}]},
            "a.json: categories[0] is {'id': 1, 'name': ' '}; expected an id",
        ),
        (
            {"categories": [{"id": 1, "name": "a"}] * 2},
            "a.json: categories[1]: the id 1 or the name 'a' is there twice",
        ),
        ({"images": [{"id": 0}]}, "a.json: images[0]: has no id and file_name"),
        ({"images": [{"id": 0, "file_name": "0.png"}] * 2}, "a.json: images[1]: the id 0 is there twice"),
        (
            {"images": [{"id": 0, "file_name": "z.png"}], "annotations": []},
            "a.json: there is no image 'z.png' beside it",
        ),
        (
            {"images": [{"id": 0, "file_name": "../0.png"}], "annotations": []},
            "a.json: there is no image '../0.png' beside it",
        ),
        ({"annotations": [3]}, "a.json: annotations[0]: is not an object"),
        ({"annotations": annotation(image_id=99)}, "a.json: annotations[0]: there is no image of the id 99"),
        ({"annotations": annotation(image_id=[])}, "a.json: annotations[0]: there is no image of the id []"),
        (
            {"annotations": annotation(category_id=3)},
            "a.json: annotations[0]: there is no category of the id 3",
        ),
        (
            {"annotations": annotation(bbox=[1, 2, 3])},
            "a.json: annotations[0]: bbox is [1, 2, 3], not four numbers",
        ),
        (
            {"annotations": annotation(bbox=[1, 2, 3, float("nan")])},
            "a.json: annotations[0]: bbox is [1, 2, 3, nan]",
        ),
        ({"annotations": annotation(bbox=[1, 2, 10**400, 3])}, "a.json: annotations[0]: bbox is [1, 2, 1000"),
        (
            {"annotations": annotation(bbox=[1, 2, 0, 3])},
            "annotations[0]: the box (1, 2, 1, 5) (x0, y0, x1, y1) has no area",
        ),
        ({"annotations": annotation(bbox=[70, 2, 5, 3])}, "a.json: annotations[0]: the box (70, 2, 75, 5)"),
        ({"annotations": []}, "a.json: no object is left in train"),
    ],
)
def test_malformed_coco_is_named(changes, message, tmp_path):
    assert message in refusal(changed(tmp_path, **changes), tmp_path)


def test_what_is_broken_can_be_left_out(tmp_path):
    file = changed(
        tmp_path, annotations=[*annotation(bbox=[1, 2, 0, 3]), *annotation(), *annotation(image_id=1)]
    )
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    assert "(and 1 more: " in refusal(file, tmp_path)
    imported = bring(file, tmp_path, skip_broken=True, test_share=0)
    assert sorted(path.name for path, _ in imported.broken) == ["1.png", "a.json"]
    assert imported.splits == {"train": 2}
    assert imported.notes == ["no object in train is of the class chip, disc"]


def test_sizes_that_differ_are_named(tmp_path):
    file = changed(tmp_path)
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(tmp_path / "1.png")
    assert "a.json: 1.png is 40x60 (height x width) there, and the image is 41x60" in refusal(file, tmp_path)


def test_files_that_are_not_json_or_not_there(tmp_path):
    said = refusal(text(tmp_path / "a.json", '{"images":\n [}'), tmp_path)
    assert "a.json: not JSON (Expecting value at line 2, character 3)" in said
    assert "b.json: is empty" in refusal(text(tmp_path / "b.json", ""), tmp_path)
    deep = text(tmp_path / "c.json", "[" * 200_000)
    assert "c.json" in refusal(deep, tmp_path)
    assert "d.json: there is no such folder or file" in refusal(tmp_path / "d.json", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "empty: holds no annotations; expected COCO's JSON" in refusal(tmp_path / "empty", tmp_path)
    assert "a.txt: holds no annotations; expected COCO's JSON" in refusal(
        text(tmp_path / "a.txt", "x"), tmp_path
    )


def test_the_same_picture_in_two_splits_is_refused(tmp_path):
    root = in_coco(tmp_path / "files")
    save(root / "val2017" / "7.png", 1)
    assert "are the same image, with the splits 'train' and 'validation'; remove one" in refusal(
        root, tmp_path
    )


def test_copies_are_left_out_and_copies_that_are_annotated_otherwise_named(tmp_path):
    root = tmp_path / "files"
    for number in range(6):
        yolo(root / f"{number}.txt", 0 if number < 3 else number, root / f"{number}.png")
    text(root / "classes.txt", "\n".join(NAMES) + "\n\n")
    imported = bring(root, tmp_path, test_share=0.5)
    assert imported.splits == {"train": 2, "test": 2}
    assert [path.name for path in imported.duplicates] == ["1.png", "2.png"]
    text(root / "1.txt", "0 0.5 0.5 0.1 0.1\n")
    assert "files/1.png: is the same image as " in refusal(root, tmp_path / "other")
    assert "with other annotations" in refusal(root, tmp_path / "other")


def test_a_renamed_picture_is_found_by_its_annotations_name(tmp_path):
    root = tmp_path / "files"
    for seed in range(4):
        path = voc(root / f"{seed}.xml", seed, root / f"{seed}.png")
        path.write_text(path.read_text().replace(f"<filename>{seed}.png", "<filename>0.png"))
    bring(root, tmp_path, test_share=0)
    assert seen(tmp_path, "train") == expected(range(4))


def test_labels_without_a_picture_and_pictures_without_labels(tmp_path):
    root = tmp_path / "files"
    for seed in (0, 1, 3):
        yolo(root / "labels" / f"{seed}.txt", seed, root / "images" / f"{seed}.png")
    text(root / "classes.txt", "\n".join(NAMES))
    text(root / "labels" / "notes.txt", "drawn in May\n")
    (root / "labels" / "3.txt").rename(root / "labels" / "4.txt")
    assert "labels/4.txt: holds labels of no image" in refusal(root, tmp_path)
    (root / "labels" / "4.txt").unlink()
    assert "without a file of labels, and so without objects: 1 image" in bring(root, tmp_path).notes
    text(root / "classes.txt", f"{NAMES[0]}\n\n{NAMES[1]}\n")
    assert "'' is no name of a class" in refusal(root, tmp_path / "other")


def test_a_name_that_no_file_can_have(tmp_path):
    file = coco(tmp_path / "a.json", [0, 1], tmp_path)
    file.write_text(file.read_text().replace('"1.png"', json.dumps("x" * 400 + ".png")))
    assert "a.json: there is no image 'xxx" in refusal(file, tmp_path)


def test_categories_have_to_agree(tmp_path):
    root = in_coco(tmp_path / "files")
    coco(
        root / "annotations" / "instances_val2017.json",
        [7],
        root / "val2017",
        categories=[{"id": 1, "name": "x"}],
    )
    assert "instances_val2017.json: its categories are not those of" in refusal(root, tmp_path)


def test_annotations_of_two_kinds_are_refused(tmp_path):
    in_voc(in_yolo(tmp_path / "files"))
    assert "files: holds annotations of VOC and YOLO" in refusal(tmp_path / "files", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation><object>", "line 1: is not XML (no element found)"),
        ("<a/>", "0.xml: is <a>, not VOC's <annotation>"),
        ("<annotation><object/></annotation>", "0.xml: object 1 has no <name>"),
        (
            "<annotation><object><name>x</name></object></annotation>",
            "object 1 (x) has no <bndbox> of xmin, ymin",
        ),
        (
            "<annotation><object><name>x</name><bndbox><xmin>1</xmin><ymin>nan</ymin><xmax>3</xmax><ymax>4</ymax>"
            "</bndbox></object></annotation>",
            "object 1 (x) has no <bndbox> of xmin, ymin, xmax, ymax",
        ),
        (
            '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><annotation><filename>&c;</filename></annotation>',
            "0.xml: has a document type or entities",
        ),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation><filename>&x;</filename></annotation>',
            "0.xml: has a document type or entities",
        ),
        ("<annotation>" + "<a>" * 100 + "</a>" * 100 + "</annotation>", "0.xml: is nested too deeply"),
        ("", "0.xml: is empty"),
    ],
)
def test_malformed_voc_is_named(content, message, tmp_path):
    files = tmp_path / "files"
    voc(files / "0.xml", 0, files / "0.png")
    text(files / "0.xml", content)
    assert message in refusal(files, tmp_path)


def test_voc_without_its_picture_or_with_another_size(tmp_path):
    files = tmp_path / "files"
    voc(files / "0.xml", 0, files / "0.png", size=(HEIGHT, WIDTH))
    assert "0.xml: 0.png is 60x40 (height x width) there, and the image is 40x60" in refusal(files, tmp_path)
    voc(files / "0.xml", 0, files / "0.png", size=(0, 0))  # some tools write zeros
    bring(files, tmp_path, test_share=0)
    (files / "0.png").unlink()
    with pytest.raises(AssertionError):  # the dataset of before is there
        refusal(files, tmp_path)
    assert "there is no image 0 beside it, nor in JPEGImages" in refusal(files, tmp_path / "other")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x 0.1 0.1 0.1 0.1", "0.txt, line 3: 'x 0.1 0.1 0.1 0.1' is not a class and numbers"),
        ("0 0.1 0.1 0.1", "0.txt, line 3: has 3 numbers after the class, expected 4"),
        ("7 0.5 0.5 0.1 0.1", "0.txt, line 3: the class is 7; there are 0 to 2"),
        ("0 nan 0.5 0.1 0.1", "0.txt, line 3: '0 nan 0.5 0.1 0.1' is not a class and numbers"),
        (
            "0 1.5 0.5 0.1 0.1",
            "0.txt, line 3: the box (1.45, 0.45, 1.55, 0.55) (x0, y0, x1, y1) has no area in",
        ),
        ("0 20 20 10 10", "has no area in images/train/0.png; expected shares, from 0 to 1"),
        ("0 0.5 0.5 0 0.1", "0.txt, line 3: the box (0.5, 0.45, 0.5, 0.55)"),
    ],
)
def test_malformed_yolo_is_named(line, message, tmp_path):
    root = in_yolo(tmp_path / "files")
    labels = root / "labels" / "train" / "0.txt"
    labels.write_text(labels.read_text() + line + "\n")
    assert message in refusal(root, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("names: [a\ntrain: x", "data.yaml, line 2: is not YAML"),
        ("train: images", "data.yaml: describes no dataset of YOLO; expected names and train"),
        ("train: imagez\nnames: [a]", "data.yaml: train is 'imagez', which is not in files"),
        ("train: images\nnames: []", "data.yaml: has no names of classes"),
        ("train: images\nnames: {1: a, 2: b}", "data.yaml: names has the keys 1, 2; expected 0, 1, 2, ..."),
        ("train: images\nnames: [a, a]", "data.yaml: the class 'a' is there twice"),
        ("train: !!python/object/apply:os.system [ls]\nnames: [a]", "data.yaml, line 1: is not YAML"),
    ],
)
def test_malformed_descriptions_of_yolo_are_named(content, message, tmp_path):
    root = in_yolo(tmp_path / "files")
    text(root / "data.yaml", content)
    assert message in refusal(root, tmp_path)


def test_splits_are_told_by_folders():
    assert split_of_folders("images/train2017/a.jpg") == "train"
    assert split_of_folders("val/images/a.jpg") == "validation"
    assert split_of_folders("latest/a.jpg") is None
    assert split_of_folders("train.jpg") is None


def test_the_verb_prints_what_is_there(tmp_path, capsys):
    root = in_voc(tmp_path / "files")
    where = ["--name", "mine", "--data-dir", str(tmp_path / "tfds")]
    assert cli.main(["data", "import", "detection", str(root), *where]) == 0
    printed = capsys.readouterr().out.replace(f"{tmp_path}/", "")
    assert printed == f"{os.path.join('tfds', 'mine', '1.0.0')}: train: 6, validation: 6; 3 classes\n"
    assert cli.main(["data", "import", "detection", str(root), "--unit", "line", *where]) == 2
    assert "--unit: is for text, not for detection" in capsys.readouterr().err
    assert cli.main(["data", "import", "detection", str(root), "--classes", "a,b", *where]) == 2
    assert "--classes: is for segmentation, csv, jsonl, parquet, conll, not for" in capsys.readouterr().err
    sheet = str(tmp_path / "sheet.png")
    assert cli.main(["data", "show", "mine", "--data-dir", str(tmp_path / "tfds"), "--output", sheet]) == 0
    assert np.array(Image.open(sheet)).shape[1] > 100
