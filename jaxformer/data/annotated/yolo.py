"""YOLO's text: a file for each picture, a line for each object: class, center x and y, width and height as shares."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxformer.data.annotated.annotations import (
    Annotated,
    Annotations,
    Box,
    lines_in,
    picture_of_stem,
    pictures_below,
    split_of_folders,
)
from jaxformer.data.scanning import EXTENSIONS
from jaxformer.data.text.formats import NotText, counted, is_class_name, lines_of, read_text
from jaxformer.errors import UserError

CLASS_FILES = ("classes.txt", "obj.names", "classes.names")
SPLITS = {"train": "train", "val": "validation", "valid": "validation", "test": "test"}


def read_yolo(source: Path) -> Annotations:
    """Reads a dataset that a data.yaml describes, or a folder with a file of classes.

    A picture's labels are beside it, or in the folder "labels" where it is in "images". Without labels it has no
    objects. Polygons become the boxes around them.

    Args:
      source: the data.yaml, or the file of classes.

    Raises:
      UserError: the description cannot be read, or names folders that are not there.
    """
    made = Annotations()
    found: list[tuple[Path, str | None, str]]
    if source.suffix.lower() in (".yaml", ".yml"):
        described = load(source)
        made.class_names = class_names(source, described.get("names"))
        found = list(described_pictures(source, described))
        if {split for _, split, _ in found} == {"train"}:
            found = [(path, None, name) for path, _, name in found]
    else:
        root = source.parent.parent if source.parent.name == "labels" else source.parent
        made.class_names = class_names(source, lines_in(source))
        names = {path: path.relative_to(root).as_posix() for path in pictures_below(root)}
        found = [(path, split_of_folders(name), name) for path, name in names.items()]
    if not found:
        raise UserError(f"{source}: there are no pictures")
    labels = [labels_of(path) for path, _, _ in found]
    if not any(file.is_file() for file in labels):
        raise UserError(f"{source}: no picture has labels; {found[0][0].name}'s would be {labels[0]}")
    for (path, split, name), file in zip(found, labels):
        boxes = list(read_file(file, made)) if file.is_file() else []
        made.pictures.append(Annotated(path, name, split, boxes, file, shares=True))
    without = sum(not file.is_file() for file in labels)
    if without:
        made.notes.append(f"without a file of labels, and so without objects: {counted(without, 'picture')}")
    made.broken += [(file, "holds labels of no picture") for file in sorted(spare_labels(found))]
    return made


def spare_labels(found: Sequence[tuple[Path, str | None, str]]) -> Iterator[Path]:
    """Files of labels, beside those of the pictures, to which there is no picture."""
    known = {labels_of(path): path.parent for path, _, _ in found}
    places: dict[Path, set[Path]] = {}
    for file, folder in known.items():
        places.setdefault(file.parent, set()).add(folder)
    for folder, pictures in places.items():
        for file in set(folder.glob("*.txt")) - set(known):
            if picture_of_stem(file.stem, pictures) is None and looks_like_labels(file):
                yield file


def looks_like_labels(path: Path) -> bool:
    """Whether a file's first line is an object; other texts may lie beside pictures."""
    try:
        return bool(re.match(r"\s*\d+(\s+[-+.\deE]+){4,}\s*(\n|$)", read_text(path)))
    except NotText:
        return False


def read_file(path: Path, made: Annotations) -> Iterator[Box]:
    """The objects of a picture; lines that cannot be used go to `made.broken`."""
    try:
        text = read_text(path) if path.stat().st_size else ""
    except NotText as error:
        if "white space" not in str(error):
            made.broken.append((path, str(error)))
        return
    for number, line in enumerate(lines_of(text), 1):
        words = line.split()
        if not words:
            continue
        where = f"line {number}"
        try:
            label, values = int(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            made.broken.append((path, f"{where}: {line.strip()[:60]!r} is not a class and numbers"))
            continue
        polygon = len(values) >= 6 and len(values) % 2 == 0
        if len(values) != 4 and not polygon:
            made.broken.append((path, f"{where}: has {len(values)} numbers after the class, expected 4"))
        elif not all(abs(value) < 1e6 for value in values):
            made.broken.append((path, f"{where}: {line.strip()[:60]!r} are not shares of the picture"))
        elif not 0 <= label < len(made.class_names):
            most = len(made.class_names) - 1
            made.broken.append((path, f"{where}: the class is {label}; there are 0 to {most}"))
        else:
            name = made.class_names[label]
            if polygon:
                x, y = values[0::2], values[1::2]
                yield Box(name, (min(x), min(y), max(x), max(y)), where)
            else:
                x0, y0, width, height = values
                corners = (x0 - width / 2, y0 - height / 2, x0 + width / 2, y0 + height / 2)
                yield Box(name, corners, where)


def load(path: Path) -> Mapping[str, Any]:
    """A data.yaml."""
    import yaml

    try:
        content = yaml.safe_load(read_text(path))
    except NotText as error:
        raise UserError(f"{path}: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        raise UserError(f"{path}{place}: is not YAML") from error
    if not isinstance(content, dict) or "names" not in content or "train" not in content:
        raise UserError(
            f"{path}: describes no dataset of YOLO; expected names and train, perhaps val and test"
        )
    return content


def class_names(path: Path, names: Any) -> list[str]:
    """The classes' names, a list or a mapping from 0 on."""
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise UserError(f"{path}: names has the keys {', '.join(map(str, names))}; expected 0, 1, 2, ...")
        names = [value for _, value in sorted(names.items(), key=lambda item: int(item[0]))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path}: has no names of classes")
    names = [str(name) for name in names]
    for place, name in enumerate(names):
        if not is_class_name(name) or name in names[:place]:
            raise UserError(f"{path}: the class {name!r} is empty or there twice")
    return names


def described_pictures(path: Path, described: Mapping[str, Any]) -> Iterator[tuple[Path, str | None, str]]:
    """Pictures with their splits and names, as a data.yaml lists them."""
    base = path.parent / str(described.get("path") or "")
    if not base.is_dir():
        base = path.parent  # a path on the machine where it was written
    for key, split in SPLITS.items():
        places = described.get(key)
        for place in places if isinstance(places, list) else [places] if places else []:
            found = locate(base, str(place))
            if found is None:
                raise UserError(f"{path}: {key} is {str(place)!r}, which is not in {base}")
            for picture in listed(found) if found.is_file() else pictures_below(found):
                name = picture.relative_to(base).as_posix() if picture.is_relative_to(base) else picture.name
                yield picture, split, name


def locate(base: Path, place: str) -> Path | None:
    """A folder or list of a data.yaml; some tools write "../train/images" for what lies beside the file."""
    for candidate in (place, place.removeprefix("../")):
        if (base / candidate).exists():
            return base / candidate
    return None


def listed(path: Path) -> list[Path]:
    """The pictures that a text file lists, relative to it."""
    names = [line for line in lines_in(path) if line]
    return [path.parent / name for name in names if Path(name).suffix.lower() in EXTENSIONS]


def labels_of(picture: Path) -> Path:
    """The file of a picture's labels: in "labels" if the picture is in "images", else beside it."""
    parts = list(picture.parts)
    for place in range(len(parts) - 2, 0, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            return Path(*parts).with_suffix(".txt")
    return picture.with_suffix(".txt")
