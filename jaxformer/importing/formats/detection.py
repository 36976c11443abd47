"""Images with boxes: the examples that they become; and the format that finds out whether it is COCO, VOC or YOLO."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from importlib import import_module
from os.path import isfile  # is False for names that no file can have
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import tensorflow_datasets as tfds

from jaxformer.errors import UserError, counted
from jaxformer.importing.contents import Contents, Example, random_share
from jaxformer.importing.formats import FORMATS
from jaxformer.importing.images import open_all, open_image
from jaxformer.importing.sources import File, Sources, listing
from jaxformer.reading import IMAGE_EXTENSIONS, parse_number

MOSTLY = 0.5  # of all boxes may lie for the most part outside of their images; more have other units
ROUNDING = 0.01  # how far shares may be from 0 to 1
Size: TypeAlias = tuple[int | None, int | None]
EXPECTED = "COCO's JSON, VOC's XML, or YOLO's data.yaml or classes.txt"


@dataclass(frozen=True)
class Box:
    """An object in an image."""

    label: str
    """Its class."""
    corners: tuple[float, float, float, float]
    """x0, y0, x1, y1, in pixels or, where the format has them so, as shares of the image."""
    where: str
    """Its place in the file of annotations: "line 3", "annotations[17]"."""
    is_polygon: bool = False
    """Whether the file has a polygon, and the box was drawn around it."""


@dataclass(frozen=True)
class Annotated:
    """An image and its objects."""

    file: File
    """The image's file."""
    boxes: Sequence[Box]
    """Its objects; there may be none."""
    source: Path
    """The file of annotations."""
    size: Size = (None, None)
    """Height and width, where the annotations say so."""
    shares: bool = False
    """Whether the boxes are shares of the image."""


def read(sources: Sources) -> Contents:
    """Reads the sources by the one format that finds its files of annotations in them.

    Raises:
      UserError: no format does, or two of them do.
    """
    formats = {name: import_module(f"{__package__}.{name}") for name, row in FORMATS.items() if row.has_boxes}
    found = {name: files for name, format in formats.items() if (files := format.find(sources.paths))}
    if not found:
        raise UserError(f"{sources.paths[0]}: holds no annotations; expected {EXPECTED}")
    if len(found) > 1:
        kinds = " and ".join(name.upper() for name in found)
        shown = " and ".join(listing(files, 1) for files in found.values())
        remedy = f"name the file or folder to import, or import it as {' or '.join(found)}"
        raise UserError(f"{sources.paths[0]}: holds annotations of {kinds} ({shown}); {remedy}")
    return formats[next(iter(found))].read(sources)


def annotation_files(sources: Sources, find: Callable[[Sequence[Path]], list[Path]], what: str) -> list[Path]:
    """The files of annotations in all sources; refuses a source without any, and names `what` was expected."""
    for path in sources.paths:
        if not find([path]):
            raise UserError(f"{path}: holds no annotations; expected {what}")
    return find(sources.paths)


def find_image(name: str, folders: Iterable[Path]) -> Path | None:
    """The first of `folders` / `name` that is a file; a name may not lead out of its folder."""
    relative = PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or not relative.parts or ":" in relative.parts[0]:
        return None
    return next((folder / relative for folder in folders if isfile(folder / relative)), None)


def image_of_stem(stem: str, folders: Iterable[Path]) -> Path | None:
    """The first image in `folders` whose name is `stem` with an extension of images."""
    endings = [end for extension in sorted(IMAGE_EXTENSIONS) for end in (extension, extension.upper())]
    places = (folder / f"{stem}{ending}" for folder in folders for ending in endings)
    return next((place for place in places if isfile(place)), None)


def contents_of(
    images: Sequence[Annotated], class_names: list[str], notes: list[str], sources: Sources
) -> Contents:
    """Opens the images and turns boxes into shares of them; what is wrong goes to `sources.broken`.

    Boxes that reach out of their image are clipped, objects that are there twice left out, and both counted. Each
    example has `image`, `objects` (`bbox`, `label`) and `path`.
    """
    in_pixels = [max(box.corners) for item in images if not item.shares for box in item.boxes]
    if in_pixels and max(in_pixels) <= 1:
        raise UserError(f"{images[0].source}: all boxes lie in the first pixel; expected pixels, not shares")
    examples, clipped, twice, outside = [], 0, 0, list[str]()
    for item, image in open_all(images, lambda item: (item, open_image(item.file.path)), sources):
        with sources.checking(item.source):
            if any(stated not in (None, real) for stated, real in zip(item.size, image.size)):
                there, real = (f"{height or '?'}x{width or '?'}" for height, width in (item.size, image.size))
                differ = f"is {there} (height x width) there, and the image is {real}"
                raise ValueError(f"{item.file.name} {differ}")
            boxes = []
            for box in item.boxes:
                with sources.checking(item.source, box.where):
                    shares, inside = in_shares(box, item, image.size)
                    boxes.append((box.label, shares))
                    clipped += inside < 1
                    outside += [f"{item.source}: {box.where}"] * (inside < 0.5 and not item.shares)
            different = list(dict.fromkeys(boxes))
            twice += len(boxes) - len(different)
            objects = [{"bbox": tfds.features.BBox(*shares), "label": label} for label, shares in different]
            values = {"image": image.stored, "objects": objects, "path": item.file.name}
            labels = frozenset(label for label, _ in different)
            examples.append(Example(values, item.file, "", labels, image, annotation=sorted(different)))
    if len(outside) > MOSTLY * sum(len(item.boxes) for item in images):
        expected = "expected x, y, width, height of COCO, or xmin, ymin, xmax, ymax of VOC, in pixels"
        raise UserError(f"{outside[0]}: the box lies for the most part outside of its image; {expected}")
    if clipped:
        notes.append(f"clipped: {counted(clipped, 'box', 'boxes')} that reached out of the image")
    if twice:
        notes.append(f"left out: {counted(twice, 'object')} with the class and box of another")
    image_feature = tfds.features.Image(shape=(None, None, 3))
    label = tfds.features.ClassLabel(names=class_names)
    objects_feature = tfds.features.Sequence({"bbox": tfds.features.BBoxFeature(), "label": label})
    features = {"image": image_feature, "objects": objects_feature, "path": tfds.features.Text()}
    return Contents(features, examples, class_names, notes, random_share, some_in_train)


def size_of(written: Mapping[str, Any]) -> Size:
    """Height and width as a file of annotations has them; None for what is not there, or 0, as some tools write.

    Args:
      written: the values of "height" and "width": numbers, or texts of numbers.

    Raises:
      ValueError: one is something else.
    """

    def number(key: str) -> int | None:
        value = written.get(key)
        if value is None or not str(value).strip():
            return None
        try:
            return int(f"{parse_number(str(value).strip()):.15g}") or None
        except ValueError as error:
            raise ValueError(f"{key} is {value!r}; expected a whole number") from error

    return number("height"), number("width")


def some_in_train(names: list[str], seen: Set[Any], source: Path) -> list[str]:
    """Refuses a dataset without objects to learn from; a note names the classes without any."""
    unseen = [name for name in names if name not in seen]
    if len(unseen) == len(names):
        raise UserError(f"{source}: no object is left in train")
    return [f"no object in train is of the class {', '.join(unseen)}"] if unseen else []


def in_shares(box: Box, item: Annotated, size: tuple[int, int]) -> tuple[tuple[float, ...], float]:
    """ymin, xmin, ymax, xmax as shares of an image of `size`, and how much of the box was inside, 0 to 1.

    What reaches out by less than 0.01% of the image's side is inside.

    Raises:
      ValueError: the box has no area in the image.
    """
    height, width = (1, 1) if item.shares else size
    x0, y0, x1, y1 = box.corners
    exact = (y0 / height, x0 / width, y1 / height, x1 / width)
    ymin, xmin, ymax, xmax = clipped = tuple(min(max(value, 0.0), 1.0) for value in exact)
    corners = f"the box ({', '.join(f'{value:g}' for value in box.corners)}) (x0, y0, x1, y1)"
    if not (ymin < ymax and xmin < xmax):
        hint = "; expected shares, from 0 to 1" if item.shares and max(box.corners) > 2 else ""
        raise ValueError(f"{corners} has no area in {item.file.name}{hint}")
    written = ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)  # as YOLO has them
    if item.shares and not all(-ROUNDING <= value <= 1 + ROUNDING for value in written):
        raise ValueError(f"{corners} is not of {item.file.name}; expected shares, from 0 to 1, and no pixels")
    inside = (ymax - ymin) * (xmax - xmin) / ((exact[2] - exact[0]) * (exact[3] - exact[1]))
    return clipped, 1.0 if all(-1e-4 <= value <= 1 + 1e-4 for value in exact) else inside
