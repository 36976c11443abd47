"""COCO's JSON: images, annotations and categories (cocodataset.org/#format-data)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError
from jaxformer.files import read_text
from jaxformer.importing.boxes import Annotated, Box, annotation_files, detection_contents, find_image
from jaxformer.importing.classes import is_class_name
from jaxformer.importing.contents import Contents
from jaxformer.importing.sources import File, Sources, sorted_below, split_of_words


def find(paths: Sequence[Path]) -> list[Path]:
    """The JSON files among the sources and in folders."""
    return [
        file
        for path in paths
        for file in (sorted_below(path, {".json"}) if path.is_dir() else [path])
        if file.suffix.lower() == ".json"
    ]


def read_coco(sources: Sources) -> Contents:
    """Reads files of annotations; their names tell the splits, unless all are for training.

    Classes are the categories in the order of their ids. Crowds are left out. Files that differ in their categories
    are refused.

    Raises:
      UserError: a file is not COCO's JSON; says what is wrong with it.
    """
    files = annotation_files(sources, find, "JSON files of COCO")
    splits = [split_of_words(path) for path in files]
    if set(splits) == {"train"}:
        splits = [None for _ in files]
    images: list[Annotated] = []
    class_names: list[str] = []
    crowds = 0
    for path, split in zip(files, splits):
        content = load(path)
        names = categories(path, content)
        ordered = [names[key] for key in sorted(names)]
        if class_names and ordered != class_names:
            raise UserError(f"{path}: its categories are not those of {files[0]}; make them the same")
        class_names = ordered
        here, left_out = read_file(path, content, names, split, sources)
        images += here
        crowds += left_out
    notes = [f"left out: crowds (iscrowd), boxes around many objects: {crowds:,}"] if crowds else []
    return detection_contents(images, class_names, notes, sources)


def read_file(
    path: Path, content: dict[str, Any], names: dict[int, str], split: str | None, sources: Sources
) -> tuple[list[Annotated], int]:
    """The images of a file, and how many crowds were left out."""

    def broken(reason: str) -> None:
        sources.broken.append((path, reason))

    images: dict[Any, dict[str, Any]] = {}
    for place, image in enumerate(content["images"]):
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not isinstance(image.get("id"), (int, str)):
            broken(f"images[{place}]: has no id and file_name")
        elif image["id"] in images:
            broken(f"images[{place}]: the id {image['id']} is there twice")
        else:
            images[image["id"]] = image
    boxes: dict[Any, list[Box]] = {key: [] for key in images}
    crowds = 0
    for place, annotation in enumerate(content["annotations"]):
        where = f"annotations[{place}]"
        problem = annotation_problem(annotation, images, names)
        if problem:
            broken(f"{where}: {problem}")
        elif annotation.get("iscrowd"):
            crowds += 1
        else:
            x, y, width, height = map(float, annotation["bbox"])
            box = Box(names[annotation["category_id"]], (x, y, x + width, y + height), where)
            boxes[annotation["image_id"]].append(box)
    made = []
    folders = image_folders(path)
    for key, image in images.items():
        found = find_image(image["file_name"], folders)
        if found is None:
            broken(f"there is no image {image['file_name']!r} beside it, nor in images beside it")
        else:
            file = File(found, image["file_name"], split)
            made.append(Annotated(file, boxes[key], path, stated_size(image)))
    return made, crowds


def stated_size(image: dict[str, Any]) -> tuple[int, int] | None:
    """The height and width of an image, if they are there; some tools write zeros."""
    height, width = image.get("height"), image.get("width")
    return (
        (height, width) if isinstance(height, int) and isinstance(width, int) and height and width else None
    )


def annotation_problem(annotation: Any, images: dict[Any, Any], names: dict[int, str]) -> str | None:
    """What is wrong with an annotation."""
    if not isinstance(annotation, dict):
        return "is not an object"
    key, label, box = (annotation.get(name) for name in ("image_id", "category_id", "bbox"))
    if not isinstance(key, (int, str)) or key not in images:
        return f"there is no image of the id {key!r}"
    if not isinstance(label, int) or label not in names:
        return f"there is no category of the id {label!r}"
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_pixels, box)):
        return f"bbox is {box!r}, not four numbers x, y, width, height"
    return None


def is_pixels(value: Any) -> bool:
    """Whether a value is a number that pixels can have; NaN is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


def load(path: Path) -> dict[str, Any]:
    """A file's content, with lists of images, annotations and categories."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: is not JSON ({error.msg})") from error
    except RecursionError as error:
        raise UserError(f"{path}: is not COCO's JSON (nested too deeply)") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path}: is not COCO's JSON of objects; it has no list {key!r}")
    return content


def categories(path: Path, content: dict[str, Any]) -> dict[int, str]:
    """Names by id."""
    names: dict[int, str] = {}
    for place, category in enumerate(content["categories"]):
        key, name = (category.get(k) if isinstance(category, dict) else None for k in ("id", "name"))
        if not isinstance(key, int) or not isinstance(name, str) or not is_class_name(name):
            raise UserError(f"{path}: categories[{place}] is {category!r}; expected an id and a name")
        if key in names or name in names.values():
            raise UserError(f"{path}: categories[{place}]: the id {key} or the name {name!r} is there twice")
        names[key] = name
    if not names:
        raise UserError(f"{path}: has no categories")
    return names


def image_folders(path: Path) -> list[Path]:
    """Where the images of a file of annotations may be, the likeliest first."""
    name = path.stem.rpartition("_")[2]  # instances_train2017.json: train2017
    return [
        place
        for folder in (path.parent, path.parent.parent)
        for place in (folder, folder / "images", folder / name, folder / "images" / name)
    ]
