"""What annotations say: values of JSON and numbers of YOLO are compared with what may stand there."""

import json
from pathlib import Path

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
from helpers.importing_cases import examples

BOX = {"image_id": 0, "category_id": 7, "bbox": [6, 8, 12, 20]}


def changed(tmp_path: Path, *annotations: dict, **changes) -> Path:
    """A scene of three images, with these annotations."""
    return coco(tmp_path / "a.json", range(3), tmp_path, annotations=list(annotations), **changes)


@pytest.mark.parametrize("value", [0, "0", False, "false", "False", 0.0, None])
def test_what_is_no_crowd_is_an_object(tmp_path, value):
    bring(changed(tmp_path, BOX | {"iscrowd": value}), tmp_path, test_share=0)
    assert seen(tmp_path, "train")[0] == [(0, 6, 8, 18, 28)]


@pytest.mark.parametrize("value", [1, "1", True, "true", 1.0])
def test_crowds_are_left_out_whatever_else_they_hold(tmp_path, value):
    crowd = {"iscrowd": value, "segmentation": {"counts": [3, 5], "size": [40, 60]}, "category_id": 99}
    made = bring(changed(tmp_path, BOX, crowd), tmp_path, test_share=0)
    assert made.notes[0] == "left out: crowds (iscrowd), boxes around many objects: 1"
    assert seen(tmp_path, "train")[0] == [(0, 6, 8, 18, 28)]


@pytest.mark.parametrize("value", [2, -1, "", "no", [], {}, "maybe", float("nan")])
def test_other_values_of_iscrowd_are_refused(tmp_path, value):
    said = refusal(changed(tmp_path, BOX, BOX | {"iscrowd": value}), tmp_path)
    assert f"a.json: annotations[1]: iscrowd is {value!r}; expected true or false" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": True}, "annotations[0]: there is no image of the id True"),
        ({"image_id": "0"}, "annotations[0]: there is no image of the id '0'"),
        ({"image_id": 0.0}, "annotations[0]: there is no image of the id 0.0"),
        ({"category_id": True}, "annotations[0]: there is no category of the id True"),
        ({"category_id": "7"}, "annotations[0]: there is no category of the id '7'"),
        ({"bbox": [1, 2, "3", 4]}, "annotations[0]: bbox is [1, 2, '3', 4], not four numbers"),
        ({"bbox": [1, 2, True, 4]}, "annotations[0]: bbox is [1, 2, True, 4], not four numbers"),
        ({"bbox": [1, 2, float("inf"), 4]}, "annotations[0]: bbox is [1, 2, inf, 4], not four numbers"),
        ({"bbox": None}, "annotations[0]: bbox is None, not four numbers"),
        ({"bbox": [1, 2, -3, 4]}, "annotations[0]: the box (1, 2, -2, 6) (x0, y0, x1, y1) has no area"),
        ({"bbox": [0.1, 0.2, 0.3, 0.4]}, "a.json: all boxes lie in the first pixel; expected pixels"),
    ],
)
def test_values_of_another_type_are_refused(tmp_path, changes, message):
    categories = [{"id": number, "name": name} for number, name in zip((1, 7, 9), NAMES)]
    assert message in refusal(changed(tmp_path, BOX | changes, categories=categories), tmp_path)


def test_numbers_that_overflow_are_refused(tmp_path):
    path = changed(tmp_path, BOX)
    path.write_text(path.read_text().replace('"bbox": [6, 8', '"bbox": [1e400, 8'))
    assert "annotations[0]: bbox is [inf, 8, 12, 20], not four numbers" in refusal(path, tmp_path)
    path.write_text(path.read_text().replace("1e400", "9" * 5000))
    assert "a.json: " in refusal(path, tmp_path)


def test_what_is_not_used_is_not_checked(tmp_path):
    extras = {"id": None, "area": float("nan"), "score": "x", "segmentation": 5}
    path = changed(tmp_path, BOX | extras, info=[], licenses="none")
    bring(path, tmp_path, test_share=0)
    assert seen(tmp_path, "train")[0] == [(0, 6, 8, 18, 28)]


def test_polygons_stand_for_a_box_that_is_not_there(tmp_path):
    polygon = {
        "image_id": 0,
        "category_id": 7,
        "segmentation": [[6, 8, 18, 9, 10, 20.5], [7, 28, 9, 9, 12, 12]],
    }
    made = bring(changed(tmp_path, polygon, polygon | {"bbox": [1, 2, 3, 4]}), tmp_path, test_share=0)
    assert seen(tmp_path, "train")[0] == [(0, 6, 8, 18, 28), (0, 1, 2, 4, 6)]
    assert made.notes[0] == "without bbox, and so with the boxes around their polygons: 1 object"


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            {"keypoints": [1, 2, 2]},
            "bbox is None, not four numbers x, y, width, height; "
            "an object needs a box, or polygons in segmentation, beside keypoints",
        ),
        ({"segmentation": {"counts": "a", "size": [4, 5]}}, "bbox is None, not four numbers"),
        ({"segmentation": []}, "has no bbox, and its segmentation is no list of polygons"),
        ({"segmentation": [[1, 2, 3, 4]]}, "has no bbox, and its segmentation is no list of polygons"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "has no bbox, and its segmentation is no list of polygons"),
        (
            {"segmentation": [[1, 2, 3, 4, 5, "6"]]},
            "has no bbox, and its segmentation is no list of polygons",
        ),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "has no bbox, and its segmentation is no list of polygons"),
    ],
)
def test_objects_without_box_and_polygon_are_refused(tmp_path, shape, message):
    annotation = {"image_id": 0, "category_id": 7} | shape
    assert f"a.json: annotations[0]: {message}" in refusal(changed(tmp_path, annotation), tmp_path)


@pytest.mark.parametrize("name", ["C:\\Users\\me\\0.jpg", "a\\0.png", "/data/0.png"])
def test_names_of_images_that_are_not_relative_have_a_remedy(tmp_path, name):
    said = refusal(changed(tmp_path, images=[{"id": 0, "file_name": name}]), tmp_path)
    assert (
        f"there is no image '{name}' beside it, nor in images beside it; expected a name relative to" in said
    )


def test_a_split_that_is_described_and_not_there_is_left_out_with_a_note(tmp_path):
    description = in_yolo(
        tmp_path / "files", "0 0.5 0.5 0.2 0.2", "val: ../valid/images\ntest: ../test/images"
    )
    made = bring(description, tmp_path, test_share=0)
    assert made.splits == {"train": 1}
    assert made.notes[:2] == [
        f"left out: {key} is '../{name}/images', which is not in {description.parent}"
        for key, name in (("val", "valid"), ("test", "test"))
    ]


@pytest.mark.parametrize("key", [True, 1.0, "1", None])
def test_categories_have_whole_numbers_as_ids(tmp_path, key):
    said = refusal(changed(tmp_path, categories=[{"id": key, "name": "cat"}]), tmp_path)
    assert "a.json: categories[0] is {" in said
    assert "expected an id, a whole number, and a name, one line of text" in said


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    path = changed(tmp_path, BOX)
    path.write_text(path.read_text().replace('"bbox": [', '"bbox": [1, 1, 1, 1], "bbox": ['))
    assert "a.json: 'bbox' is there twice in an object" in refusal(path, tmp_path)


def test_an_image_that_is_listed_twice_is_refused(tmp_path):
    images = [{"id": number, "file_name": "0.png"} for number in range(2)]
    said = refusal(changed(tmp_path, BOX, images=images), tmp_path)
    assert "a.json: images[1]: the file '0.png' is also images[0]" in said


def test_objects_that_are_there_twice_are_left_out_and_counted(tmp_path):
    other = BOX | {"category_id": 17}  # of another class
    made = bring(changed(tmp_path, BOX, BOX | {"id": 5}, other, BOX), tmp_path, test_share=0)
    assert "left out: 2 objects with the class and box of another" in made.notes
    assert seen(tmp_path, "train")[0] == [(0, 6, 8, 18, 28), (1, 6, 8, 18, 28)]


def test_objects_of_voc_and_yolo_that_are_there_twice_are_left_out_and_counted(tmp_path):
    note = "left out: 2 objects with the class and box of another"
    root = tmp_path / "voc"
    for seed in (0, 1, 3):
        path = voc(root / f"{seed}.xml", seed, root / f"{seed}.png")
    content = path.read_text()
    first = content[content.index("<object>") : content.index("</object>") + len("</object>")]
    path.write_text(content.replace("</annotation>", f"{first}{first}</annotation>"))
    assert note in bring(root, tmp_path, test_share=0).notes
    assert seen(tmp_path, "train") == expected([0, 1, 3])
    root = tmp_path / "yolo"
    for seed in (0, 1, 3):
        path = yolo(root / f"{seed}.txt", seed, root / f"{seed}.png")
    first = path.read_text().splitlines()[0]
    path.write_text(path.read_text() + f"{first}\n{first}  \n")
    text(root / "classes.txt", "\n".join(NAMES))
    assert note in bring(root, tmp_path / "two", test_share=0).notes
    assert seen(tmp_path / "two", "train") == expected([0, 1, 3])


def in_yolo(root: Path, lines: str, description: str = "") -> Path:
    save(root / "0.png", 2)
    text(root / "0.txt", lines)
    return text(root / "data.yaml", f"train: .\nnames: [a, b]\n{description}")


def boxes(made) -> list[list[float]]:
    """ymin, xmin, ymax, xmax of all objects, as TFDS reads them."""
    return [pytest.approx(box, abs=1e-6) for box in examples(made, "train")[0]["objects"]["bbox"]]


@pytest.mark.parametrize(
    ("line", "shape"),
    [
        ("0 0.40 0.48 0.20 0.40 0.34 0.30 2 0.31 0.60 2", "[2, 3]"),
        ("0 0.40 0.48 0.20 0.40 0.34 0.30 2 0.31 0.60 2", "\n- 2\n- 3"),
        ("0 0.40 0.48 0.20 0.40 0.34 0.30 0.31 0.60", "[2, 2]"),
        ("0 0.40 0.48 0.20 0.40 0 0 0 nan x 7", "[2, 3]"),  # keypoints are not used
        ("0 0.40 0.48 0.20 0.40", "[2, 3]"),
    ],
)
def test_what_follows_a_box_is_what_the_description_says(tmp_path, line, shape):
    made = bring(in_yolo(tmp_path / "files", line, f"kpt_shape: {shape}"), tmp_path, test_share=0)
    assert boxes(made) == [[0.28, 0.30, 0.68, 0.50]]
    assert not any("polygons" in note for note in made.notes)


@pytest.mark.parametrize(
    ("line", "description", "message"),
    [
        (
            "0 0.4 0.5 0.2 0.4 0.3 0.3",
            "kpt_shape: [2, 3]",
            "line 1: has 6 numbers after the class, expected 4, or 10",
        ),
        (
            "0 0.4 0.5 0.2 0.4 0.3 0.3 1 0.4 0.5 1",
            "",
            "for a box and keypoints describe these in data.yaml",
        ),
        (
            "0 0.4 0.5 0.2 0.4 0.3 0.3 2 0 0 0",
            "",
            "for a box and keypoints describe these in data.yaml",
        ),
        (
            "0 0.5 0.5 0.2 0.1 0.7",
            "",
            "line 1: has 5 numbers after the class, expected 4",
        ),  # a box and its angle
        ("0 0.5 0.5 12 8", "", "expected shares, from 0 to 1, and no pixels"),
        ("0 0.5 0.5 1.2 0.5", "", "expected shares, from 0 to 1, and no pixels"),
        ("0 1.04 0.5 0.3 0.3", "", "expected shares, from 0 to 1, and no pixels"),
        ("0 -0.1 0.5 0.5 0.3", "", "expected shares, from 0 to 1, and no pixels"),
        ("0 0.1 0.1 30 0.1 30 20", "", "expected shares, from 0 to 1, and no pixels"),
        ("0 0.5 0.5 0.2 0.2", "nc: 3", "data.yaml: nc is '3', and names has 2; make them the same"),
        ("0 0.5 0.5 0.2 0.2", "kpt_shape: 17", "kpt_shape is '17'; expected points and 2 or 3"),
        ("0 0.5 0.5 0.2 0.2", "kpt_shape: [0, 3]", "kpt_shape is ['0', '3']; expected points"),
        ("0 0.5 0.5 0.2 0.2", "kpt_shape: [17, 4]", "expected points and 2 or 3, as in [17, 3]"),
        ("0 0.5 0.5 0.2 0.2", "val: {a: 1, a: 2}", "data.yaml, line 3: is not YAML ('a' again)"),
        (
            "0 0.5 0.5 0.2 0.2",
            "val: &a [x]\ntest: [*a, *a]",
            "data.yaml, line 4: is not YAML (an alias; write its value there)",
        ),
    ],
)
def test_lines_that_do_not_fit_their_description_are_refused(tmp_path, line, description, message):
    assert message in refusal(in_yolo(tmp_path / "files", line, description), tmp_path)


@pytest.mark.parametrize(
    ("line", "box"),
    [
        (
            "0 0.2 0.3 0.6 0.3 0.6 0.8 0.2 0.8",
            [0.3, 0.2, 0.8, 0.6],
        ),  # the corners of a turned box, or a polygon
        ("0 0 0.1 0.3 0.5 0.2 0.9", [0.1, 0, 0.9, 0.3]),
        ("0 0 0.1 0.3 0.5 0.2 0.9 0 0.5 0 1", [0.1, 0, 1, 0.3]),  # touches the border
        ("0 1.004 0.5 0.2 0.2", [0.4, 0.904, 0.6, 1]),  # rounded
    ],
)
def test_polygons_become_boxes_and_are_counted(tmp_path, line, box):
    made = bring(in_yolo(tmp_path / "files", line), tmp_path, test_share=0)
    assert boxes(made) == [box]
    counted = [
        note for note in made.notes if note.startswith("polygons, which become the boxes around them: 1;")
    ]
    assert len(counted) == (len(line.split()) > 5)


def test_names_that_no_file_can_have_are_not_found(tmp_path):
    root = tmp_path / "files"
    description = in_yolo(root, "0 0.5 0.5 0.2 0.2")
    text(description, f"train: {'x' * 5000}\nnames: [a, b]\n")
    assert "data.yaml: train is 'xxx" in refusal(description, tmp_path)
    text(root / "list.txt", f"0.png\n{'x' * 5000}.png\n")
    text(root / "data.yaml", "train: list.txt\nnames: [a, b]\n")
    assert "x.png: not a readable image (File name too long)" in refusal(description, tmp_path)


def test_shares_in_voc_are_refused(tmp_path):
    root = tmp_path / "files"
    bounds = "<xmin>0.2</xmin><ymin>0.3</ymin><xmax>0.9</xmax><ymax>0.9</ymax>"
    voc(root / "2.xml", 2, root / "2.png", f"<object><name>a</name><bndbox>{bounds}</bndbox></object>")
    assert "all boxes lie in the first pixel; expected pixels, not shares" in refusal(root, tmp_path)


@pytest.mark.parametrize("size", [("40", "60"), (0, 0), (40.0, 60.0), (None, 60), ("", " ")])
def test_a_size_that_is_stated_is_that_of_the_image(tmp_path, size):
    path = changed(tmp_path, BOX)
    content = json.loads(path.read_text())
    content["images"][0] |= {"height": size[0], "width": size[1]}
    path.write_text(json.dumps(content))
    bring(path, tmp_path, test_share=0)
    assert seen(tmp_path, "train")[0] == [(0, 6, 8, 18, 28)]
    content["images"][0] |= {"height": 40.0, "width": WIDTH + 1.0}
    path.write_text(json.dumps(content))
    assert "a.json: 0.png is 40x61 (height x width) there" in refusal(path, tmp_path / "other")


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (("41", "60"), "0.png is 41x60 (height x width) there, and the image is 40x60"),
        ((None, 61), "0.png is ?x61 (height x width) there, and the image is 40x60"),
        ((HEIGHT, True), "width is True; expected a whole number"),
        (("40 px", 60), "height is '40 px'; expected a whole number"),
        ((40.5, 60), "height is 40.5; expected a whole number"),
    ],
)
def test_a_size_that_contradicts_the_image_is_refused_in_any_type(tmp_path, size, says):
    path = changed(tmp_path, BOX)
    content = json.loads(path.read_text())
    content["images"][0] |= {"height": size[0], "width": size[1]}
    path.write_text(json.dumps(content))
    assert says in refusal(path, tmp_path)
    height, width = ("" if value is None else str(value) for value in size)
    root = tmp_path / "files"
    voc(root / "0.xml", 0, root / "0.png", size=(width, height))
    assert says.replace("True", "'True'").replace("40.5", "'40.5'") in refusal(root, tmp_path / "other")


def test_an_object_of_voc_with_two_boxes_is_refused(tmp_path):
    root = tmp_path / "files"
    box = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    voc(root / "0.xml", 0, root / "0.png", f"<object><name>a</name>{box}{box}</object>")
    assert "(a) has several <bndbox>; write an <object> for each" in refusal(root, tmp_path)


def test_corners_in_the_place_of_width_and_height_are_refused(tmp_path):
    said = refusal(changed(tmp_path, BOX | {"bbox": [50, 30, 59, 39]}), tmp_path)
    assert "a.json: annotations[0]: the box lies for the most part outside of its image" in said
    assert "expected x, y, width, height" in said


def test_one_of_many_objects_may_lie_for_the_most_part_outside(tmp_path):
    inside = [BOX | {"bbox": [x, 8, 6, 6]} for x in range(25)]
    made = bring(changed(tmp_path, *inside, BOX | {"bbox": [50, 30, 59, 39]}), tmp_path, test_share=0)
    assert "clipped: 1 box that reached out of the image" in made.notes
