"""What readers of annotations give back, and what they share: splits by names, finding pictures."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os.path import isfile  # is False for names that no file can have
from pathlib import Path, PurePosixPath
from typing import Any

from jaxformer.data.scanning import EXTENSIONS
from jaxformer.data.text.format_files import SPLIT_NAMES
from jaxformer.data.text.formats import Broken, NotText, lines_of, read_text
from jaxformer.errors import UserError


@dataclass(frozen=True)
class Box:
    """An object in a picture."""

    label: str
    """Its class."""
    corners: tuple[float, float, float, float]
    """X0, y0, x1, y1, in pixels or, where the format has them so, as shares of the picture."""
    where: str
    """Its place in the file of annotations: "line 3", "annotation 17"."""


@dataclass(frozen=True)
class Annotated:
    """A picture and its objects."""

    path: Path
    """The picture's file."""
    name: str
    """How the dataset calls it."""
    split: str | None
    """Its split, or None if nothing says."""
    boxes: Sequence[Box]
    """Its objects; there may be none."""
    source: Path
    """The file of annotations."""
    size: tuple[int, int] | None = None
    """Height and width, if the annotations say so."""
    shares: bool = False
    """Whether the boxes are shares of the picture."""


@dataclass
class Annotations:
    """What a reader found."""

    pictures: list[Annotated] = field(default_factory=list)
    """In the order of the files."""
    class_names: list[str] = field(default_factory=list)
    """In the order of their labels."""
    notes: list[str] = field(default_factory=list)
    """What was changed or left out by intent; a line for people each."""
    broken: list[Broken] = field(default_factory=list)
    """What cannot be used, and why."""


def split_of_name(path: Path) -> str | None:
    """The split that a word of a file's name tells, or else its folder: "instances_val2017.json", "train/a.json"."""
    words = re.findall("[a-z]+", path.stem.lower())
    found = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
    return found[0] if found else SPLIT_NAMES.get(path.parent.name.lower())


def split_of_folders(name: str) -> str | None:
    """The split that one of the folders in a relative path tells: "images/train2017/a.jpg"."""
    for part in PurePosixPath(name).parts[:-1]:
        match = re.fullmatch(r"([a-z]+?)[-_.]?\d*", part.lower())
        if match and match[1] in SPLIT_NAMES:
            return SPLIT_NAMES[match[1]]
    return None


def find_picture(name: str, folders: Iterable[Path]) -> Path | None:
    """The first of `folders` / `name` that is a file; a name may not lead out of its folder."""
    relative = PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or not relative.parts or ":" in relative.parts[0]:
        return None
    return next((folder / relative for folder in folders if isfile(folder / relative)), None)


def picture_of_stem(stem: str, folders: Iterable[Path]) -> Path | None:
    """The first picture in `folders` whose name is `stem` with an extension of pictures."""
    for folder in folders:
        for extension in sorted(EXTENSIONS):
            for name in (f"{stem}{extension}", f"{stem}{extension.upper()}"):
                if isfile(folder / name):
                    return folder / name
    return None


def pictures_below(folder: Path) -> list[Path]:
    """All pictures in a folder and the folders in it, by their names, sorted; without hidden ones."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in EXTENSIONS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def lines_in(path: Path) -> list[str]:
    """A file's lines, without spaces around, and without empty ones at its end.

    Raises:
      UserError: it is no text.
    """
    try:
        lines = [line.strip() for line in lines_of(read_text(path))]
    except NotText as error:
        raise UserError(f"{path}: {error}") from error
    while lines and not lines[-1]:
        lines.pop()
    return lines


def four_numbers(values: Any) -> tuple[float, float, float, float] | None:
    """Four numbers (that may be pixels), or None."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 4:
        return None
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) or not abs(v) < 1e9 for v in values):
        return None
    return tuple(map(float, values))  # type: ignore[return-value]


def check_split_names(pictures: Sequence[Annotated], source: Path) -> None:
    """Refuses splits for some pictures only."""
    without = [picture for picture in pictures if picture.split is None]
    if without and len(without) < len(pictures):
        split = next(picture.split for picture in pictures if picture.split is not None)
        raise UserError(
            f"{source}: {without[0].name} is in no split, and others are in {split!r}; put all of them into splits "
            "named train, validation (val), test, or none"
        )
