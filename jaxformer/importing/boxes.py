"""Images with boxes, as the readers of annotations give them, and the examples that they become."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os.path import isfile  # is False for names that no file can have
from pathlib import Path, PurePosixPath

from jaxformer.errors import UserError
from jaxformer.files import IMAGE_EXTENSIONS
from jaxformer.importing.contents import Contents, Example, Examples, random_share
from jaxformer.importing.images import open_all, open_image
from jaxformer.importing.sources import File, Sources


@dataclass(frozen=True)
class Box:
    """An object in an image."""

    label: str
    """Its class."""
    corners: tuple[float, float, float, float]
    """x0, y0, x1, y1, in pixels or, where the format has them so, as shares of the image."""
    where: str
    """Its place in the file of annotations: "line 3", "annotations[17]"."""


@dataclass(frozen=True)
class Annotated:
    """An image and its objects."""

    file: File
    """The image's file."""
    boxes: Sequence[Box]
    """Its objects; there may be none."""
    source: Path
    """The file of annotations."""
    size: tuple[int, int] | None = None
    """Height and width, if the annotations say so."""
    shares: bool = False
    """Whether the boxes are shares of the image."""


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


def detection_contents(
    images: Sequence[Annotated], class_names: list[str], notes: list[str], sources: Sources
) -> Contents:
    """Opens the images and turns boxes into shares of them; what is wrong goes to `sources.broken`.

    Boxes that reach out of their image are clipped, and counted. Each example has `image`, `objects` (`bbox`, `label`)
    and `path`.
    """
    import tensorflow_datasets as tfds

    examples: list[Example] = []
    clipped = 0
    for item, image in open_all(images, lambda item: open_image(item.file.path), sources.broken):
        if item.size not in (None, image.size):
            sizes = [f"{height}x{width}" for height, width in (item.size or (0, 0), image.size)]
            reason = f"{item.file.name} is {sizes[0]} (height x width) there, and the image is {sizes[1]}"
            sources.broken.append((item.source, reason))
            continue
        boxes = []
        for box in item.boxes:
            shares, inside = in_shares(box, (1, 1) if item.shares else image.size)
            if shares is None:
                sources.broken.append((item.source, no_area(box, item)))
            else:
                boxes.append((box.label, shares))
                clipped += not inside
        objects = [{"bbox": tfds.features.BBox(*shares), "label": label} for label, shares in boxes]
        values = {"image": image.stored, "objects": objects, "path": item.file.name}
        examples.append(Example(values, item.file, digest=image.digest, annotation=sorted(boxes)))
    if clipped:
        notes.append(f"clipped: {clipped:,} box{'' if clipped == 1 else 'es'} that reached out of the image")
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "objects": tfds.features.Sequence(
            {"bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(names=class_names)}
        ),
        "path": tfds.features.Text(),
    }

    def check(train: Examples, source: Path) -> list[str]:
        seen = {label for example in train for label, _ in example.annotation}
        if not seen:
            raise UserError(f"{source}: no object is left in train")
        unseen = [label for label in class_names if label not in seen]
        return [f"no object in train is of the class {', '.join(unseen)}"] if unseen else []

    return Contents(features, examples, class_names, notes, random_share, check)


def no_area(box: Box, item: Annotated) -> str:
    """What is wrong with a box that has no area in its image."""
    corners = ", ".join(f"{value:g}" for value in box.corners)
    hint = "; expected shares, from 0 to 1" if item.shares and max(box.corners) > 2 else ""
    return f"{box.where}: the box ({corners}) (x0, y0, x1, y1) has no area in {item.file.name}{hint}"


def in_shares(box: Box, size: tuple[int, int]) -> tuple[tuple[float, float, float, float] | None, bool]:
    """ymin, xmin, ymax, xmax as shares of an image of `size`, None without an area; and whether all was inside."""
    x0, y0, x1, y1 = box.corners
    exact = (y0 / size[0], x0 / size[1], y1 / size[0], x1 / size[1])
    ymin, xmin, ymax, xmax = (min(max(value, 0.0), 1.0) for value in exact)
    inside = all(-1e-4 <= value <= 1 + 1e-4 for value in exact)
    return ((ymin, xmin, ymax, xmax) if ymin < ymax and xmin < xmax else None), inside
