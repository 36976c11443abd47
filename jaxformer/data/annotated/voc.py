"""Pascal VOC's XML: a file for each picture (Everingham et al. 2010; the development kit's section 2)."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from jaxformer.data.annotated.annotations import (
    Annotated,
    Annotations,
    Box,
    find_picture,
    picture_of_stem,
    split_of_folders,
)
from jaxformer.data.importing import natural
from jaxformer.data.text.format_files import SPLIT_NAMES
from jaxformer.data.text.formats import NotText, is_class_name, read_text

MOST_NESTED = 50


class NotXml(ValueError):
    """A file is not the XML of annotations; its text says why."""


def read_voc(root: Path, files: Sequence[Path]) -> Annotations:
    """Reads a file of annotations for each picture.

    Splits are told by ImageSets/Main/train.txt, val.txt and test.txt, or by folders of such names. Pixels are counted
    from 1 and a box holds its last pixel, as VOC defines it; where a box begins at 0, tools counted from 0, and boxes
    are taken as they are. Difficult objects are objects like others.
    """
    made = Annotations()
    listed = listed_splits(root)
    for path in files:
        try:
            made.pictures.append(read_file(root, path, listed))
        except (NotXml, NotText) as error:
            made.broken.append((path, str(error)))
    boxes = [box for picture in made.pictures for box in picture.boxes]
    if any(min(box.corners[:2]) == 0 for box in boxes):
        made.notes.append("pixels are counted from 0, as boxes begin at 0; VOC's own count from 1")
    else:
        made.pictures = [replace(p, boxes=[from_one(box) for box in p.boxes]) for p in made.pictures]
    made.class_names = sorted({box.label for box in boxes}, key=natural)
    return made


def from_one(box: Box) -> Box:
    """A box whose pixels are counted from 1, and which holds the last one."""
    x0, y0, x1, y1 = box.corners
    return replace(box, corners=(x0 - 1, y0 - 1, x1, y1))


def read_file(root: Path, path: Path, listed: dict[str, str]) -> Annotated:
    """A picture's annotations.

    Raises:
      NotXml, NotText: they cannot be read.
    """
    tree = parse(read_text(path))
    if tree.tag != "annotation":
        raise NotXml(f"is <{tree.tag}>, not VOC's <annotation>")
    boxes = []
    for number, element in enumerate(tree.findall("object")):
        name = (element.findtext("name") or "").strip()
        if not is_class_name(name):
            raise NotXml(f"object {number + 1} has no <name>")
        bounds = element.find("bndbox")
        values = [] if bounds is None else [bounds.findtext(key) for key in ("xmin", "ymin", "xmax", "ymax")]
        try:
            corners = tuple(float(value) for value in values if value is not None)
        except ValueError:
            corners = ()
        if len(corners) != 4 or any(abs(value) > 1e9 or value != value for value in corners):
            raise NotXml(f"object {number + 1} ({name}) has no <bndbox> of xmin, ymin, xmax, ymax")
        boxes.append(Box(name, corners, f"object {number + 1} ({name})"))
    size = (
        tuple(int(tree.findtext(f"size/{key}") or 0) for key in ("height", "width")) if sized(tree) else None
    )
    picture = find(path, (tree.findtext("filename") or "").strip())
    if picture is None:
        raise NotXml(f"there is no picture {path.stem} beside it, nor in JPEGImages or images")
    relative = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    split = listed.get(path.stem) if listed else split_of_folders(relative)
    return Annotated(picture, picture.name, split, boxes, path, size)  # type: ignore[arg-type]


def sized(tree: Element) -> bool:
    """Whether the annotations say how large the picture is (some tools write zeros)."""
    texts = [(tree.findtext(f"size/{key}") or "").strip() for key in ("height", "width")]
    return all(text.isdecimal() and int(text) > 0 for text in texts)


def find(path: Path, name: str) -> Path | None:
    """The picture of a file of annotations: by its own name or, where there is none, by the one that stands in it.

    (What stands in it is out of date where files have been renamed.)
    """
    places = [path.parent]
    for above in (path.parent.parent, path.parent.parent.parent):
        for folder in ("JPEGImages", "images"):
            places += [above / folder, above / folder / path.parent.name]
    found = picture_of_stem(path.stem, places)
    return find_picture(name, places) if found is None and name else found


def listed_splits(root: Path) -> dict[str, str]:
    """Stems of pictures by split, from ImageSets/Main; empty without such files."""
    splits: dict[str, str] = {}
    for file in sorted((root / "ImageSets" / "Main").glob("*.txt")):
        split = SPLIT_NAMES.get(file.stem.lower())
        if split is not None:
            try:
                lines = read_text(file).split("\n")
            except NotText:
                continue
            splits |= {line.split()[0]: split for line in lines if line.split()}
    return splits


def parse(text: str) -> Element:
    """XML as a tree; without document types, and so without entities, which could grow without bound.

    Raises:
      NotXml: it is not that.
    """
    builder, depth = TreeBuilder(), 0
    parser = expat.ParserCreate()

    def refuse(*_: Any) -> None:
        raise NotXml("has a document type or entities, which annotations do not need; remove them")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MOST_NESTED:
            raise NotXml("is nested too deeply")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(re.sub(r"^\s*<\?xml[^>]*\?>", "", text), True)
    except expat.ExpatError as error:
        raise NotXml(f"line {error.lineno}: is not XML ({expat.ErrorString(error.code)})") from error
    return builder.close()
