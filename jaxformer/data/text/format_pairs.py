"""Pairs of lines: two files side by side, or one whose lines have a tab in the middle."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jaxformer.data.text.formats import (
    Broken,
    Example,
    NotText,
    Parsed,
    TextFile,
    counted,
    lines_of,
    read_text,
)
from jaxformer.data.text.importing_splits import random_share
from jaxformer.errors import UserError

# The suffixes that name a language ("en", "pt-br") or a side ("src").
LANGUAGE = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z]{2,8})?")
NO_LANGUAGE = {"txt", "text", "tsv", "csv", "tok", "raw", "data"}


@dataclass(frozen=True)
class PairsFormat:
    """Lines and their translations (or whatever belongs together) as two texts.

    Files side by side end with what names the two features ("train.en" and "train.de", also "train.en.txt");
    otherwise these are "source" and "target", as in a file of lines with a tab.
    """

    extensions: ClassVar[frozenset[str]] = frozenset()
    test_share: ClassVar[float] = 0.2

    def problems(self) -> Iterator[str]:
        """Yields nothing: there are no options."""
        yield from ()

    def read(self, files: Sequence[TextFile], broken: list[Broken]) -> Parsed:
        """All pairs; of lines that are empty on both sides there is only a note."""
        import tensorflow_datasets as tfds

        examples: list[Example] = []
        blank = 0
        if len(files) == 1 or all(file.path.suffix.lower() == ".tsv" for file in files):
            names = ("source", "target")
            rows = [(file.split, row) for file in files for row in tabbed(file.path, broken)]
        else:
            together = partners(files)
            names = feature_names(together)
            rows = [
                (first.split, row)
                for first, second in together
                for row in side_by_side(first.path, second.path, broken)
            ]
        for split, row in rows:
            if row is None:
                blank += 1
            else:
                examples.append(Example(dict(zip(names, row)), split))
        notes = [f"left out: {counted(blank, 'line')}, empty on both sides"] if blank else []
        return Parsed({name: tfds.features.Text() for name in names}, examples, notes=notes)

    def hold_out(self, examples: list[Example], share: float) -> tuple[list[Example], list[Example]]:
        """A random share."""
        return random_share(examples, share)


def tabbed(path: Path, broken: list[Broken]) -> Iterator[tuple[str, str] | None]:
    """The pairs of a file of "source TAB target"; None for an empty line."""
    try:
        text = read_text(path)
    except NotText as error:
        broken.append((path, str(error)))
        return
    for line, content in enumerate(lines_of(text), 1):
        source, *targets = content.split("\t")
        if not content.strip():
            yield None
        elif len(targets) != 1:
            broken.append(
                (path, f"line {line}: has {counted(len(targets), 'tab')}; expected one, between two texts")
            )
        elif not source.strip() or not targets[0].strip():
            side = "left" if not source.strip() else "right"
            broken.append((path, f"line {line}: is empty on the {side} of the tab"))
        else:
            yield source, targets[0]


def side_by_side(first: Path, second: Path, broken: list[Broken]) -> Iterator[tuple[str, str] | None]:
    """The pairs of two files; None for lines that are empty in both.

    Raises:
      UserError: one has more lines than the other.
    """
    texts = []
    for path in (first, second):
        try:
            texts.append(lines_of(read_text(path)))
        except NotText as error:
            broken.append((path, str(error)))
    if len(texts) < 2:
        return
    counts = [len(lines) for lines in texts]
    if counts[0] != counts[1]:
        longer = first if counts[0] > counts[1] else second
        raise UserError(
            f"{first} has {counted(counts[0], 'line')} and {second} {counts[1]:,}: they do not belong together line by "
            "line",
            f"the first without a partner is {longer}, line {min(counts) + 1}; if lines in the middle are "
            "missing, all after them are wrong",
        )
    for line, pair in enumerate(zip(texts[0], texts[1]), 1):
        empty = [path for path, side in zip((first, second), pair) if not side.strip()]
        if len(empty) == 1:
            other = second if empty[0] is first else first
            broken.append((empty[0], f"line {line}: is empty, and not in {other.name}"))
        else:
            yield None if empty else pair


def partners(files: Sequence[TextFile]) -> list[tuple[TextFile, TextFile]]:
    """Which files belong together: two that are given, or those that differ in their suffix only."""
    groups: dict[Path, list[TextFile]] = {}
    for file in files:
        groups.setdefault(file.path.parent / stem_and_suffix(file.path)[0], []).append(file)
    if len(files) == 2:
        groups = {files[0].path: list(files)}
    for stem, group in groups.items():
        if len(group) != 2:
            names = ", ".join(file.path.name for file in group)
            raise UserError(
                f"{stem}: {counted(len(group), 'file')} of that name ({names}); expected two, as "
                "in train.en and train.de"
            )
        if group[0].split != group[1].split:
            raise UserError(f"{group[0].path} and {group[1].path}: name two splits; pair files of one split")
    return [(group[0], group[1]) for group in groups.values()]


def feature_names(together: Sequence[tuple[TextFile, TextFile]]) -> tuple[str, str]:
    """The two features' names: the files' suffixes, if they tell anything."""
    suffixes = [tuple(stem_and_suffix(file.path)[1] for file in pair) for pair in together]
    for pair, found in zip(together, suffixes):
        if found != suffixes[0]:
            raise UserError(
                f"{pair[0].path} and {pair[1].path}: end with {' and '.join(found)}, but other files with "
                f"{' and '.join(suffixes[0])}; expected the same languages in all"
            )
    first, second = suffixes[0]
    tell = all(LANGUAGE.fullmatch(name) and name.lower() not in NO_LANGUAGE for name in (first, second))
    return (first, second) if tell and first != second else ("source", "target")


def stem_and_suffix(path: Path) -> tuple[str, str]:
    """ "train.en" or "train.en.txt" as "train" and "en"."""
    name = path.with_suffix("") if path.suffix.lower() in (".txt", ".text") and path.stem.count(".") else path
    return name.stem, name.suffix.removeprefix(".")
