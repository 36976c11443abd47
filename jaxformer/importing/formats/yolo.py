"""YOLO's text: a file for each image, a line for each object: class, center x and y, width and height as shares."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from os.path import exists, isdir, isfile  # are False for names that no file can have
from pathlib import Path
from typing import Any, ClassVar

import yaml

from jaxformer.errors import UserError, counted
from jaxformer.importing.contents import Contents, checked_names, read_names
from jaxformer.importing.formats import detection
from jaxformer.importing.formats.detection import Annotated, Box
from jaxformer.importing.sources import (
    SPLIT_NAMES,
    File,
    Sources,
    find_all,
    split_of_folders,
    unless_all_train,
)
from jaxformer.reading import (
    IMAGE_EXTENSIONS,
    INTEGER,
    BrokenFile,
    lines_of,
    numbered_lines,
    parse_number,
    read_text,
)

DESCRIPTIONS = ("data.yaml", "data.yml")
NOTHING = ("", "~", "null", "Null", "NULL")  # what YAML writes where there is no value
CLASS_FILES = ("classes.txt", "obj.names", "classes.names")


def find(paths: Sequence[Path]) -> list[Path]:
    """The descriptions of datasets: files as they are given, and one of each folder."""
    found = []
    for path in paths:
        if path.is_dir():
            names = [*DESCRIPTIONS, *CLASS_FILES, *(f"labels/{name}" for name in CLASS_FILES)]
            found += [path / name for name in names if (path / name).is_file()][:1]
        elif path.suffix.lower() in (".yaml", ".yml") or path.name in CLASS_FILES:
            found.append(path)
    return found


def read(sources: Sources) -> Contents:
    """Reads a dataset that a data.yaml describes, or a folder with a file of classes.

    An image's labels are beside it, or in the folder "labels" where it is in "images". Without labels it has no
    objects. What stands in a line behind class and box are keypoints if the data.yaml has `kpt_shape`; without it lines
    of more than 4 numbers are polygons (of instances, or the 4 corners of turned boxes), and become boxes around them.

    Raises:
      UserError: the description cannot be read, or names folders that are not there.
    """
    sources.one("YOLO's dataset is described by one file, or is one folder")
    notes: list[str] = []
    (source,) = detection.annotation_files(sources, find, "YOLO's data.yaml or classes.txt")
    if source.suffix.lower() in (".yaml", ".yml"):
        described = load(source)
        class_names = described_classes(source, described)
        keypoints = described_keypoints(source, described)
        found = unless_all_train(list(described_images(source, described, notes)))
    else:
        root = source.parent.parent if source.parent.name == "labels" else source.parent
        class_names, keypoints = read_names(source), 0
        names = {path: path.relative_to(root).as_posix() for path in find_all(root)}
        found = [File(path, name, split_of_folders(name)) for path, name in names.items()]
    if not found:
        raise UserError(f"{source}: there are no images")
    labels = {file: labels_of(file.path) for file in found}
    without = sum(not isfile(path) for path in labels.values())
    if without == len(found):
        beside = labels[found[0]]
        raise UserError(f"{source}: no image has labels; {found[0].path.name}'s would be {beside}")
    read_boxes = partial(boxes_of, class_names=class_names, keypoints=keypoints, sources=sources)
    boxes = {file: read_boxes(path) for file, path in labels.items()}
    images = [Annotated(file, boxes[file], path, shares=True) for file, path in labels.items()]
    sources.broken.extend((path, "holds labels of no image") for path in spare_labels(labels))
    missing = f"without a file of labels, and so without objects: {counted(without, 'image')}"
    notes += [missing] if without else []
    if polygons := sum(box.is_polygon for of_image in boxes.values() for box in of_image):
        notes.append(f"polygons, which become the boxes around them: {polygons:,}; kpt_shape tells keypoints")
    return detection.contents_of(images, class_names, notes, sources)


def labels_of(image: Path) -> Path:
    """The file of an image's labels: in "labels" if the image is in "images", else beside it."""
    return Path(re.sub(r"^(.*/)?images/", r"\1labels/", image.as_posix())).with_suffix(".txt")


def spare_labels(labels: Mapping[File, Path]) -> list[Path]:
    """Files of labels, beside those of the images, to which there is no image."""
    folders: dict[Path, set[Path]] = defaultdict(set)
    for file, path in labels.items():
        folders[path.parent].add(file.path.parent)
    others = {path for folder in folders for path in folder.glob("*.txt")} - set(labels.values())
    has_image = detection.image_of_stem
    spare = (path for path in sorted(others) if has_image(path.stem, folders[path.parent]) is None)
    return list(filter(looks_like_labels, spare))


def looks_like_labels(path: Path) -> bool:
    """Whether a file's first line is an object; other texts may lie beside images."""
    try:
        return bool(re.match(r"\s*\d+(\s+[-+.\deE]+){4,}\s*(\n|$)", read_text(path)))
    except BrokenFile:
        return False


def boxes_of(path: Path, class_names: Sequence[str], keypoints: int, sources: Sources) -> list[Box]:
    """The objects of an image; lines that cannot be used go to `sources.broken`."""
    found: list[Box] = []
    with sources.checking(path):
        for number, line in numbered_lines(path) if isfile(path) else ():
            where = f"line {number}"
            with sources.checking(path, where):
                label, corners = box_of(line, len(class_names), keypoints)
                is_polygon = not keypoints and len(line.split()) > 5
                found.append(Box(class_names[label], corners, where, is_polygon))
    return found


def box_of(line: str, num_classes: int, keypoints: int = 0) -> tuple[int, tuple[float, float, float, float]]:
    """The class of an object and its corners: x0, y0, x1, y1.

    Args:
      line: the object's.
      num_classes: how many classes there are.
      keypoints: how many numbers of keypoints follow a box; with 0 more than 4 numbers are a polygon.

    Raises:
      ValueError: the line is none; says why.
    """
    first, *words = line.split()
    shown = repr(line.strip()[:60])
    found = f"has {counted(len(words), 'number')} after the class, expected 4"
    if keypoints and len(words) not in (4, 4 + keypoints):
        raise ValueError(f"{found}, or {4 + keypoints} with the keypoints of kpt_shape")
    try:
        label, *values = parse_number(first, INTEGER), *map(parse_number, words[: 4 if keypoints else None])
    except ValueError:
        raise ValueError(f"{shown} is not a class and numbers") from None
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError(found)
    if has_keypoints(values):
        raise ValueError(f"{found}; for a box and keypoints describe these in data.yaml, with kpt_shape")
    if not all(abs(value) < 1e6 for value in values):
        raise ValueError(f"{shown} are not shares of the image")
    if not 0 <= label < num_classes:
        raise ValueError(f"the class is {first[:40]}; there are 0 to {num_classes - 1}")
    if len(values) > 4:  # a polygon
        x, y = values[0::2], values[1::2]
        return int(label), (min(x), min(y), max(x), max(y))
    center_x, center_y, width, height = values
    x0, y0 = center_x - width / 2, center_y - height / 2
    return int(label), (x0, y0, center_x + width / 2, center_y + height / 2)


def has_keypoints(values: Sequence[float]) -> bool:
    """Whether numbers are a box and, in it, points that are marked as not there, hidden or seen: 0, 1 or 2."""
    points = list(zip(values[4::3], values[5::3], values[6::3]))
    if len(values) != 4 + 3 * len(points) or not any(seen for *_, seen in points):
        return False
    x, y, *size = values[:4]
    wide, high = (side / 2 + detection.ROUNDING for side in size)
    inside = all(abs(a - x) <= wide and abs(b - y) <= high for a, b, seen in points if seen)
    return inside and all(seen in (0, 1, 2) for *_, seen in points)


class Texts(yaml.SafeLoader):
    """YAML in which every word is a text, as names are: `no`, `1.0`, `null`; without aliases, and keys that repeat."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None,
                None,
                "an alias; write its value there",
                self.peek_event().start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, Any] = {}
        for key, _ in node.value:
            if first.setdefault(str(key.value), key) is not key:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} again", key.start_mark)
        return super().construct_mapping(node, deep)


def load(path: Path) -> Mapping[str, Any]:
    """A data.yaml."""
    try:
        content = yaml.load(read_text(path), Texts)
    except (yaml.YAMLError, RecursionError) as error:
        where, why = "", ""
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
            where, why = f", line {error.problem_mark.line + 1}", f" ({error.problem})"
        raise UserError(f"{path}{where}: is not YAML{why}") from error
    if not isinstance(content, dict) or "names" not in content or "train" not in content:
        raise UserError(f"{path}: describes no dataset of YOLO; expected names and train (and val, test)")
    return {key: value for key, value in content.items() if value not in NOTHING}


def described_classes(path: Path, described: Mapping[str, Any]) -> list[str]:
    """The classes' names, a list or a mapping from 0 on."""
    names, count = described.get("names"), described.get("nc")
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise UserError(f"{path}: names has the keys {', '.join(map(str, names))}; expected 0, 1, 2, ...")
        names = [names[key] for key in sorted(names, key=int)]
    names = checked_names(path, names if isinstance(names, list) else [])
    if count is not None and count != str(len(names)):
        raise UserError(f"{path}: nc is {count!r}, and names has {len(names)}; make them the same")
    return names


def described_keypoints(path: Path, described: Mapping[str, Any]) -> int:
    """How many numbers of keypoints each line has, by "kpt_shape: [17, 3]"; 0 without it."""
    if (shape := described.get("kpt_shape")) is None:
        return 0
    words = " ".join(map(str, shape)) if isinstance(shape, list) else ""
    found = re.fullmatch("([1-9][0-9]{0,3}) ([23])", words)
    if found is None:
        raise UserError(f"{path}: kpt_shape is {shape!r}; expected points and 2 or 3, as in [17, 3]")
    return int(found[1]) * int(found[2])


def described_images(path: Path, described: Mapping[str, Any], notes: list[str]) -> Iterator[File]:
    """The images that a data.yaml lists; `notes` get a line for each place that is not there, unless it is of train.

    (Many data.yaml name a test split that has not been downloaded.)
    """
    base = path.parent / str(described.get("path") or "")
    if not isdir(base):
        base = path.parent  # a path on the machine where it was written
    for key in ("train", "val", "valid", "test"):
        places = described.get(key) or []
        for place in map(str, places if isinstance(places, list) else [places]):
            # Some tools write "../train/images" for what lies beside the file.
            candidates = (base / place, base / place.removeprefix("../"))
            found = next((candidate for candidate in candidates if exists(candidate)), None)
            if found is None:
                missing = f"{key} is {place!r}, which is not in {base}"
                if key == "train":
                    raise UserError(f"{path}: {missing}")
                notes.append(f"left out: {missing}")
                continue
            for image in listed(found) if found.is_file() else find_all(found):
                name = image.relative_to(base).as_posix() if image.is_relative_to(base) else image.name
                yield File(image, name, SPLIT_NAMES[key])


def listed(path: Path) -> list[Path]:
    """The images that a text file lists, relative to it."""
    names = (line.strip() for line in lines_of(read_text(path)))
    return [path.parent / name for name in names if Path(name).suffix.lower() in IMAGE_EXTENSIONS]
