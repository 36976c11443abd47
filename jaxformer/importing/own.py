"""Files of a user's own in the place of a dataset's name: "csv:reviews.csv", "folder:pictures/".

They are imported once, into a cache that is keyed by what the files hold; then they are a dataset like any other.
"""

import hashlib
import logging
import re
from collections.abc import Iterator
from os.path import exists
from pathlib import Path

from jaxformer.config.schema import did_you_mean
from jaxformer.data.base import DatasetConfig
from jaxformer.data.catalog import Prepared
from jaxformer.data.records import ENDS, WHOLE
from jaxformer.data.text.cache import cache_folder
from jaxformer.errors import UserError
from jaxformer.importing.formats import FORMATS
from jaxformer.importing.formats.asked import Asked
from jaxformer.importing.hub import files_of
from jaxformer.importing.pipeline import VERSION, import_dataset
from jaxformer.importing.sources import files_below

logger = logging.getLogger("jaxformer")
HUB = "hf"  # the word before the name of a dataset of the Hub
KINDS = {"folder": "images", HUB: "parquet", **{name: name for name in FORMATS}}
MADE = 1  # by this version of the import: a change of what it makes needs a new number


def prepared(config: DatasetConfig) -> Prepared:
    """The dataset of the files that `config.name` names, imported if it is not in the cache.

    A share is held out as the split "test" where names of files and folders tell no splits: always the same examples.
    Of tables the columns are taken that `config.examples` names, or that look like them.

    Raises:
      UserError: there is no such kind of files, or no such file, or something is wrong in it: says what and where.
    """
    word, _, place = config.name.partition(":")
    if word not in KINDS:
        raise UserError(
            f"data.name: {config.name!r}: there is no kind {word!r} of files; {did_you_mean(word, KINDS)}"
        )
    folder = cache_folder().parent / "datasets"
    path = files_of(place, folder / ".hub") if word == HUB else Path(place).expanduser()
    if not place:
        raise UserError(f"data.name: {config.name!r}: names nothing; write a path behind the colon")
    if not exists(path):
        raise UserError(f"data.name: {path}: there is no such file or folder")
    kind, columns = KINDS[word], config.examples.table_columns
    if word == HUB and not any(path.glob("*.parquet")):
        kind = "images"
    asked = Asked(columns) if "label" in FORMATS[kind].options and columns else None
    name = f"{named(Path(place))}_{key(path, f'{MADE} {kind} {asked}')}"
    if not (folder / name / VERSION / "dataset_info.json").exists():
        bring(config.name, kind, path, name, folder, asked)
    return Prepared(name, VERSION, folder / name / VERSION, config.name)


def bring(source: str, kind: str, path: Path, name: str, folder: Path, asked: Asked | None) -> None:
    """Imports files, and logs what came of them."""
    try:
        made = import_dataset(kind, path, name, str(folder), asked=asked)
    except UserError as error:
        if (folder / name / VERSION / "dataset_info.json").exists():  # another process was quicker
            return
        remedy = [f"`jaxformer data import {kind} {path} ...` has options for that"]
        raise UserError(*error.lines, *(remedy if "`" in str(error) else [])) from error
    splits = ", ".join(f"{count:,} {split}" for split, count in made.splits.items())
    classes = f"; classes: {', '.join(made.class_names)}" if made.class_names else ""
    logger.info("%s: %s%s; kept in %s", source, splits, classes, made.folder)
    for note in made.notes:
        logger.info("%s: %s", source, note)


def named(path: Path) -> str:
    """What a dataset of these files is called, as far as TFDS takes it: "My Reviews.csv" is "my_reviews"."""
    plain = re.sub("[^a-z0-9]+", "_", path.resolve().stem.lower()).strip("_")[:60]
    return plain if plain[:1].isalpha() else f"own_{plain}".rstrip("_")


def key(path: Path, settings: str) -> str:
    """A hash of files and of how they are read; of files of more than 64 MiB together, of their ends and times."""
    digest = hashlib.sha256(settings.encode())
    files = dict(sorted(below(path)))
    whole = sum(file.stat().st_size for file in files.values()) <= WHOLE
    for name, file in files.items():
        about = file.stat()
        digest.update(f"\n{name}\n{about.st_size}\n".encode(errors="surrogateescape"))
        with file.open("rb") as opened:
            if whole:
                digest.update(opened.read())
            else:
                digest.update(f"{about.st_mtime_ns}".encode() + opened.read(ENDS))
    return digest.hexdigest()[:16]


def below(path: Path) -> Iterator[tuple[str, Path]]:
    """The regular files at a path, each with its name in there."""
    for file in files_below(path) if path.is_dir() else [path]:
        if file.is_file():
            yield file.relative_to(path).as_posix() if path.is_dir() else file.name, file
