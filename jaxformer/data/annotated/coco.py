"""COCO's JSON: images, annotations and categories (cocodataset.org/#format-data)."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxformer.data.annotated.annotations import (
    Annotated,
    Annotations,
    Box,
    find_picture,
    four_numbers,
    split_of_name,
)
from jaxformer.data.text.formats import NotText, is_class_name, read_text
from jaxformer.errors import UserError


def read_coco(files: Sequence[Path]) -> Annotations:
    """Reads files of annotations; their names tell the splits, where there are several or they are for training.

    Classes are the categories in the order of their ids. Crowds are left out. Files that differ in their categories
    are refused.

    Raises:
      UserError: a file is not COCO's JSON; says what is wrong with it.
    """
    made = Annotations()
    splits = [split_of_name(path) for path in files]
    if set(splits) == {"train"}:
        splits = [None for _ in files]
    crowds = 0
    for path, split in zip(files, splits):
        content = load(path)
        names = categories(path, content)
        ordered = [names[key] for key in sorted(names)]
        if made.class_names and ordered != made.class_names:
            raise UserError(f"{path}: its categories are not those of {files[0]}; make them the same")
        made.class_names = ordered
        crowds += read_file(path, content, names, split, made)
    if crowds:
        made.notes.append(f"left out: crowds (iscrowd), boxes around many objects: {crowds:,}")
    return made


def read_file(
    path: Path, content: dict[str, Any], names: dict[int, str], split: str | None, made: Annotations
) -> int:
    """Adds the pictures of a file; returns how many crowds were left out."""
    folders = image_folders(path)
    boxes: dict[Any, list[Box]] = {}
    pictures: dict[Any, dict[str, Any]] = {}
    for place, image in enumerate(content["images"]):
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not isinstance(image.get("id"), (int, str)):
            made.broken.append((path, f"images[{place}]: has no id and file_name"))
        elif image["id"] in pictures:
            made.broken.append((path, f"images[{place}]: the id {image['id']} is there twice"))
        else:
            pictures[image["id"]], boxes[image["id"]] = image, []
    crowds = 0
    for place, annotation in enumerate(content["annotations"]):
        problem = annotation_problem(annotation, pictures, names)
        if problem:
            made.broken.append((path, f"annotations[{place}]: {problem}"))
        elif annotation.get("iscrowd"):
            crowds += 1
        else:
            x, y, width, height = map(float, annotation["bbox"])
            label = names[annotation["category_id"]]
            box = Box(label, (x, y, x + width, y + height), f"annotations[{place}]")
            boxes[annotation["image_id"]].append(box)
    for key, image in pictures.items():
        found = find_picture(image["file_name"], folders)
        if found is None:
            made.broken.append(
                (path, f"there is no picture {image['file_name']!r} beside it, nor in images beside it")
            )
            continue
        size = stated_size(image)
        made.pictures.append(Annotated(found, image["file_name"], split, boxes[key], path, size))
    return crowds


def stated_size(image: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width of a picture, if they are there; some tools write zeros."""
    height, width = image.get("height"), image.get("width")
    whole = isinstance(height, int) and isinstance(width, int)
    return (height, width) if whole and height and width else None


def annotation_problem(annotation: Any, pictures: dict[Any, Any], names: dict[int, str]) -> str | None:
    """What is wrong with an annotation."""
    if not isinstance(annotation, dict):
        return "is not an object"
    if not isinstance(annotation.get("image_id"), (int, str)) or annotation["image_id"] not in pictures:
        return f"there is no image of the id {annotation.get('image_id')!r}"
    label = annotation.get("category_id")
    if not isinstance(label, int) or label not in names:
        return f"there is no category of the id {label!r}"
    if four_numbers(annotation.get("bbox")) is None:
        return f"bbox is {annotation.get('bbox')!r}, not four numbers x, y, width, height"
    return None


def load(path: Path) -> dict[str, Any]:
    """A file's content, with lists of images, annotations and categories."""
    try:
        content = json.loads(read_text(path))
    except NotText as error:
        raise UserError(f"{path}: {error}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: is not JSON ({error.msg})") from error
    except RecursionError as error:
        raise UserError(f"{path}: is not COCO's JSON (nested too deeply)") from error
    missing = [
        key
        for key in ("images", "annotations", "categories")
        if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]
    if missing:
        raise UserError(f"{path}: is not COCO's JSON of objects; it has no list {missing[0]!r}")
    return content


def categories(path: Path, content: dict[str, Any]) -> dict[int, str]:
    """Names by id."""
    names: dict[int, str] = {}
    for place, category in enumerate(content["categories"]):
        key = category.get("id") if isinstance(category, dict) else None
        name = category.get("name") if isinstance(category, dict) else None
        if not isinstance(key, int) or not isinstance(name, str) or not is_class_name(name):
            raise UserError(f"{path}: categories[{place}] is {category!r}; expected an id and a name")
        if key in names or name in names.values():
            raise UserError(f"{path}: categories[{place}]: the id {key} or the name {name!r} is there twice")
        names[key] = name
    if not names:
        raise UserError(f"{path}: has no categories")
    return names


def image_folders(path: Path) -> list[Path]:
    """Where the pictures of a file of annotations may be, the likeliest first."""

    def likely() -> Iterator[Path]:
        name = path.stem.rpartition("_")[2]  # instances_train2017.json: train2017
        for folder in (path.parent, path.parent.parent):
            yield folder
            yield folder / "images"
            yield folder / name
            yield folder / "images" / name

    return list(likely())
