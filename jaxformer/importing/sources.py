"""A user's files: finding them, the splits that their names tell, and what of them cannot be used."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from jaxformer.data.names import class_name
from jaxformer.errors import UserError
from jaxformer.reading import IMAGE_EXTENSIONS, BrokenFile, read_text

# A file, and what is wrong with it or with a line of it: "line 7: label is empty".
Broken: TypeAlias = tuple[Path, str]

SYSTEM_FILES = {"desktop.ini", "thumbs.db"}
SPLITS = ("train", "validation", "test")

# The names of folders and files that tell a split.
SPLIT_NAMES = (
    dict.fromkeys(("train", "training"), "train")
    | dict.fromkeys(("val", "valid", "validation", "dev"), "validation")
    | dict.fromkeys(("test", "testing"), "test")
)
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

    def __post_init__(self) -> None:
        try:
            self.name.encode()
        except UnicodeEncodeError as error:
            raise BrokenFile(self.path, f"its name, {self.name!r}, is not UTF-8; rename it") from error


@dataclass(frozen=True)
class Sources:
    """What the user gave, and what of it cannot be used."""

    paths: tuple[Path, ...]
    """Files and folders, as they were given; all of them exist."""
    extensions: frozenset[str] = frozenset()
    """The extensions of the files to take from folders (".txt"); an empty set takes all files."""
    broken: list[Broken] = field(default_factory=list)
    """What can be left out: files, lines, objects."""
    written: dict[str, dict[Any, None]] = field(default_factory=dict)
    """How the files write the names of classes, by class."""

    def class_of(self, name: Any, where: str = "") -> str:
        """The class that a name in a file means; raises ValueError as `class_name` does."""
        key = class_name(name, where)
        self.written.setdefault(key, {})[name] = None
        return key

    def spelling_notes(self) -> Iterator[str]:
        """A line for each class whose name is written in several ways."""
        for key, ways in self.written.items():
            if len(ways) > 1:
                yield f"one class, {key!r}: it is written as {' and '.join(map(ascii, ways))}"

    @contextmanager
    def checking(self, path: Path, where: str = "") -> Iterator[None]:
        """Adds what is raised inside to `broken`, and goes on behind it.

        Args:
          path: the file that a ValueError is about; a BrokenFile names its own.
          where: the place in the file: "line 3", "annotations[17]".
        """
        try:
            yield
        except BrokenFile as error:
            self.broken.append((error.path, error.reason))
        except ValueError as error:
            self.broken.append((path, f"{where}: {error}" if where else str(error)))

    def one(self, what: str) -> Path:
        """The only source; refuses more of them, and says `what` is expected."""
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
            single = [File(source, source.name, split_of_file(source))]
            found += self._in_folder(source) if source.is_dir() else single
        if not found:
            wanted = f"no {', '.join(sorted(self.extensions))} files" if self.extensions else "no files"
            raise UserError(f"{', '.join(map(str, self.paths))}: {wanted} in there")
        path, times = Counter(file.path for file in found).most_common(1)[0]
        if times > 1:
            raise UserError(f"{path}: is given twice; name every file once")
        return unless_all_train(found)

    def _in_folder(self, root: Path) -> Iterator[File]:
        """The files below a folder, by name."""
        _, loose = entries(root)
        named, others = split_folders(root, loose, "splits, or none")
        splits = {path: split_of_file(path) for path in loose}
        for folder in sorted([*named, *others]):
            splits |= dict.fromkeys(files_below(folder, frozenset({root.resolve()})), named.get(folder))
        for path, split in splits.items():
            if self.extensions and path.suffix.lower() not in self.extensions:
                self.broken.append((path, f"is not one of {', '.join(sorted(self.extensions))} by its name"))
            else:
                yield File(path, path.relative_to(root).as_posix(), split)

    def read(self, file: Path) -> str | None:
        """A file's text; None if it is none, which goes to `broken`."""
        with self.checking(file):
            return read_text(file)
        return None

    def texts(self) -> Iterator[tuple[File, str]]:
        """The files with their texts; those that are no text go to `broken`."""
        for file in self.files():
            text = self.read(file.path)
            if text is not None:
                yield file, text


def entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files in a folder, sorted, without hidden ones and those that systems leave everywhere."""
    there = sorted(p for p in folder.iterdir() if p.name[0] != "." and p.name.lower() not in SYSTEM_FILES)
    return [p for p in there if p.is_dir()], [p for p in there if not p.is_dir()]


def files_below(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All files in a folder and in the folders in it, in a fixed order; links back to `above` are not taken."""
    real = folder.resolve()
    if real not in above:
        folders, files = entries(folder)
        yield from files
        for inner in folders:
            yield from files_below(inner, above | {real})


def find_all(folder: Path, extensions: Collection[str] = IMAGE_EXTENSIONS) -> list[Path]:
    """All files of these extensions (images) in a folder and the folders in it, sorted by path."""
    return sorted(path for path in files_below(folder) if path.suffix.lower() in extensions)


def listing(paths: Sequence[Path], most: int = 3) -> str:
    """The names of a few paths: "a.png, b.png, c.png and 7 more"."""
    names = ", ".join(path.name for path in paths[:most])
    return names if len(paths) <= most else f"{names} and {len(paths) - most} more"


def split_folders(root: Path, loose: Sequence[Path], expected: str) -> tuple[dict[Path, str], list[Path]]:
    """The folders of splits in a folder, with their splits, and its other folders; there may be one kind only.

    Args:
      root: the folder.
      loose: files in it that may not lie beside folders of splits.
      expected: what folders there may be, for the message.
    """
    folders, _ = entries(root)
    named = {path: SPLIT_NAMES[name] for path in folders if (name := path.name.lower()) in SPLIT_NAMES}
    others = [path for path in folders if path not in named]
    if named and (others or loose):
        beside = listing([*others, *loose])
        raise UserError(f"{root}: {beside} beside {listing(list(named))}; expected folders of {expected}")
    return named, others


def unless_all_train(found: list[File]) -> list[File]:
    """The files; without their splits where all are for training, so that a share can be held out."""
    if {file.split for file in found} != {"train"}:
        return found
    return [replace(file, split=None) for file in found]


def split_named(name: str) -> str | None:
    """The split that a name tells: "train", "val2017", "dev-v1.1"."""
    match = NAMED.fullmatch(name)
    return SPLIT_NAMES[match[1].lower()] if match else None


def split_of_file(path: Path) -> str | None:
    """The split that a file's name tells: "train.csv", "dev-v1.1.json", "test_2016.en.txt", "eng.testb"."""
    suffix = path.suffix.lower().removeprefix(".")
    stem = path.name.removesuffix(path.suffix)
    return split_named(stem) or split_named(stem.split(".")[0]) or SPLIT_SUFFIXES.get(suffix)


def split_of_folders(name: str) -> str | None:
    """The split that one of the folders in a relative path tells: "images/train2017/a.jpg"."""
    return next(filter(None, map(split_named, PurePosixPath(name).parts[:-1])), None)
