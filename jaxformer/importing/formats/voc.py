"""Pascal VOC's XML: a file for each image (Everingham et al. 2010; the development kit's section 2)."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers.expat import ErrorString

from jaxformer.importing.contents import Contents, natural
from jaxformer.importing.formats import detection
from jaxformer.importing.formats.detection import Annotated, Box
from jaxformer.importing.sources import SPLIT_NAMES, File, Sources, find_all, split_of_folders
from jaxformer.reading import numbered_lines, parse_number, read_text

MOST_NESTED = 50
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def find(paths: Sequence[Path]) -> list[Path]:
    """The XML files in folders."""
    return [file for path in paths if path.is_dir() for file in find_all(path, {".xml"})]


def read(sources: Sources) -> Contents:
    """Reads a folder with a file of annotations for each image.

    Splits are told by ImageSets/Main/train.txt, val.txt and test.txt, or by folders of such names. Pixels are counted
    from 1 and a box holds its last pixel, as VOC defines it; where a box begins at 0, tools counted from 0, and boxes
    are taken as they are. Difficult objects are objects like others.
    """
    root = sources.one("Pascal VOC's files are in one folder")
    listed = listed_splits(root)
    images, notes = [], []
    for path in detection.annotation_files(sources, find, "Pascal VOC's XML files in a folder"):
        with sources.checking(path):
            images.append(read_file(root, path, listed, sources))
    boxes = [box for image in images for box in image.boxes]
    if any(min(box.corners[:2]) == 0 for box in boxes):
        notes.append("pixels are counted from 0, as boxes begin at 0; VOC's own count from 1")
    else:
        images = [replace(image, boxes=[from_one(box) for box in image.boxes]) for image in images]
    class_names = sorted({box.label for box in boxes}, key=natural)
    return detection.contents_of(images, class_names, notes, sources)


def from_one(box: Box) -> Box:
    """A box whose pixels are counted from 1, and which holds the last one, as corners counted from 0."""
    x0, y0, x1, y1 = box.corners
    return replace(box, corners=(x0 - 1, y0 - 1, x1, y1))


def read_file(root: Path, path: Path, listed: dict[str, str], sources: Sources) -> Annotated:
    """An image's annotations.

    Raises:
      ValueError: they cannot be used.
      BrokenFile: the file cannot be read.
    """
    tree = parse(read_text(path).strip())
    boxes = []
    for number, element in enumerate(tree.findall("object"), 1):
        if not (written := (element.findtext("name") or "").strip()):
            raise ValueError(f"object {number} has no <name>")
        name = sources.class_of(written, f"object {number}: ")
        where = f"object {number} ({name})"
        if len(element.findall("bndbox")) > 1:
            raise ValueError(f"{where} has several <bndbox>; write an <object> for each")
        try:
            x0, y0, x1, y1 = (
                parse_number((element.findtext(f"bndbox/{key}") or "").strip()) for key in CORNERS
            )
        except ValueError as error:
            raise ValueError(f"{where} has no <bndbox> of {', '.join(CORNERS)}") from error
        if not all(abs(value) <= 1e9 for value in (x0, y0, x1, y1)):
            raise ValueError(f"{where} has no <bndbox> of {', '.join(CORNERS)}")
        boxes.append(Box(name, (x0, y0, x1, y1), where))
    size = detection.size_of({key: tree.findtext(f"size/{key}") for key in ("height", "width")})
    image = find_own_image(path, (tree.findtext("filename") or "").strip())
    if image is None:
        raise ValueError(f"there is no image {path.stem} beside it, nor in JPEGImages or images")
    split = listed.get(path.stem) if listed else split_of_folders(path.relative_to(root).as_posix())
    return Annotated(File(image, image.name, split), boxes, path, size)


def find_own_image(path: Path, name: str) -> Path | None:
    """The image of a file of annotations: by its own name or, where there is none, by the one that stands in it.

    (What stands in it is out of date where files have been renamed.)
    """
    beside = [above / name for above in path.parents[1:3] for name in ("JPEGImages", "images")]
    places = [path.parent, *(place for folder in beside for place in (folder, folder / path.parent.name))]
    found = detection.image_of_stem(path.stem, places)
    return detection.find_image(name, places) if found is None and name else found


def listed_splits(root: Path) -> dict[str, str]:
    """Stems of images by split, from ImageSets/Main; empty without such files."""
    files = sorted((root / "ImageSets" / "Main").glob("*.txt"))
    named = {file: SPLIT_NAMES[name] for file in files if (name := file.stem.lower()) in SPLIT_NAMES}
    return {line.split()[0]: split for file, split in named.items() for _, line in numbered_lines(file)}


def parse(text: str) -> ElementTree.Element:
    """A file of annotations as a tree; without document types, whose entities could grow without bound.

    Raises:
      ValueError: it is something else.
    """
    if re.search(r"<!(DOCTYPE|ENTITY)", text):
        raise ValueError("has a document type or entities, which annotations do not need; remove them")
    try:
        tree = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"line {error.position[0]}: is not XML ({ErrorString(error.code)})") from error
    if tree.find("/".join("*" * MOST_NESTED)) is not None:
        raise ValueError("is nested too deeply")
    if tree.tag != "annotation":
        raise ValueError(f"is <{tree.tag}>, not VOC's <annotation>")
    return tree
