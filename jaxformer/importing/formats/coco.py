"""COCO's JSON: images, annotations and categories (cocodataset.org/#format-data)."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError, counted
from jaxformer.importing.contents import Contents
from jaxformer.importing.formats.detection import (
    Annotated,
    Box,
    annotation_files,
    contents_of,
    find_image,
    size_of,
)
from jaxformer.importing.sources import SPLIT_NAMES, File, Sources, find_all, unless_all_train
from jaxformer.reading import parse_json, read_bool, read_text


def find(paths: Sequence[Path]) -> list[Path]:
    """The JSON files among the sources and in folders."""
    found = [file for path in paths for file in (find_all(path, {".json"}) if path.is_dir() else [path])]
    return [file for file in found if file.suffix.lower() == ".json"]


def read(sources: Sources) -> Contents:
    """Reads files of annotations; their names tell the splits, unless all are for training.

    Classes are the categories in the order of their ids. Crowds are left out. Files that differ in their categories
    are refused.

    Raises:
      UserError: a file is not COCO's JSON; says what is wrong with it.
    """
    paths = annotation_files(sources, find, "JSON files of COCO")
    images: list[Annotated] = []
    class_names: list[str] = []
    crowds = 0
    for file in unless_all_train([File(path, path.name, split_of_words(path)) for path in paths]):
        content = load(file.path)
        names = categories(file.path, content["categories"], sources)
        ordered = [names[key] for key in sorted(names)]
        if class_names and ordered != class_names:
            raise UserError(f"{file.path}: its categories are not those of {paths[0]}; make them the same")
        class_names = ordered
        here, left_out = read_file(file, content, names, sources)
        images += here
        crowds += left_out
    notes = [f"left out: crowds (iscrowd), boxes around many objects: {crowds:,}"] if crowds else []
    if polygons := sum(box.is_polygon for image in images for box in image.boxes):
        notes.append(
            f"without bbox, and so with the boxes around their polygons: {counted(polygons, 'object')}"
        )
    return contents_of(images, class_names, notes, sources)


def split_of_words(path: Path) -> str | None:
    """The split that a word of a file's name tells, or else its folder: "instances_val2017.json", "train/a.json"."""
    words = [*re.findall("[a-z]+", path.stem.lower()), path.parent.name.lower()]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def read_file(
    file: File, content: dict[str, Any], names: dict[int, str], sources: Sources
) -> tuple[list[Annotated], int]:
    """The images of a file, and how many crowds were left out."""
    images: dict[Any, dict[str, Any]] = {}
    places: dict[str, int] = {}
    for place, image in enumerate(content["images"]):
        with sources.checking(file.path, f"images[{place}]"):
            key, name = (image.get(k) if isinstance(image, dict) else None for k in ("id", "file_name"))
            if not isinstance(name, str) or type(key) not in (int, str):
                raise ValueError("has no id and file_name")
            if key in images:
                raise ValueError(f"the id {key} is there twice")
            if places.setdefault(name, place) != place:
                raise ValueError(f"the file {name!r} is also images[{places[name]}]")
            images[key] = image
    boxes: dict[Any, list[Box]] = {key: [] for key in images}
    crowds = 0
    for place, annotation in enumerate(content["annotations"]):
        where = f"annotations[{place}]"
        with sources.checking(file.path, where):
            if not isinstance(annotation, dict):
                raise ValueError("is not an object")
            if read_bool(annotation, "iscrowd"):
                crowds += 1
                continue
            check_annotation(annotation, images, names)
            corners, is_polygon = corners_of(annotation)
            box = Box(names[annotation["category_id"]], corners, where, is_polygon)
            boxes[annotation["image_id"]].append(box)
    made, folders = [], image_folders(file.path)
    for key, image in images.items():
        with sources.checking(file.path):
            name = image["file_name"]
            if (found := find_image(name, folders)) is None:
                shown = repr(name).replace("\\\\", "\\")
                remedy = "; expected a name relative to its folder, with /" * bool(
                    re.search(r"^/|[\\:]", name)
                )
                raise ValueError(f"there is no image {shown} beside it, nor in images beside it{remedy}")
            try:
                size = size_of(image)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            made.append(Annotated(File(found, name, file.split), boxes[key], file.path, size))
    return made, crowds


def check_annotation(annotation: dict[str, Any], images: dict[Any, Any], names: dict[int, str]) -> None:
    """Raises ValueError for what is no annotation."""
    key, label = annotation.get("image_id"), annotation.get("category_id")
    if type(key) not in (int, str) or key not in images:
        raise ValueError(f"there is no image of the id {key!r}")
    if type(label) is not int or label not in names:
        raise ValueError(f"there is no category of the id {label!r}")


def corners_of(annotation: dict[str, Any]) -> tuple[tuple[float, float, float, float], bool]:
    """The corners of an object's box, x0, y0, x1, y1, and whether they are drawn around polygons, as it has no box.

    Raises:
      ValueError: it has neither; says what there is.
    """
    box: Any = annotation.get("bbox")
    polygons: Any = annotation.get("segmentation")
    if box or not isinstance(polygons, list):
        if not are_numbers(box) or len(box) != 4:
            beside = ", beside keypoints" * ("keypoints" in annotation)
            lacks = "" if box else f"; an object needs a box, or polygons in segmentation{beside}"
            raise ValueError(f"bbox is {box!r}, not four numbers x, y, width, height{lacks}")
        x, y, width, height = map(float, box)
        return (x, y, x + width, y + height), False
    if not polygons or not all(
        are_numbers(each) and len(each) >= 6 and len(each) % 2 == 0 for each in polygons
    ):
        raise ValueError(
            "has no bbox, and its segmentation is no list of polygons, x and y of 3 points or more"
        )
    xs, ys = ([float(value) for each in polygons for value in each[first::2]] for first in (0, 1))
    return (min(xs), min(ys), max(xs), max(ys)), True


def are_numbers(values: Any) -> bool:
    """Whether it is a list of numbers that can be pixels; NaN is never less."""
    return isinstance(values, list) and all(type(v) in (int, float) and abs(v) < 1e9 for v in values)


def load(path: Path) -> dict[str, Any]:
    """A file's content, with lists of images, annotations and categories."""
    try:
        content = parse_json(read_text(path), constant=float)  # NaN may stand where it is not used
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path}: is not COCO's JSON of objects; it has no list {key!r}")
    return content


def categories(path: Path, listed: list[Any], sources: Sources) -> dict[int, str]:
    """Names by id."""
    names: dict[int, str] = {}
    for place, category in enumerate(listed):
        key, name = (category.get(k) if isinstance(category, dict) else None for k in ("id", "name"))
        try:
            known = sources.class_of(name)
        except ValueError:
            known = ""
        if type(key) is not int or not known:
            wanted = "an id, a whole number, and a name, one line of text"
            raise UserError(f"{path}: categories[{place}] is {category!r}; expected {wanted}")
        if key in names or known in names.values():
            raise UserError(f"{path}: categories[{place}]: the id {key} or the name {name!r} is there twice")
        names[key] = known
    if not names:
        raise UserError(f"{path}: has no categories")
    return names


def image_folders(path: Path) -> list[Path]:
    """Where the images of a file of annotations may be, the likeliest first."""
    name = path.stem.rpartition("_")[2]  # instances_train2017.json: train2017
    inside = ("", "images", name, f"images/{name}")
    return [folder / place for folder in (path.parent, path.parent.parent) for place in inside]
