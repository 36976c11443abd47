"""Images with one class each: folders of classes, or a CSV."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

from jaxformer.errors import UserError
from jaxformer.files import IMAGE_EXTENSIONS, read_text
from jaxformer.importing.classes import natural, several_classes
from jaxformer.importing.contents import Contents, Example
from jaxformer.importing.formats.csv import csv_rows
from jaxformer.importing.images import open_all, open_image
from jaxformer.importing.sources import SPLIT_NAMES, Broken, File, Sources, files, listing, subfolders

Labelled: TypeAlias = tuple[File, str]  # an image and its class


def read_images(sources: Sources) -> Contents:
    """Reads a folder with one folder a class, perhaps inside folders train, val, test; or a CSV.

    A CSV has the columns `path` (relative to the CSV), `label` and perhaps `split`. JPEG and PNG files are stored byte
    by byte; others, and those that a camera turned, are stored upright as PNG. The dataset is grey if no image has
    colour. Each example has `image`, `label` and `path`.

    Raises:
      UserError: the folder or CSV is not like that; says where.
    """
    import tensorflow_datasets as tfds

    source = sources.one("images come from one folder or CSV")
    if source.is_dir():
        found = in_folder(source, sources.broken)
    elif source.suffix.lower() == ".csv":
        found = list(in_csv(source, sources.broken))
    else:
        raise UserError(f"{source}: expected a folder with one folder a class, or a CSV of path,label")
    opened = open_all(found, lambda item: open_image(item[0].path), sources.broken)
    class_names = sorted({label for (_, label), _ in opened}, key=natural)
    grey = all(image.grey for _, image in opened)
    sizes = {image.size for _, image in opened}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    features = {
        "image": tfds.features.Image(shape=(height, width, 1 if grey else 3)),
        "label": tfds.features.ClassLabel(names=class_names),
        "path": tfds.features.Text(),
    }
    examples = []
    for (file, label), image in opened:
        values = {"image": partial(image.stored, "L" if grey else "RGB"), "label": label, "path": file.name}
        examples.append(Example(values, file, label, digest=image.digest))
    return Contents(features, examples, class_names, check=several_classes(class_names, class_names))


def in_folder(root: Path, broken: list[Broken]) -> list[Labelled]:
    """The images in folders of classes, perhaps in folders of splits."""
    folders = subfolders(root)
    loose = [path for path in files(root) if path.suffix.lower() in IMAGE_EXTENSIONS]
    if loose:
        raise UserError(
            f"{root}: {listing(loose)} in no class; expected one folder a class, with the images in them"
        )
    if not folders:
        raise UserError(f"{root}: holds no folders; expected one folder a class, or a CSV of path,label")
    splits = {folder: SPLIT_NAMES.get(folder.name.lower()) for folder in folders}
    named = [folder for folder in folders if splits[folder]]
    if not named:
        return in_classes(root, root, None, broken)
    if len(named) < len(folders):
        others = [folder for folder in folders if folder not in named]
        raise UserError(
            f"{root}: {listing(others)} beside {listing(named)}; expected folders of splits or of classes"
        )
    for folder, split in splits.items():
        if list(splits.values()).count(split) > 1:
            raise UserError(f"{folder}: there are two folders for the split {split!r}; keep one")
    return [item for folder, split in splits.items() for item in in_classes(root, folder, split, broken)]


def in_classes(root: Path, parent: Path, split: str | None, broken: list[Broken]) -> list[Labelled]:
    """The images in the folders of classes in `parent`, with names relative to `root`."""
    folders = subfolders(parent)
    if not folders:
        raise UserError(f"{parent}: holds no folders; expected one folder a class in it")
    found: list[Labelled] = []
    empty = []
    for folder in folders:
        nested = subfolders(folder)
        if nested:
            raise UserError(
                f"{nested[0]}: a folder in the class {folder.name!r}; class folders hold images only"
            )
        images = [path for path in files(folder) if path.suffix.lower() in IMAGE_EXTENSIONS]
        found += [(File(path, path.relative_to(root).as_posix(), split), folder.name) for path in images]
        broken += [(path, "is no image by its name") for path in files(folder) if path not in images]
        empty += [] if images else [folder]
    if empty:
        raise UserError(f"{listing(empty)}: no images in it; remove empty class folders, or fill them")
    return found


def in_csv(path: Path, broken: list[Broken]) -> Iterator[Labelled]:
    """The rows of a CSV; file names are relative to its folder, and may not leave it."""
    root = path.parent.resolve()
    (_, header), *rows = csv_rows(path, read_text(path))
    columns = [column.strip().lower() for column in header]
    if sorted(columns) not in (["label", "path"], ["label", "path", "split"]):
        raise UserError(f"{path}: columns are {', '.join(columns)}; expected path,label or path,label,split")
    if not rows:
        raise UserError(f"{path}: has no rows; expected a header path,label and a row for each image")
    lines: dict[Path, int] = {}
    for line, cells in rows:
        row = dict(zip(columns, (cell.strip() for cell in cells)))
        image = (root / row.get("path", "")).resolve()
        problem = row_problem(row, len(cells), columns, image, root)
        if problem is None and image in lines:
            problem = f"{row['path']!r} is also in line {lines[image]}; keep one of them"
        lines.setdefault(image, line)
        if problem:
            broken.append((path, f"line {line}: {problem}"))
        else:
            split = SPLIT_NAMES[row["split"].lower()] if "split" in row else None
            yield File(image, image.relative_to(root).as_posix(), split), row["label"]


def row_problem(row: dict[str, str], count: int, columns: list[str], image: Path, root: Path) -> str | None:
    """What is wrong with a row of `count` values that names `image`."""
    if count != len(columns):
        return f"{count} values for {len(columns)} columns"
    for column in ("path", "label"):
        if not row[column]:
            return f"{column} is empty"
    if not image.is_relative_to(root):
        return f"{row['path']!r} leaves {root}; put images beside the CSV or below it"
    if not image.is_file():
        return f"there is no file {row['path']!r} in {root}"
    if row.get("split", "train").lower() not in SPLIT_NAMES:
        return f"split {row['split']!r} is not train, validation or test"
    return None
