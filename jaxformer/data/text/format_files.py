"""Finds a user's text files, and the splits that folders and file names tell."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from jaxformer.data.scanning import SPLIT_FOLDERS, files, listing, subfolders
from jaxformer.data.text.formats import Broken, TextFile
from jaxformer.errors import UserError

SPLIT_NAMES = SPLIT_FOLDERS | {"dev": "validation"}
SPLIT_SUFFIXES = SPLIT_NAMES | {"testa": "validation", "testb": "test"}  # those of CoNLL-2003

# "train", "dev-v1.1", "test_2016_flickr", "train-00000-of-00002"; not "test-driven-development".
NAMED = re.compile(rf"({'|'.join(SPLIT_NAMES)})([-_.]?v?\d[\w.-]*)?", re.IGNORECASE)


def find_files(sources: Sequence[Path], extensions: Collection[str], broken: list[Broken]) -> list[TextFile]:
    """Files, and those in folders, with their splits.

    Folders named train, validation (val, dev) or test tell the splits of the files in them; so do files of
    such names. Where everything is training data, no split is told.

    Args:
      sources: files, which are taken whatever their extensions are, and folders.
      extensions: which files to take from folders (".txt"); none takes all.
      broken: takes the others.

    Raises:
      UserError: there is no such file, or the names of splits contradict each other; says where.
    """
    found: list[TextFile] = []
    for source in sources:
        if source.is_dir():
            found += in_folder(source, extensions, broken)
        elif source.is_file():
            found.append(TextFile(source, source.name, split_of(source)))
        else:
            raise UserError(f"{source}: there is no such folder or file")
    if not found:
        wanted = f"no {', '.join(sorted(extensions))} files" if extensions else "no files"
        raise UserError(f"{', '.join(map(str, sources))}: {wanted} in there")
    seen: set[Path] = set()
    for file in found:
        if file.path in seen:
            raise UserError(f"{file.path}: is given twice; name every file once")
        seen.add(file.path)
    return settle_splits(found)


def in_folder(root: Path, extensions: Collection[str], broken: list[Broken]) -> list[TextFile]:
    """The files below a folder, by name; hidden ones are not seen."""
    folders, loose = subfolders(root), files(root)
    named = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    others = [folder for folder in folders if folder not in named] + loose
    if named and others:
        raise UserError(
            f"{root}: {listing(others)} beside {listing(named)}; expected folders of splits, or none"
        )
    splits = {path: split_of(path) for path in loose}
    for folder in folders:
        split = SPLIT_NAMES[folder.name.lower()] if named else None
        splits |= dict.fromkeys(below(folder, frozenset({root.resolve()})), split)
    found = []
    for path, split in splits.items():
        if extensions and path.suffix.lower() not in extensions:
            broken.append((path, f"is not one of {', '.join(sorted(extensions))} by its name"))
        else:
            found.append(TextFile(path, path.relative_to(root).as_posix(), split))
    return found


def below(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """All files in a folder and in the folders in it, in a fixed order; links back to `above` are not taken."""
    real = folder.resolve()
    if real not in above:
        yield from files(folder)
        for inner in subfolders(folder):
            yield from below(inner, above | {real})


def split_of(path: Path) -> str | None:
    """The split that a file's name tells: "train.csv", "dev-v1.1.json", "test_2016.en.txt", "eng.testb"."""
    stem = path.name.removesuffix(path.suffix)
    for name in (stem, stem.split(".")[0]):
        match = NAMED.fullmatch(name)
        if match:
            return SPLIT_NAMES[match[1].lower()]
    return SPLIT_SUFFIXES.get(path.suffix.lower().removeprefix("."))


def settle_splits(found: list[TextFile]) -> list[TextFile]:
    """Refuses splits for some files only, and splits without training data."""
    named = [file.path for file in found if file.split is not None]
    unnamed = [file.path for file in found if file.split is None]
    if named and unnamed:
        raise UserError(
            f"{named[0]}: names a split, and {listing(unnamed)} none; name all of them train, validation or "
            "test, or put them into folders of these names, or name none so"
        )
    splits = {file.split for file in found}
    if splits == {"train"}:
        return [replace(file, split=None) for file in found]
    if named and "train" not in splits:
        raise UserError(
            f"{named[0]}: there is {' and '.join(sorted(map(str, splits)))}, but no train; add it, or rename "
            "the file"
        )
    return found
