"""Turns a user's own files into a TFDS dataset, which any config can then name: find, read, check, split, write."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from jaxformer.config.schema import did_you_mean, load
from jaxformer.data.catalog import data_folder
from jaxformer.data.digits import NAME as DIGITS
from jaxformer.data.writing import write_dataset
from jaxformer.errors import UserError
from jaxformer.files import writing_to
from jaxformer.importing.contents import Contents, Example, into_splits, without_copies
from jaxformer.importing.formats import FORMATS
from jaxformer.importing.sources import Broken, Sources, refuse

VERSION = "1.0.0"


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
      **options: those of the format's function; None counts as not given.

    Raises:
      UserError: the name is taken or impossible, or something is wrong with a file; says what and where.
    """
    if kind not in FORMATS:
        raise UserError(f"`kind` {kind!r}: is no format; {did_you_mean(kind, FORMATS)}")
    given = given_options(kind, options)
    folder, _ = data_folder(data_dir)
    check_name(name, folder)
    if test_share is not None and not 0 <= test_share < 1:
        raise UserError(f"`test_share` {test_share}: must be at least 0 and less than 1")
    paths = tuple(Path(s) for s in ([sources] if isinstance(sources, (str, Path)) else sources))
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: there is no such folder or file")
    found = Sources(paths, FORMATS[kind].extensions)
    contents = cast(Callable[..., Contents], load(FORMATS[kind].read))(found, **given)
    contents.examples, copies = without_copies(contents.examples, found.broken)
    if not skip_broken:
        refuse(found.broken)
    if not contents.examples:
        raise UserError(f"{paths[0]}: no examples are left")
    split = contents.examples[0].file.split
    if test_share and split is not None:
        raise UserError(
            f"`test_share` {test_share}: the files have splits already ({contents.examples[0].file.path}: {split}); "
            "leave `test_share` out"
        )
    splits = into_splits(contents, paths[0], FORMATS[kind].test_share if test_share is None else test_share)
    notes = contents.notes + contents.check(splits["train"], paths[0])
    place = write(contents, splits, name, folder)
    counts = {split: len(members) for split, members in splits.items()}
    return Imported(
        name, place, counts, list(contents.features), contents.class_names, notes, found.broken, copies
    )


def given_options(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not None.

    Raises:
      UserError: an option belongs to another format, or to none.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        kinds = [other for other, format in FORMATS.items() if name in format.options]
        if not kinds:
            raise UserError(f"`{name}`: is an option of no format; leave it out")
        if kind not in kinds:
            raise UserError(f"`{name}`: is for {', '.join(kinds)}, not for {kind}; leave it out")
    return given


def check_name(name: str, folder: Path) -> None:
    """Refuses names that TFDS does not take, or that are taken."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"name {name!r}: use lower-case letters, digits and underscores, as in 'my_flowers'")
    if name == DIGITS:
        raise UserError(f"name {name!r}: is the embedded dataset's; choose another")
    if (folder / name).exists():
        raise UserError(f"name {name!r}: {folder / name} is there already; remove it, or choose another name")


def write(contents: Contents, splits: Mapping[str, list[Example]], name: str, folder: Path) -> Path:
    """Writes the dataset; images are read a second time, so that memory stays small."""

    def written(members: list[Example]) -> Iterator[dict[str, Any]]:
        for example in members:
            yield {key: value() if callable(value) else value for key, value in example.values.items()}

    count = sum(map(len, splits.values()))
    classes = f" of {len(contents.class_names)} classes" if contents.class_names else ""
    with writing_to(folder, "name another folder with `data_dir`"):
        return write_dataset(
            folder,
            name,
            VERSION,
            contents.features,
            {split: written(members) for split, members in splits.items()},
            description=f"Imported by jaxformer: {count:,} examples{classes}.",
        )
