"""Finds a user's pictures and their labels: folders of classes, or a CSV."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxformer.errors import UserError

EXTENSIONS = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
SYSTEM_FILES = {"desktop.ini", "thumbs.db"}

# Folders of these names are splits, not classes; what they are called in the dataset.
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Picture:
    """A labelled file."""

    path: Path
    """The file."""
    label: str
    """Its class."""
    split: str | None
    """Its split, or None if the source does not say."""


@dataclass(frozen=True)
class Found:
    """What a scan found."""

    pictures: list[Picture]
    """Labelled files, in a fixed order."""
    others: list[Path]
    """Files among them that are no pictures by their names."""


def scan(source: Path) -> Found:
    """Finds labelled pictures.

    Args:
      source: a folder with one folder a class; or with folders train, val(idation), test of such folders; or
        a CSV file with columns `path` (relative to the CSV), `label` and perhaps `split`.

    Raises:
      UserError: the folder or CSV is not like that; says where.
    """
    if source.is_dir():
        return scan_folder(source)
    if not source.exists():
        raise UserError(f"{source}: there is no such folder or file")
    if source.suffix.lower() != ".csv":
        raise UserError(f"{source}: expected a folder with one folder a class, or a CSV of path,label")
    return scan_csv(source)


def scan_folder(root: Path) -> Found:
    """Folders of classes, perhaps in folders of splits."""
    folders = subfolders(root)
    loose = [path for path in files(root) if path.suffix.lower() in EXTENSIONS]
    if loose:
        raise UserError(
            f"{root}: {listing(loose)} in no class; expected one folder a class, with the pictures in them"
        )
    if not folders:
        raise UserError(f"{root}: holds no folders; expected one folder a class, or a CSV of path,label")
    named = [folder for folder in folders if folder.name.lower() in SPLIT_FOLDERS]
    if not named:
        return classes_of(folders, None)
    if len(named) < len(folders):
        others = [folder for folder in folders if folder not in named]
        raise UserError(
            f"{root}: {listing(others)} beside {listing(named)}; expected folders of splits or of classes"
        )
    splits = [SPLIT_FOLDERS[folder.name.lower()] for folder in folders]
    for folder, split in zip(folders, splits):
        if splits.count(split) > 1:
            raise UserError(f"{folder}: there are two folders for the split {split!r}; keep one")
    parts = [classes_of(subfolders(folder), split, folder) for folder, split in zip(folders, splits)]
    return Found([p for part in parts for p in part.pictures], [o for part in parts for o in part.others])


def classes_of(folders: list[Path], split: str | None, parent: Path | None = None) -> Found:
    """The pictures of class folders."""
    if not folders:
        raise UserError(f"{parent}: holds no folders; expected one folder a class in it")
    pictures: list[Picture] = []
    others: list[Path] = []
    empty = []
    for folder in folders:
        nested = subfolders(folder)
        if nested:
            raise UserError(
                f"{nested[0]}: a folder in the class {folder.name!r}; class folders hold pictures only"
            )
        here = files(folder)
        chosen = [path for path in here if path.suffix.lower() in EXTENSIONS]
        pictures += [Picture(path, folder.name, split) for path in chosen]
        others += [path for path in here if path.suffix.lower() not in EXTENSIONS]
        if not chosen:
            empty.append(folder)
    if empty:
        raise UserError(f"{listing(empty)}: no pictures in it; remove empty class folders, or fill them")
    return Found(pictures, others)


def scan_csv(path: Path) -> Found:
    """The rows of a CSV; file names are relative to its folder, and may not leave it."""
    root = path.parent.resolve()
    pictures: list[Picture] = []
    lines: dict[Path, int] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        for line, row in csv_rows(path, file):
            name, label, split = row["path"], row["label"], row.get("split")
            where = f"{path}, line {line}"
            if not name or not label:
                raise UserError(f"{where}: {'path' if not name else 'label'} is empty")
            picture = (root / name).resolve()
            if not picture.is_relative_to(root):
                raise UserError(
                    f"{where}: {name!r} leaves {path.parent}; put pictures beside the CSV or below it"
                )
            if picture in lines:
                raise UserError(f"{where}: {name!r} is also in line {lines[picture]}; keep one of them")
            if not picture.is_file():
                raise UserError(f"{where}: there is no file {name!r} in {path.parent}")
            if split is not None and split.lower() not in SPLIT_FOLDERS:
                raise UserError(f"{where}: split {split!r} is not train, validation or test")
            lines[picture] = line
            pictures.append(Picture(picture, label, None if split is None else SPLIT_FOLDERS[split.lower()]))
    if not pictures:
        raise UserError(f"{path}: has no rows; expected a header path,label and a row for each picture")
    return Found(pictures, [])


def csv_rows(path: Path, file: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and rows, with column names and values stripped of spaces."""
    try:
        reader = csv.reader(file)
        header = [column.strip().lower() for column in next(reader, [])]
        known = {"path", "label", "split"}
        if not {"path", "label"} <= set(header) or not set(header) <= known or len(set(header)) < len(header):
            raise UserError(
                f"{path}: columns are {', '.join(header)}; expected path,label or path,label,split"
            )
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(values)} values for {len(header)} columns"
                )
            yield reader.line_num, {key: value.strip() for key, value in zip(header, values)}
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV in UTF-8 ({error})") from error


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, sorted, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def files(folder: Path) -> list[Path]:
    """Files in a folder, sorted, without hidden ones and those that systems strew about."""
    there = (path for path in folder.iterdir() if not path.is_dir() and not path.name.startswith("."))
    return sorted(path for path in there if path.name.lower() not in SYSTEM_FILES)


def listing(paths: list[Path], most: int = 3) -> str:
    """Names of a few paths: "a.png, b.png, c.png and 7 more"."""
    names = ", ".join(path.name for path in paths[:most])
    return names if len(paths) <= most else f"{names} and {len(paths) - most} more"
