"""Pascal VOC's XML: a file for each image (Everingham et al. 2010; the development kit's section 2)."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers.expat import ErrorString

from jaxformer.files import BrokenFile, lines_of, read_text
from jaxformer.importing.boxes import (
    Annotated,
    Box,
    annotation_files,
    detection_contents,
    find_image,
    image_of_stem,
)
from jaxformer.importing.classes import is_class_name, natural
from jaxformer.importing.contents import Contents
from jaxformer.importing.sources import SPLIT_NAMES, File, Sources, sorted_below, split_of_folders

MOST_NESTED = 50
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def find(paths: Sequence[Path]) -> list[Path]:
    """The XML files in folders."""
    return [file for path in paths if path.is_dir() for file in sorted_below(path, {".xml"})]


def read_voc(sources: Sources) -> Contents:
    """Reads a folder with a file of annotations for each image.

    Splits are told by ImageSets/Main/train.txt, val.txt and test.txt, or by folders of such names. Pixels are counted
    from 1 and a box holds its last pixel, as VOC defines it; where a box begins at 0, tools counted from 0, and boxes
    are taken as they are. Difficult objects are objects like others.
    """
    root = sources.one("Pascal VOC's files are in one folder")
    listed = listed_splits(root)
    images = []
    for path in annotation_files(sources, find, "Pascal VOC's XML files in a folder"):
        try:
            images.append(read_file(root, path, listed))
        except BrokenFile as error:
            sources.broken.append((path, error.reason))
    notes = []
    boxes = [box for image in images for box in image.boxes]
    if any(min(box.corners[:2]) == 0 for box in boxes):
        notes.append("pixels are counted from 0, as boxes begin at 0; VOC's own count from 1")
    else:
        images = [replace(image, boxes=[from_one(box) for box in image.boxes]) for image in images]
    return detection_contents(images, sorted({box.label for box in boxes}, key=natural), notes, sources)


def from_one(box: Box) -> Box:
    """A box whose pixels are counted from 1, and which holds the last one, as corners counted from 0."""
    x0, y0, x1, y1 = box.corners
    return replace(box, corners=(x0 - 1, y0 - 1, x1, y1))


def read_file(root: Path, path: Path, listed: dict[str, str]) -> Annotated:
    """An image's annotations.

    Raises:
      BrokenFile: they cannot be read.
    """
    tree = parse(path)
    boxes = []
    for number, element in enumerate(tree.findall("object"), 1):
        name = (element.findtext("name") or "").strip()
        if not is_class_name(name):
            raise BrokenFile(path, f"object {number} has no <name>")
        try:
            x0, y0, x1, y1 = (float(element.findtext(f"bndbox/{key}") or "") for key in CORNERS)
        except ValueError:
            x0 = y0 = x1 = y1 = float("nan")
        if not all(abs(value) <= 1e9 for value in (x0, y0, x1, y1)):
            raise BrokenFile(path, f"object {number} ({name}) has no <bndbox> of {', '.join(CORNERS)}")
        boxes.append(Box(name, (x0, y0, x1, y1), f"object {number} ({name})"))
    height, width = ((tree.findtext(f"size/{key}") or "").strip() for key in ("height", "width"))
    size = (int(height), int(width)) if height.isdecimal() and width.isdecimal() else (0, 0)
    image = find_own_image(path, (tree.findtext("filename") or "").strip())
    if image is None:
        raise BrokenFile(path, f"there is no image {path.stem} beside it, nor in JPEGImages or images")
    split = listed.get(path.stem) if listed else split_of_folders(path.relative_to(root).as_posix())
    return Annotated(File(image, image.name, split), boxes, path, size if all(size) else None)


def find_own_image(path: Path, name: str) -> Path | None:
    """The image of a file of annotations: by its own name or, where there is none, by the one that stands in it.

    (What stands in it is out of date where files have been renamed.)
    """
    places = [path.parent]
    for above in (path.parent.parent, path.parent.parent.parent):
        for folder in ("JPEGImages", "images"):
            places += [above / folder, above / folder / path.parent.name]
    found = image_of_stem(path.stem, places)
    return find_image(name, places) if found is None and name else found


def listed_splits(root: Path) -> dict[str, str]:
    """Stems of images by split, from ImageSets/Main; empty without such files."""
    splits: dict[str, str] = {}
    for file in sorted((root / "ImageSets" / "Main").glob("*.txt")):
        split = SPLIT_NAMES.get(file.stem.lower())
        if split is not None:
            rows = (line.split() for line in lines_of(read_text(file, may_be_empty=True)))
            splits |= {row[0]: split for row in rows if row}
    return splits


def parse(path: Path) -> ElementTree.Element:
    """A file of annotations as a tree; without document types, whose entities could grow without bound.

    Raises:
      BrokenFile: it is something else.
    """
    text = read_text(path).strip()
    if re.search(r"<!(DOCTYPE|ENTITY)", text):
        raise BrokenFile(path, "has a document type or entities, which annotations do not need; remove them")
    try:
        tree = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise BrokenFile(path, f"line {error.position[0]}: is not XML ({ErrorString(error.code)})") from error
    level = list(tree)
    for _ in range(MOST_NESTED):
        level = [inner for element in level for inner in element]
    if level:
        raise BrokenFile(path, "is nested too deeply")
    if tree.tag != "annotation":
        raise BrokenFile(path, f"is <{tree.tag}>, not VOC's <annotation>")
    return tree
