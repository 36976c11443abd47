"""Images with one class each: folders of classes, or a CSV."""

from functools import partial
from os.path import isfile  # is False for names that no file can have
from pathlib import Path
from typing import TypeAlias

import tensorflow_datasets as tfds

from jaxformer.errors import UserError, counted
from jaxformer.importing.contents import Contents, Example, natural
from jaxformer.importing.formats.csv import csv_rows
from jaxformer.importing.images import open_all, open_image
from jaxformer.importing.sources import SPLIT_NAMES, File, Sources, entries, listing, split_folders
from jaxformer.reading import IMAGE_EXTENSIONS, read_text

Labelled: TypeAlias = tuple[File, str]  # an image and its class


def read(sources: Sources) -> Contents:
    """Reads a folder with one folder a class, perhaps inside folders train, val, test; or a CSV.

    A CSV has the columns `path` (relative to the CSV), `label` and perhaps `split`. JPEG and PNG files are stored byte
    by byte; others, and those that a camera turned, are stored upright as PNG. The dataset is grey if no image has
    colour. Each example has `image`, `label` and `path`.

    Raises:
      UserError: the folder or CSV is not like that; says where.
    """
    source = sources.one("images come from one folder or CSV")
    if not source.is_dir() and source.suffix.lower() != ".csv":
        raise UserError(f"{source}: expected a folder with one folder a class, or a CSV of path,label")
    found = in_folder(source, sources) if source.is_dir() else in_csv(source, sources)
    opened = open_all(found, lambda item: (*item, open_image(item[0].path)), sources)
    class_names = sorted({label for _, label, _ in opened}, key=natural)
    grey = all(image.grey for *_, image in opened)
    sizes = {image.size for *_, image in opened}
    height, width = next(iter(sizes)) if len(sizes) == 1 else (None, None)
    image_feature = tfds.features.Image(shape=(height, width, 1 if grey else 3))
    label_feature = tfds.features.ClassLabel(names=class_names)
    features = {"image": image_feature, "label": label_feature, "path": tfds.features.Text()}
    examples = []
    for file, label, image in opened:
        values = {"image": partial(image.stored, 1 if grey else 3), "label": label, "path": file.name}
        examples.append(Example(values, file, label, image=image))
    return Contents(features, examples, class_names, [size_note(sizes, grey)] if sizes else [])


def size_note(sizes: set[tuple[int, int]], grey: bool) -> str:
    """How large the images are, and whether they have colours."""
    both = dict.fromkeys("{}x{}".format(*map(choose, zip(*sizes))) for choose in (min, max))
    return f"the images are of {' to '.join(both)} pixels (height x width), {'grey' if grey else 'in colour'}"


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name."""
    return path.suffix.lower() in IMAGE_EXTENSIONS


def in_folder(root: Path, sources: Sources) -> list[Labelled]:
    """The images in folders of classes, perhaps in folders of splits."""
    if loose := list(filter(is_image, entries(root)[1])):
        raise UserError(f"{root}: {listing(loose)} in no class; expected one folder of images for each class")
    named, _ = split_folders(root, (), "splits or of classes")
    if len(set(named.values())) < len(named):
        raise UserError(f"{root}: two of the folders {listing(list(named), 7)} are the same split; keep one")
    parents: dict[Path, str | None] = {**named} or {root: None}
    found: list[Labelled] = []
    empty = []
    for parent, split in parents.items():
        folders, _ = entries(parent)
        if not folders:
            raise UserError(f"{parent}: holds no folders; expected one folder a class in it, or give a CSV")
        for folder in folders:
            nested, there = entries(folder)
            if nested:
                inside = f"a folder in the class {folder.name!r}, which holds images only"
                raise UserError(f"{nested[0]}: {inside}")
            images = list(filter(is_image, there))
            try:
                label = sources.class_of(folder.name, f"{parent}: the folder ")
            except ValueError as error:
                raise UserError(f"{error}; rename it") from error
            found += [(File(path, path.relative_to(root).as_posix(), split), label) for path in images]
            sources.broken.extend((path, "is no image by its name") for path in there if path not in images)
            empty += [] if images else [folder]
    if empty:
        more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise UserError(f"{empty[0]}{more}: no images in it; remove empty class folders, or fill them")
    return found


def in_csv(path: Path, sources: Sources) -> list[Labelled]:
    """The rows of a CSV; file names are relative to its folder, and may not leave it."""
    root = path.parent.resolve()
    (_, header), *rows = csv_rows(path, read_text(path))
    columns = [column.strip().lower() for column in header]
    if sorted(columns) not in (["label", "path"], ["label", "path", "split"]):
        raise UserError(f"{path}: columns are {', '.join(columns)}; expected path,label or path,label,split")
    if not rows:
        raise UserError(f"{path}: has no rows; expected a header path,label and a row for each image")
    found: list[Labelled] = []
    lines: dict[Path, int] = {}
    for line, cells in rows:
        with sources.checking(path, f"line {line}"):
            if len(cells) != len(columns):
                raise ValueError(f"{counted(len(cells), 'value')} for {counted(len(columns), 'column')}")
            row = dict(zip(columns, (cell.strip() for cell in cells)))
            image = image_of(row, root)
            if lines.setdefault(image, line) != line:
                raise ValueError(f"{row['path']!r} is also in line {lines[image]}; keep one of them")
            split = SPLIT_NAMES[row["split"].lower()] if "split" in row else None
            label = sources.class_of(cells[columns.index("label")])
            found.append((File(image, image.relative_to(root).as_posix(), split), label))
    return found


def image_of(row: dict[str, str], root: Path) -> Path:
    """The image that a row names.

    Raises:
      ValueError: something is wrong with the row; says what.
    """
    for column in ("path", "label"):
        if not row[column]:
            raise ValueError(f"{column} is empty")
    if not isfile(root / row["path"]):
        raise ValueError(f"there is no file {row['path']!r} in {root}")
    image = (root / row["path"]).resolve()
    if not image.is_relative_to(root):
        raise ValueError(f"{row['path']!r} leaves {root}; put images beside the CSV or below it")
    if row.get("split", "train").lower() not in SPLIT_NAMES:
        raise ValueError(f"split {row['split']!r} is not train, validation or test")
    return image
