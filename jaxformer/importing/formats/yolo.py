"""YOLO's text: a file for each image, a line for each object: class, center x and y, width and height as shares."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError
from jaxformer.files import IMAGE_EXTENSIONS, BrokenFile, lines_of, read_text
from jaxformer.importing.boxes import Annotated, Box, annotation_files, detection_contents, image_of_stem
from jaxformer.importing.classes import check_read, read_names
from jaxformer.importing.contents import Contents
from jaxformer.importing.sources import SPLIT_NAMES, File, Sources, sorted_below, split_of_folders
from jaxformer.observe.text import counted

DESCRIPTIONS = ("data.yaml", "data.yml")
CLASS_FILES = ("classes.txt", "obj.names", "classes.names")


def find(paths: Sequence[Path]) -> list[Path]:
    """The descriptions of datasets: files as they are given, and one of each folder."""
    found = []
    for path in paths:
        if path.is_dir():
            places = [path / name for name in DESCRIPTIONS]
            places += [folder / name for folder in (path, path / "labels") for name in CLASS_FILES]
            found += [place for place in places if place.is_file()][:1]
        elif path.suffix.lower() in (".yaml", ".yml") or path.name in CLASS_FILES:
            found.append(path)
    return found


def read_yolo(sources: Sources) -> Contents:
    """Reads a dataset that a data.yaml describes, or a folder with a file of classes.

    An image's labels are beside it, or in the folder "labels" where it is in "images". Without labels it has no
    objects. Polygons become the boxes around them.

    Raises:
      UserError: the description cannot be read, or names folders that are not there.
    """
    sources.one("YOLO's dataset is described by one file, or is one folder")
    (source,) = annotation_files(sources, find, "YOLO's data.yaml or classes.txt")
    if source.suffix.lower() in (".yaml", ".yml"):
        described = load(source)
        class_names = described_classes(source, described["names"])
        found = list(described_images(source, described))
        if {file.split for file in found} == {"train"}:
            found = [replace(file, split=None) for file in found]
    else:
        root = source.parent.parent if source.parent.name == "labels" else source.parent
        class_names = read_names(source)
        names = {path: path.relative_to(root).as_posix() for path in sorted_below(root)}
        found = [File(path, name, split_of_folders(name)) for path, name in names.items()]
    if not found:
        raise UserError(f"{source}: there are no images")
    labels = [labels_of(file.path) for file in found]
    if not any(path.is_file() for path in labels):
        raise UserError(f"{source}: no image has labels; {found[0].path.name}'s would be {labels[0]}")
    images = [
        Annotated(file, list(read_file(path, class_names, sources)), path, shares=True)
        for file, path in zip(found, labels)
    ]
    without = sum(not path.is_file() for path in labels)
    notes = (
        [f"without a file of labels, and so without objects: {counted(without, 'image')}"] if without else []
    )
    sources.broken.extend((path, "holds labels of no image") for path in sorted(spare_labels(found)))
    return detection_contents(images, class_names, notes, sources)


def spare_labels(found: Sequence[File]) -> Iterator[Path]:
    """Files of labels, beside those of the images, to which there is no image."""
    known = {labels_of(file.path): file.path.parent for file in found}
    places: dict[Path, set[Path]] = {}
    for path, folder in known.items():
        places.setdefault(path.parent, set()).add(folder)
    for folder, of_images in places.items():
        for path in set(folder.glob("*.txt")) - set(known):
            if image_of_stem(path.stem, of_images) is None and looks_like_labels(path):
                yield path


def looks_like_labels(path: Path) -> bool:
    """Whether a file's first line is an object; other texts may lie beside images."""
    try:
        return bool(re.match(r"\s*\d+(\s+[-+.\deE]+){4,}\s*(\n|$)", read_text(path)))
    except BrokenFile:
        return False


def read_file(path: Path, class_names: Sequence[str], sources: Sources) -> Iterator[Box]:
    """The objects of an image; lines that cannot be used go to `sources.broken`."""
    text = sources.read(path, may_be_empty=True) if path.is_file() else None
    for number, line in enumerate(lines_of(text or ""), 1):
        if line.strip():
            try:
                yield box_of(line, f"line {number}", class_names)
            except ValueError as error:
                sources.broken.append((path, f"line {number}: {error}"))


def box_of(line: str, where: str, class_names: Sequence[str]) -> Box:
    """An object.

    Raises:
      ValueError: the line is none; says why.
    """
    first, *words = line.split()
    shown = repr(line.strip()[:60])
    try:
        label, values = int(first), [float(word) for word in words]
    except ValueError:
        raise ValueError(f"{shown} is not a class and numbers") from None
    polygon = len(values) >= 6 and len(values) % 2 == 0
    if len(values) != 4 and not polygon:
        raise ValueError(f"has {len(values)} numbers after the class, expected 4")
    if not all(abs(value) < 1e6 for value in values):
        raise ValueError(f"{shown} are not shares of the image")
    if not 0 <= label < len(class_names):
        raise ValueError(f"the class is {label}; there are 0 to {len(class_names) - 1}")
    if polygon:
        x, y = values[0::2], values[1::2]
        return Box(class_names[label], (min(x), min(y), max(x), max(y)), where)
    x0, y0, width, height = values
    corners = (x0 - width / 2, y0 - height / 2, x0 + width / 2, y0 + height / 2)
    return Box(class_names[label], corners, where)


def load(path: Path) -> Mapping[str, Any]:
    """A data.yaml."""
    import yaml

    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        raise UserError(f"{path}{place}: is not YAML") from error
    if not isinstance(content, dict) or "names" not in content or "train" not in content:
        raise UserError(
            f"{path}: describes no dataset of YOLO; expected names and train, perhaps val and test"
        )
    return content


def described_classes(path: Path, names: Any) -> list[str]:
    """The classes' names, a list or a mapping from 0 on."""
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise UserError(f"{path}: names has the keys {', '.join(map(str, names))}; expected 0, 1, 2, ...")
        names = [value for _, value in sorted(names.items(), key=lambda item: int(item[0]))]
    return check_read(path, [str(name) for name in names] if isinstance(names, list) else [])


def described_images(path: Path, described: Mapping[str, Any]) -> Iterator[File]:
    """The images that a data.yaml lists."""
    base = path.parent / str(described.get("path") or "")
    if not base.is_dir():
        base = path.parent  # a path on the machine where it was written
    for key in ("train", "val", "valid", "test"):
        places = described.get(key)
        for place in places if isinstance(places, list) else [places] if places else []:
            # Some tools write "../train/images" for what lies beside the file.
            candidates = [base / str(place), base / str(place).removeprefix("../")]
            found = next((candidate for candidate in candidates if candidate.exists()), None)
            if found is None:
                raise UserError(f"{path}: {key} is {str(place)!r}, which is not in {base}")
            for image in listed(found) if found.is_file() else sorted_below(found):
                name = image.relative_to(base).as_posix() if image.is_relative_to(base) else image.name
                yield File(image, name, SPLIT_NAMES[key])


def listed(path: Path) -> list[Path]:
    """The images that a text file lists, relative to it."""
    names = (line.strip() for line in lines_of(read_text(path)))
    return [path.parent / name for name in names if Path(name).suffix.lower() in IMAGE_EXTENSIONS]


def labels_of(image: Path) -> Path:
    """The file of an image's labels: in "labels" if the image is in "images", else beside it."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, 0, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            return Path(*parts).with_suffix(".txt")
    return image.with_suffix(".txt")
