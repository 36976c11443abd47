"""Turns a user's own files into a TFDS dataset, which any config can then name: find, read, check, split, write."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os.path import exists  # is False for names that no file can have
from pathlib import Path
from typing import Any, cast

from jaxformer.config.schema import did_you_mean, load
from jaxformer.data.catalog import EMBEDDED, data_folder
from jaxformer.data.writing import write_dataset
from jaxformer.errors import UserError, counted
from jaxformer.files import writing_to
from jaxformer.importing.contents import Contents, Example, checked_names, into_splits, without_copies
from jaxformer.importing.formats import FORMATS
from jaxformer.importing.formats.asked import Asked
from jaxformer.importing.images import remarks
from jaxformer.importing.sources import Broken, Sources
from jaxformer.reading import located

VERSION = "1.0.0"
PLACE = re.compile(r"line \d+|\w+\[\d+\]")  # what the reason for leaving something out may begin with
FEW = 5  # places of what is broken that a message names


@dataclass(frozen=True)
class Imported:
    """What an import made."""

    name: str
    """The dataset's name, for `data.name`."""
    folder: Path
    """Where it is."""
    splits: dict[str, int]
    """The number of examples by split."""
    features: list[str]
    """The examples' features."""
    class_names: list[str]
    """The classes, in the order of their labels."""
    notes: list[str]
    """What was changed or left out by intent; a line for people each."""
    broken: list[Broken]
    """What was left out because it cannot be used, and why (only with `skip_broken`)."""
    duplicates: list[Path]
    """Images that were left out because another one has the same bytes."""


def import_dataset(
    kind: str,
    sources: str | Path | Sequence[str | Path],
    name: str,
    data_dir: str | None = None,
    test_share: float | None = None,
    skip_broken: bool = False,
    asked: Asked | None = None,
    **options: Any,
) -> Imported:
    """Makes the TFDS dataset `name` of the user's files; it is there completely, or not at all.

    Where names of files and folders tell no splits, a share becomes the split "test": always the same examples.

    Args:
      kind: what the files are, a key of `formats.FORMATS`.
      sources: files or folders; which, depends on the format.
      name: the new dataset's name: lower-case letters, digits and underscores.
      data_dir: the folder of TFDS datasets; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      test_share: the share that is held out if there are no splits; 0 holds nothing out, None takes the format's.
      skip_broken: leave out what cannot be used (files, lines, objects), instead of refusing.
      asked: the columns of a table that a config asks for; None: the options say what is kept.
      **options: those of the format's function; None counts as not given.

    Raises:
      UserError: the name is taken or impossible, or something is wrong with a file; says what and where.
    """
    if kind not in FORMATS:
        raise UserError(f"`kind` {kind!r}: is no format; {did_you_mean(kind, FORMATS)}")
    format = FORMATS[kind]
    given = given_options(kind, options) | ({} if asked is None else {"asked": asked})
    folder, _ = data_folder(data_dir)
    check_name(name, folder)
    if test_share is not None and not 0 <= test_share < 1:
        raise UserError(f"`test_share` {test_share}: must be at least 0 and less than 1")
    paths = tuple(map(Path, [sources] if isinstance(sources, (str, Path)) else sources))
    for path in paths:
        if not exists(path):
            raise UserError(f"{path}: there is no such folder or file")
    found = Sources(paths, format.extensions)
    contents = cast(Callable[..., Contents], load(format.read))(found, **given)
    examples, copies = without_copies(contents.examples, found.broken)
    if found.broken and not skip_broken:
        refuse(found.broken)
    if not examples:
        raise UserError(f"{paths[0]}: no examples are left")
    if test_share and (split := examples[0].file.split) is not None:
        raise UserError(
            f"`test_share` {test_share}: the files have splits already ({examples[0].file.path}: {split}); "
            "leave `test_share` out"
        )
    share = format.test_share if test_share is None else test_share
    splits = into_splits(examples, contents.hold_out, share, paths[0])
    seen = frozenset().union(*(example.classes or {example.label} for example in splits["train"]))
    spellings = list(found.spelling_notes())
    try:
        notes = [*spellings, *contents.notes, *contents.check(contents.class_names, seen, paths[0])]
    except UserError as error:
        raise UserError(*error.lines, *spellings[:1]) from error
    notes += remarks((example.image, example.label) for example in examples if example.image)
    if share and "test" not in splits and examples[0].file.split is None:
        few = f"of {counted(len(examples), 'example')} no share of {share:g} can be held out"
        notes.append(f"there is no split test: {few}; take a larger `test_share`, or more examples")
    names = contents.class_names
    of_classes = f" of {counted(len(names), 'class', 'classes')}" if names else ""
    about = f"Imported by jaxformer: {counted(len(examples), 'example')}{of_classes}."
    values = {split: written(members) for split, members in splits.items()}
    with writing_to(folder, "name another folder with `data_dir`"):
        try:
            place = write_dataset(folder, name, VERSION, contents.features, values, about)
        except FileExistsError:
            check_name(name, folder)  # another import was quicker
            raise
    counts = {split: len(members) for split, members in splits.items()}
    return Imported(name, place, counts, list(contents.features), names, notes, found.broken, copies)


def given_options(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not None.

    Raises:
      UserError: an option belongs to another format, or to none; or one of `classes` cannot be.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        kinds = [other for other, format in FORMATS.items() if name in format.options]
        if not kinds:
            raise UserError(f"`{name}`: is an option of no format; leave it out")
        if kind not in kinds:
            raise UserError(f"`{name}`: is for {', '.join(kinds)}, not for {kind}; leave it out")
    if "classes" in given:
        given["classes"] = checked_names("`classes`", given["classes"])
    return given


def check_name(name: str, folder: Path) -> None:
    """Refuses names that TFDS does not take, or that are taken."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,99}", name):
        expected = "lower-case letters, digits and underscores, at most 100, as in 'my_flowers'"
        raise UserError(f"name {name!r}: use {expected}")
    if name in EMBEDDED:
        raise UserError(f"name {name!r}: is an embedded dataset's; choose another")
    if (place := folder / name).exists() and not (place.is_dir() and not any(place.iterdir())):
        raise UserError(f"name {name!r}: {folder / name} is there already; remove it, or choose another name")


def refuse(broken: Sequence[Broken]) -> None:
    """Raises a UserError that names the first of what is broken, and how many more there are, and where."""
    (first, _), *others = broken
    places = [PLACE.match(reason) if path == first else [path.name] for path, reason in others]
    named = list(dict.fromkeys(place[0] for place in places if place))
    where = f": {', '.join(named[:FEW])}{', ...' * (len(named) > FEW)}" if named else ""
    more = f" (and {len(others):,} more{where})" if others else ""
    remedy = "repair it, or leave out what is broken with `skip_broken=True`"
    raise UserError(f"{located(*broken[0])}{more}; {remedy}")


def written(examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
    """The values of examples; images are read a second time, so that memory stays small."""
    for example in examples:
        yield {key: value() if callable(value) else value for key, value in example.values.items()}
