"""A user's files: finding them, the splits that their names tell, and reading texts."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from jaxformer.errors import UserError
from jaxformer.files import IMAGE_EXTENSIONS, BrokenFile, located, read_text

# A file, and what is wrong with it or with a line of it: "line 7: label is empty".
Broken: TypeAlias = tuple[Path, str]

SYSTEM_FILES = {"desktop.ini", "thumbs.db"}
SPLITS = ("train", "validation", "test")

# The names of folders and files that tell a split.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
SPLIT_SUFFIXES = SPLIT_NAMES | {"testa": "validation", "testb": "test"}  # those of CoNLL-2003

# "train", "dev-v1.1", "test_2016_flickr", "train-00000-of-00002"; not "test-driven-development".
NAMED = re.compile(rf"({'|'.join(SPLIT_NAMES)})([-_.]?v?\d[\w.-]*)?", re.IGNORECASE)


@dataclass(frozen=True)
class File:
    """A file to import."""

    path: Path
    """Where it is."""
    name: str
    """What the dataset calls it: its path in the source's folder, with "/"."""
    split: str | None
    """Its split, or None if no name says which."""


@dataclass(frozen=True)
class Sources:
    """What the user gave, and what of it cannot be used."""

    paths: tuple[Path, ...]
    """Files and folders, as they were given; all of them exist."""
    extensions: frozenset[str] = frozenset()
    """Which files to take from folders (".txt"); none takes all."""
    broken: list[Broken] = field(default_factory=list)
    """Takes what can be left out: files, lines, objects."""

    def one(self, what: str) -> Path:
        """The only source.

        Args:
          what: what is expected, in words.

        Raises:
          UserError: there are more sources.
        """
        if len(self.paths) > 1:
            raise UserError(f"{self.paths[1]}: is one source too many; {what}")
        return self.paths[0]

    def files(self) -> list[File]:
        """The files, and those in folders, with their splits.

        Folders named train, validation (val, dev) or test tell the splits of the files in them; so do files of such
        names. Where everything is for training, no split is told.

        Raises:
          UserError: there is no such file, or folders are beside those of splits.
        """
        found: list[File] = []
        for source in self.paths:
            if source.is_dir():
                found += self._in_folder(source)
            else:
                found.append(File(source, source.name, split_of_file(source)))
        if not found:
            wanted = f"no {', '.join(sorted(self.extensions))} files" if self.extensions else "no files"
            raise UserError(f"{', '.join(map(str, self.paths))}: {wanted} in there")
        seen: set[Path] = set()
        for file in found:
            if file.path in seen:
                raise UserError(f"{file.path}: is given twice; name every file once")
            seen.add(file.path)
        if {file.split for file in found} == {"train"}:
            return [replace(file, split=None) for file in found]
        return found

    def _in_folder(self, root: Path) -> list[File]:
        """The files below a folder, by name."""
        folders, loose = subfolders(root), files(root)
        named = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
        others = [folder for folder in folders if folder not in named] + loose
        if named and others:
            raise UserError(
                f"{root}: {listing(others)} beside {listing(named)}; expected folders of splits, or none"
            )
        splits = {path: split_of_file(path) for path in loose}
        for folder in folders:
            split = SPLIT_NAMES[folder.name.lower()] if named else None
            splits |= dict.fromkeys(files_below(folder, frozenset({root.resolve()})), split)
        found = []
        for path, split in splits.items():
            if self.extensions and path.suffix.lower() not in self.extensions:
                self.broken.append((path, f"is not one of {', '.join(sorted(self.extensions))} by its name"))
            else:
                found.append(File(path, path.relative_to(root).as_posix(), split))
        return found

    def read(self, file: Path, may_be_empty: bool = False) -> str | None:
        """A file's text; None if it is none, which goes to `broken`."""
        try:
            return read_text(file, may_be_empty)
        except BrokenFile as error:
            self.broken.append((file, error.reason))
            return None

    def texts(self) -> Iterator[tuple[File, str]]:
        """The files with their texts; those that are no text go to `broken`."""
        for file in self.files():
            text = self.read(file.path)
            if text is not None:
                yield file, text


def refuse(broken: Sequence[Broken]) -> None:
    """Raises a UserError that names the first of what is broken, and how many more there are, and where."""
    if not broken:
        return
    elsewhere = [path for path in dict.fromkeys(path for path, _ in broken) if path != broken[0][0]]
    where = f": {listing(elsewhere)}" if elsewhere else ""
    more = f" (and {len(broken) - 1:,} more{where})" if len(broken) > 1 else ""
    raise UserError(
        f"{located(*broken[0])}{more}; repair it, or leave out what is broken with `skip_broken=True`"
    )


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def files(folder: Path) -> list[Path]:
    """The files in a folder, sorted, without hidden ones and those that systems leave everywhere."""
    there = (path for path in folder.iterdir() if not path.is_dir() and not path.name.startswith("."))
    return sorted(path for path in there if path.name.lower() not in SYSTEM_FILES)


def files_below(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All files in a folder and in the folders in it, in a fixed order; links back to `above` are not taken."""
    real = folder.resolve()
    if real not in above:
        yield from files(folder)
        for inner in subfolders(folder):
            yield from files_below(inner, above | {real})


def sorted_below(folder: Path, extensions: Collection[str] = IMAGE_EXTENSIONS) -> list[Path]:
    """All files of these extensions (images) in a folder and the folders in it, sorted by path."""
    return sorted(path for path in files_below(folder) if path.suffix.lower() in extensions)


def listing(paths: Sequence[Path], most: int = 3) -> str:
    """The names of a few paths: "a.png, b.png, c.png and 7 more"."""
    names = ", ".join(path.name for path in paths[:most])
    return names if len(paths) <= most else f"{names} and {len(paths) - most} more"


def split_of_file(path: Path) -> str | None:
    """The split that a file's name tells: "train.csv", "dev-v1.1.json", "test_2016.en.txt", "eng.testb"."""
    stem = path.name.removesuffix(path.suffix)
    for name in (stem, stem.split(".")[0]):
        match = NAMED.fullmatch(name)
        if match:
            return SPLIT_NAMES[match[1].lower()]
    return SPLIT_SUFFIXES.get(path.suffix.lower().removeprefix("."))


def split_of_folders(name: str) -> str | None:
    """The split that one of the folders in a relative path tells: "images/train2017/a.jpg"."""
    for part in PurePosixPath(name).parts[:-1]:
        match = NAMED.fullmatch(part)
        if match:
            return SPLIT_NAMES[match[1].lower()]
    return None


def split_of_words(path: Path) -> str | None:
    """The split that a word of a file's name tells, or else its folder: "instances_val2017.json", "train/a.json"."""
    words = re.findall("[a-z]+", path.stem.lower())
    found = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
    return found[0] if found else SPLIT_NAMES.get(path.parent.name.lower())
