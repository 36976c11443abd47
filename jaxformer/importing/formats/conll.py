"""Tagged words, one a line, with empty lines between sentences, as at the CoNLL shared tasks."""

import re
from collections.abc import Sequence
from itertools import groupby

import tensorflow_datasets as tfds

from jaxformer.errors import UserError, counted
from jaxformer.importing.contents import Contents, Example, several
from jaxformer.importing.sources import File, Sources
from jaxformer.reading import lines_of

DOCUMENT = "-DOCSTART-"
SPACES = re.compile(r"[ \t]+")
BIO = re.compile(r"O|[BI]-.+")

Columns = tuple[int, int] | None
Sentence = tuple[File, int, list[str], list[str]]  # a file, the line from 1, words, and a tag for each


def read(sources: Sources, columns: Columns = None, classes: Sequence[str] = ()) -> Contents:
    """Reads sentences as sequences of `tokens` and `tags`.

    Where any tag begins with "B-" or "I-", all have to be BIO: O, B-X at the beginning of an entity, I-X inside.
    IOB1, where B-X stands only between two entities of one type, becomes BIO (Tjong Kim Sang and Veenstra 1999,
    "Representing Text Chunks", section 2.1).

    Args:
      sources: files and folders.
      columns: which columns hold the word and its tag, from 1; None takes the first and the last.
      classes: the tags, in the order of their labels; empty takes those that there are, O first.
    """
    if columns and (len({n for n in columns if type(n) is int and n > 0}) != 2 or len(columns) != 2):
        given = ",".join(map(str, columns))
        raise UserError(f"`columns` {given}: expected the word's and the tag's, counted from 1, as in 1,4")
    found = [s for file, text in sources.texts() for s in sentences(file, text, columns, sources)]
    is_bio = any(tag.startswith(("B-", "I-")) for *_, tags in found for tag in tags)
    examples, changed = [], 0
    for file, line, tokens, given_tags in found:
        with sources.checking(file.path):
            tags = to_bio(given_tags) if is_bio else given_tags
            for number, tag in enumerate(tags, line):
                check_tag(tag, f"line {number}: tag {tag!r}", is_bio, classes)
            changed += sum(old != new for old, new in zip(given_tags, tags))
            examples.append(Example({"tokens": tokens, "tags": tags}, file, classes=frozenset(tags)))
    there = frozenset().union(*(example.classes for example in examples))
    names = list(classes) or sorted(there, key=lambda tag: (tag != "O", tag))
    kinds = {"tokens": tfds.features.Text(), "tags": tfds.features.ClassLabel(names=names)}
    features = {name: tfds.features.Sequence(kind) for name, kind in kinds.items()}
    note = f"changed: {counted(changed, 'tag')} I-X at the beginning of an entity, to B-X (IOB1 to BIO)"
    return Contents(features, examples, names, [note] if changed else [], check=several)


def sentences(file: File, text: str, columns: Columns, sources: Sources) -> list[Sentence]:
    """The sentences of a file; one with a line of another shape goes to `sources.broken`."""
    width, found = 0, []
    lines = enumerate(lines_of(text), 1)
    for there, block in groupby(lines, lambda line: holds_word(line[1])):
        rows = [(number, SPACES.split(line.strip(" \t"))) for number, line in block if there]
        if not rows:
            continue
        start, first = rows[0]
        width = width or len(first)
        word, tag = columns or (1, width)
        if width < 2 or max(word, tag) > width:
            needs = f"column {max(word, tag)}" if columns else "a word and its tag"
            problem = f"line {start}: has {counted(width, 'column')}; expected {needs}"
            sources.broken.append((file.path, problem))
            break
        with sources.checking(file.path):
            for number, row in rows:
                if len(row) != width:
                    count = counted(len(row), "column")
                    raise ValueError(f"line {number}: has {count}, and not {width} as before")
            words = [row[word - 1] for _, row in rows]
            tags = [sources.class_of(row[tag - 1], f"line {number}: tag ") for number, row in rows]
            found.append((file, start, words, tags))
    return found


def holds_word(line: str) -> bool:
    """Whether a line holds a word: it is neither empty nor the beginning of a document."""
    return bool(line.strip(" \t")) and not line.startswith(DOCUMENT)


def check_tag(tag: str, where: str, is_bio: bool, classes: Sequence[str]) -> None:
    """Raises ValueError for a tag that cannot be."""
    if is_bio and not BIO.fullmatch(tag):
        raise ValueError(f"{where} is none of O, B-X and I-X, which other tags are")
    if classes and tag not in classes:
        raise ValueError(f"{where} is not in `classes`")


def to_bio(tags: Sequence[str]) -> list[str]:
    """IOB1 as BIO: an I-X that follows neither B-X nor I-X begins an entity. BIO stays as it is."""
    previous = ["O", *tags]
    return [
        f"B-{tag[2:]}" if tag.startswith("I-") and before not in (f"B-{tag[2:]}", tag) else tag
        for before, tag in zip(previous, tags)
    ]
