"""Turns a user's own text files into a TFDS dataset, which any config can then name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jaxformer.data.catalog import data_folder
from jaxformer.data.importing import VERSION, Imported, check_name
from jaxformer.data.text.format_conll import ConllFormat
from jaxformer.data.text.format_csv import CsvFormat
from jaxformer.data.text.format_files import find_files
from jaxformer.data.text.format_jsonl import JsonLinesFormat
from jaxformer.data.text.format_pairs import PairsFormat
from jaxformer.data.text.format_squad import SquadFormat
from jaxformer.data.text.format_text import TextFormat
from jaxformer.data.text.formats import Broken, Example, Format, Parsed, refuse
from jaxformer.data.writing import write_dataset
from jaxformer.errors import UserError

FORMATS: dict[str, type] = {
    "text": TextFormat,
    "csv": CsvFormat,
    "jsonl": JsonLinesFormat,
    "pairs": PairsFormat,
    "conll": ConllFormat,
    "squad": SquadFormat,
}
OTHERS = {"segmentation": {"classes"}}  # options of kinds that are not of texts


@dataclass(frozen=True)
class ImportedText(Imported):
    """What an import of text files made."""

    features: list[str]
    """The examples' features."""
    notes: list[str]
    """What was changed or left out by intent; a line for people each."""


def make_format(kind: str, options: Mapping[str, Any]) -> Format:
    """The format `kind` with its options; those that are None were not given.

    Raises:
      UserError: an option belongs to another kind, or options contradict each other.
    """
    given = given_options(kind, options)
    made = FORMATS[kind](**given)
    problems = [f"--{problem}" for problem in made.problems()]
    if problems:
        raise UserError(*problems)
    return made


def given_options(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not None; refuses those that belong to another kind."""
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        kinds = [k for k, cls in FORMATS.items() if name in {field.name for field in fields(cls)}]
        kinds += [k for k, names in OTHERS.items() if name in names]
        if kind not in kinds:
            raise UserError(f"--{name}: is for {', '.join(kinds)}, not for {kind}; leave it out")
    return given


def import_text(
    sources: str | Path | Sequence[str | Path],
    name: str,
    format: Format,
    data_dir: str | None = None,
    test_share: float | None = None,
    skip_broken: bool = False,
) -> ImportedText:
    """Makes the TFDS dataset `name` of text files; it is there completely, or not at all.

    Where folders and file names tell no splits, a share becomes the split "test": the tail of plain texts, and
    always the same random examples of everything else. All files are read and checked, and held in memory,
    before anything is written.

    Args:
      sources: files, or folders of them.
      name: the new dataset's name: lower-case letters, digits and underscores.
      format: what the files are (`make_format`).
      data_dir: the folder of TFDS datasets; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      test_share: what is held out if there are no splits; 0 holds nothing out, None takes the format's.
      skip_broken: leave out what cannot be used, instead of refusing.

    Raises:
      UserError: the name is taken or impossible, or something is wrong with a file; says what and where.
    """
    paths = [Path(s) for s in ([sources] if isinstance(sources, (str, Path)) else sources)]
    folder, _ = data_folder(data_dir)
    check_name(name, folder)
    if test_share is not None and not 0 <= test_share < 1:
        raise UserError(f"test share {test_share}: must be at least 0 and less than 1")
    broken: list[Broken] = []
    files = find_files(paths, format.extensions, broken)
    if test_share and files[0].split is not None:
        raise UserError(
            f"test share {test_share}: the files have splits already ({files[0].path}: {files[0].split}); "
            "leave --test-share out"
        )
    parsed = format.read(files, broken)
    if not skip_broken:
        refuse(broken)
    if not parsed.examples:
        raise UserError(f"{paths[0]}: no examples are left")
    splits = into_splits(parsed.examples, format, format.test_share if test_share is None else test_share)
    check_splits(splits, parsed, paths[0])
    folder = write(splits, parsed, name, folder)
    counts = {split: len(members) for split, members in splits.items()}
    return ImportedText(
        name, folder, counts, parsed.class_names, broken, [], list(parsed.features), parsed.notes
    )


def into_splits(examples: list[Example], format: Format, share: float) -> dict[str, list[Example]]:
    """The files' splits; or train and test, as the format holds out."""
    if examples[0].split is None:
        train, test = format.hold_out(examples, share)
        return {"train": train} | ({"test": test} if test else {})
    splits: dict[str, list[Example]] = {}
    for split in ("train", "validation", "test"):
        members = [example for example in examples if example.split == split]
        if members:
            splits[split] = members
    return splits


def check_splits(splits: Mapping[str, list[Example]], parsed: Parsed, source: Path) -> None:
    """Refuses a dataset that nothing can be learnt from."""
    if "train" not in splits:
        raise UserError(f"{source}: no examples are left in train")
    if len(parsed.class_names) == 1:
        raise UserError(
            f"{source}: there is only the class {parsed.class_names[0]!r}; two are needed at least"
        )
    there = {example.label for example in splits["train"]}
    missing = [name for name in parsed.needed if name not in there]
    if missing:
        raise UserError(
            f"{source}: no example in train for {', '.join(missing)}; check how classes are spelt"
        )


def write(splits: Mapping[str, list[Example]], parsed: Parsed, name: str, folder: Path) -> Path:
    """Writes the dataset."""
    count = sum(map(len, splits.values()))
    try:
        return write_dataset(
            folder,
            name,
            VERSION,
            parsed.features,
            {split: [example.values for example in members] for split, members in splits.items()},
            description=f"Texts imported by jaxformer: {count:,} examples.",
        )
    except OSError as error:
        raise UserError(f"cannot write the dataset into {folder}: {error.strerror or error}") from error
