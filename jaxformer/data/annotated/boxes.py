"""Turns a user's pictures with boxes into a TFDS dataset, which `data.examples` "detection" then reads."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxformer.data.annotated.annotations import Annotated, Annotations, Box, check_split_names
from jaxformer.data.annotated.coco import read_coco
from jaxformer.data.annotated.splits import held_out, without_copies
from jaxformer.data.annotated.voc import read_voc
from jaxformer.data.annotated.yolo import CLASS_FILES, read_yolo
from jaxformer.data.catalog import data_folder
from jaxformer.data.importing import VERSION, Checked, Imported, as_png, check, check_name
from jaxformer.data.scanning import Picture, listing
from jaxformer.data.text.formats import refuse
from jaxformer.data.writing import write_dataset
from jaxformer.errors import UserError


@dataclass(frozen=True)
class ImportedAnnotations(Imported):
    """What an import of annotated pictures made."""

    notes: list[str] = field(default_factory=list)
    """What was changed or left out by intent; a line for people each."""


@dataclass(frozen=True)
class Ready:
    """A picture that can be written."""

    annotated: Annotated
    """As it was read."""
    checked: Checked
    """The picture's file."""
    boxes: Sequence[tuple[str, tuple[float, float, float, float]]]
    """Labels with ymin, xmin, ymax, xmax as shares of the picture."""


def import_detection(
    sources: str | Path | Sequence[str | Path],
    name: str,
    data_dir: str | None = None,
    test_share: float = 0.2,
    skip_broken: bool = False,
) -> ImportedAnnotations:
    """Makes the TFDS dataset `name` of pictures with boxes; it is there completely, or not at all.

    Reads COCO's JSON files (or a folder of them), a folder of Pascal VOC's XML files, or YOLO's data.yaml (or a folder
    with one, or with classes.txt). Where names of files and folders tell no splits, always the same random share
    becomes the split "test". Boxes that reach out of their picture are clipped, and counted. Each example has `image`,
    `objects` (`bbox`, `label`) and `path`.

    Args:
      sources: files or a folder.
      name: the new dataset's name: lower-case letters, digits and underscores.
      data_dir: the folder of TFDS datasets; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      test_share: the share of the pictures that is held out, if there are no splits; 0 holds nothing out.
      skip_broken: leave out what cannot be used (pictures, boxes without an area), instead of refusing.

    Raises:
      UserError: the name is taken or impossible, or something is wrong with a file; says what and where.
    """
    paths = [Path(s) for s in ([sources] if isinstance(sources, (str, Path)) else sources)]
    folder, _ = data_folder(data_dir)
    check_name(name, folder)
    if not 0 <= test_share < 1:
        raise UserError(f"test share {test_share}: must be at least 0 and less than 1")
    annotations = reader(paths)()
    check_split_names(annotations.pictures, paths[0])
    ready, copies, broken = without_copies(
        open_all(annotations), lambda r: r.checked, lambda r: sorted(r.boxes)
    )
    annotations.broken += broken
    if not skip_broken:
        refuse(annotations.broken)
    splits = held_out(ready, [item.annotated.split for item in ready], test_share, paths[0])
    if not any(item.boxes for item in splits["train"]):
        raise UserError(f"{paths[0]}: no object is left in train")
    seen = {label for item in splits["train"] for label, _ in item.boxes}
    unseen = [label for label in annotations.class_names if label not in seen]
    if unseen:
        annotations.notes.append(f"no object in train is of the class {', '.join(unseen)}")
    place = write(splits, annotations.class_names, name, folder)
    counts = {split: len(members) for split, members in splits.items()}
    return ImportedAnnotations(
        name, place, counts, annotations.class_names, annotations.broken, copies, annotations.notes
    )


def reader(paths: Sequence[Path]) -> Callable[[], Annotations]:
    """What reads the sources; by their extensions, or what is in the folder."""
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: there is no such folder or file")
    if all(path.suffix.lower() == ".json" and path.is_file() for path in paths):
        return lambda: read_coco(paths)
    if len(paths) > 1:
        raise UserError(
            f"{paths[1]}: is one source too many; give COCO's JSON files, or one folder or file of others"
        )
    root = paths[0]
    if root.is_file():
        if root.suffix.lower() in (".yaml", ".yml") or root.name in CLASS_FILES:
            return lambda: read_yolo(root)
        raise UserError(f"{root}: expected COCO's .json, YOLO's data.yaml or classes.txt, or a folder")
    found = {kind: below(root, pattern) for kind, pattern in (("COCO", "*.json"), ("VOC", "*.xml"))}
    files = [root / "data.yaml", root / "data.yml"]
    files += [place / name for place in (root, root / "labels") for name in CLASS_FILES]
    described = [path for path in files if path.is_file()]
    found["YOLO"] = described[:1]
    kinds = [kind for kind, files in found.items() if files]
    if not kinds:
        raise UserError(
            f"{root}: holds no annotations; expected COCO's JSON, VOC's XML, or YOLO's data.yaml or classes.txt"
        )
    if len(kinds) > 1:
        shown = " and ".join(listing(found[kind], 1) for kind in kinds)
        raise UserError(
            f"{root}: holds annotations of {' and '.join(kinds)} ({shown}); name the file or folder to import"
        )
    readers = {
        "COCO": lambda: read_coco(found["COCO"]),
        "VOC": lambda: read_voc(root, found["VOC"]),
        "YOLO": lambda: read_yolo(described[0]),
    }
    return readers[kinds[0]]


def below(root: Path, pattern: str) -> list[Path]:
    """Files in a folder and the folders in it, sorted, without hidden ones."""
    found = [(path, path.relative_to(root).parts) for path in root.rglob(pattern)]
    return sorted(path for path, parts in found if not any(part.startswith(".") for part in parts))


def open_all(annotations: Annotations) -> list[Ready]:
    """Opens the pictures and turns boxes into shares of them; what is wrong goes to `annotations.broken`."""
    pictures = annotations.pictures
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        opened = list(pool.map(check, [Picture(p.path, "", p.split) for p in pictures]))
    ready, clipped = [], 0
    for picture, checked in zip(pictures, opened):
        if isinstance(checked, str):
            annotations.broken.append((picture.path, checked))
            continue
        if picture.size is not None and picture.size != checked.size:
            sizes = [f"{height}x{width}" for height, width in (picture.size, checked.size)]
            annotations.broken.append(
                (
                    picture.source,
                    f"{picture.name} is {sizes[0]} (height x width) there, the picture is {sizes[1]}",
                )
            )
            continue
        boxes = []
        for box in picture.boxes:
            shares, inside = in_shares(box, (1, 1) if picture.shares else checked.size)
            clipped += shares is not None and not inside
            if shares is None:
                annotations.broken.append((picture.source, no_area(box, picture)))
            else:
                boxes.append((box.label, shares))
        ready.append(Ready(picture, checked, boxes))
    if clipped:
        annotations.notes.append(
            f"clipped: {clipped:,} box{'' if clipped == 1 else 'es'} that reached out of the picture"
        )
    return ready


def no_area(box: Box, picture: Annotated) -> str:
    """What is wrong with a box that has no area in its picture."""
    corners = ", ".join(f"{value:g}" for value in box.corners)
    hint = "; expected shares, from 0 to 1" if picture.shares and max(box.corners) > 2 else ""
    return f"{box.where}: the box ({corners}) (x0, y0, x1, y1) has no area in {picture.name}{hint}"


def in_shares(box: Box, size: tuple[int, int]) -> tuple[tuple[float, float, float, float] | None, bool]:
    """ymin, xmin, ymax, xmax as shares of a picture of `size`, None without an area; and whether all was inside."""
    x0, y0, x1, y1 = box.corners
    exact = (y0 / size[0], x0 / size[1], y1 / size[0], x1 / size[1])
    ymin, xmin, ymax, xmax = (min(max(value, 0.0), 1.0) for value in exact)
    inside = all(-1e-4 <= value <= 1 + 1e-4 for value in exact)
    return ((ymin, xmin, ymax, xmax) if ymin < ymax and xmin < xmax else None), inside


def write(splits: dict[str, list[Ready]], class_names: Sequence[str], name: str, folder: Path) -> Path:
    """Writes the dataset; reads each picture a second time, so that memory stays small."""
    import tensorflow_datasets as tfds

    def examples(members: list[Ready]) -> Iterator[dict[str, Any]]:
        for item in members:
            path = item.annotated.path
            yield {
                "image": path.read_bytes() if item.checked.as_is else as_png(path, "RGB"),
                "objects": [
                    {"bbox": tfds.features.BBox(*shares), "label": label} for label, shares in item.boxes
                ],
                "path": item.annotated.name,
            }

    count = sum(map(len, splits.values()))
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "objects": tfds.features.Sequence(
            {"bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(names=list(class_names))}
        ),
        "path": tfds.features.Text(),
    }
    description = f"Pictures with boxes imported by jaxformer: {count:,} with {len(class_names)} classes."
    try:
        return write_dataset(
            folder, name, VERSION, features, {split: examples(m) for split, m in splits.items()}, description
        )
    except OSError as error:
        raise UserError(f"cannot write the dataset into {folder}: {error.strerror or error}") from error
