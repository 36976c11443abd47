"""Pairs of lines: two files side by side, or one whose lines have a tab in the middle."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import tensorflow_datasets as tfds

from jaxformer.errors import UserError, counted
from jaxformer.importing.contents import Contents, Example
from jaxformer.importing.sources import File, Sources
from jaxformer.reading import lines_of

# The suffixes that name a language ("en", "pt-br") or a side ("src").
LANGUAGE = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z]{2,8})?")
NO_LANGUAGE = {"txt", "text", "tsv", "csv", "tok", "raw", "data"}

Pair: TypeAlias = tuple[File, str, str]


def read(sources: Sources) -> Contents:
    """Reads lines and their translations (or whatever belongs together) as two texts.

    Files side by side end with what names the two features ("train.en" and "train.de", also "train.en.txt"); otherwise
    these are "source" and "target", as in a file of lines with a tab. Lines that are empty on both sides are left out,
    and a note counts them.
    """
    files = sources.files()
    first, second = "source", "target"
    if len(files) == 1 or all(file.path.suffix.lower() == ".tsv" for file in files):
        pairs = [pair for file in files for pair in tabbed(file, sources)]
    else:
        together = partners(files)
        first, second = feature_names(together)
        pairs = [pair for one, other in together for pair in side_by_side(one, other, sources)]
    examples = [Example({first: one, second: other}, file) for file, one, other in pairs if one.strip()]
    blank = len(pairs) - len(examples)
    notes = [f"left out: {counted(blank, 'line')}, empty on both sides"] if blank else []
    return Contents({name: tfds.features.Text() for name in (first, second)}, examples, notes=notes)


def tabbed(file: File, sources: Sources) -> Iterator[Pair]:
    """The pairs of a file of "source TAB target"; two empty texts for an empty line."""
    for number, line in enumerate(lines_of(sources.read(file.path) or ""), 1):
        with sources.checking(file.path, f"line {number}"):
            yield file, *(halves(line) if line.strip() else ("", ""))


def halves(line: str) -> tuple[str, str]:
    """What stands on the left and on the right of a line's tab.

    Raises:
      ValueError: there is another number of tabs, or nothing on one side.
    """
    source, *targets = line.split("\t")
    if len(targets) != 1:
        raise ValueError(f"has {counted(len(targets), 'tab')}; expected one, between two texts")
    if not source.strip() or not targets[0].strip():
        raise ValueError(f"is empty on the {'right' if source.strip() else 'left'} of the tab")
    return source, targets[0]


def side_by_side(first: File, second: File, sources: Sources) -> Iterator[Pair]:
    """The pairs of two files.

    Raises:
      UserError: one has more lines than the other.
    """
    texts = [sources.read(file.path) for file in (first, second)]
    if None in texts:
        return
    one, other = (lines_of(text or "") for text in texts)
    if len(one) != len(other):
        longer = first if len(one) > len(other) else second
        lines = f"{first.path} has {counted(len(one), 'line')} and {second.path} {len(other):,}"
        alone = f"{longer.path}, line {min(len(one), len(other)) + 1}"
        raise UserError(
            f"{lines}: they do not belong together line by line",
            f"the first without a partner is {alone}; if lines in the middle are missing, all after them are wrong",
        )
    for line, (ours, theirs) in enumerate(zip(one, other), 1):
        if bool(ours.strip()) == bool(theirs.strip()):
            yield first, ours, theirs
        else:
            empty, full = (second, first) if ours.strip() else (first, second)
            sources.broken.append((empty.path, f"line {line}: is empty, and not in {full.path.name}"))


def partners(files: Sequence[File]) -> list[list[File]]:
    """Which files belong together: two that are given, or those that differ in their suffix only."""
    groups: dict[Path, list[File]] = defaultdict(list)
    for file in files:
        alone = files[0].path if len(files) == 2 else file.path.parent / stem_and_suffix(file.path)[0]
        groups[alone].append(file)
    for stem, group in groups.items():
        if len(group) != 2:
            names = f"{counted(len(group), 'file')} of that name ({', '.join(f.path.name for f in group)})"
            raise UserError(f"{stem}: {names}; expected two, as in train.en and train.de")
        if group[0].split != group[1].split:
            raise UserError(f"{group[0].path} and {group[1].path}: name two splits; pair files of one split")
    return list(groups.values())


def feature_names(together: Sequence[Sequence[File]]) -> tuple[str, str]:
    """The two features' names: the files' suffixes, if they tell anything."""
    found = [[stem_and_suffix(file.path)[1] for file in pair] for pair in together]
    first, second = found[0]
    for pair, suffixes in zip(together, found):
        if suffixes != found[0]:
            ends = f"end with {' and '.join(suffixes)}, but other files with {first} and {second}"
            raise UserError(f"{pair[0].path} and {pair[1].path}: {ends}; expected the same languages in all")
    tell = all(LANGUAGE.fullmatch(name) and name.lower() not in NO_LANGUAGE for name in (first, second))
    return (first, second) if tell and first != second else ("source", "target")


def stem_and_suffix(path: Path) -> tuple[str, str]:
    """ "train.en" or "train.en.txt" as "train" and "en"."""
    name = path.with_suffix("") if path.suffix.lower() in (".txt", ".text") and path.stem.count(".") else path
    return name.stem, name.suffix.removeprefix(".")
