"""Tagged words, one a line, with empty lines between sentences, as at the CoNLL shared tasks."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxformer.errors import UserError
from jaxformer.files import lines_of
from jaxformer.importing.classes import check_given, is_class_name, several_classes
from jaxformer.importing.contents import Contents, Example
from jaxformer.importing.sources import Broken, File, Sources
from jaxformer.observe.text import counted

DOCUMENT = "-DOCSTART-"
SPACES = re.compile(r"[ \t]+")
BIO = re.compile(r"O|[BI]-.+")


@dataclass(frozen=True)
class Sentence:
    """A sentence."""

    file: File
    """Where it is from."""
    line: int
    """The line in which it begins, from 1."""
    tokens: list[str]
    """Its words."""
    tags: list[str]
    """A tag for each word."""


def read_conll(
    sources: Sources, columns: tuple[int, int] | None = None, classes: Sequence[str] = ()
) -> Contents:
    """Reads sentences as sequences of `tokens` and `tags`.

    Where any tag begins with "B-" or "I-", all have to be BIO: O, B-X at the beginning of an entity, I-X inside.
    IOB1, where B-X stands only between two entities of one type, becomes BIO (Tjong Kim Sang and Veenstra 1999,
    "Representing Text Chunks", section 2.1).

    Args:
      sources: files and folders.
      columns: which columns hold the word and its tag, from 1; None takes the first and the last.
      classes: the tags, in the order of their labels; empty takes those that there are, O first.
    """
    import tensorflow_datasets as tfds

    if columns and (min(columns) < 1 or columns[0] == columns[1]):
        given = ",".join(map(str, columns))
        raise UserError(f"`columns` {given}: expected the word's and the tag's, counted from 1, as in 1,4")
    check_given(classes)
    read = [s for file, text in sources.texts() for s in sentences(file, text, columns, sources.broken)]
    is_bio = any(tag.startswith(("B-", "I-")) for sentence in read for tag in sentence.tags)
    examples, changed = [], 0
    for sentence in read:
        tags = to_bio(sentence.tags) if is_bio else sentence.tags
        problems = (tag_problem(tag, is_bio, classes) for tag in tags)
        problem = next(((line, wrong) for line, wrong in enumerate(problems, sentence.line) if wrong), None)
        if problem:
            sources.broken.append((sentence.file.path, f"line {problem[0]}: {problem[1]}"))
        else:
            changed += sum(old != new for old, new in zip(sentence.tags, tags))
            examples.append(Example({"tokens": sentence.tokens, "tags": tags}, sentence.file))
    there = {tag for example in examples for tag in example.values["tags"]}
    names = list(classes) or sorted(there, key=lambda tag: (tag != "O", tag))
    features = {
        "tokens": tfds.features.Sequence(tfds.features.Text()),
        "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=names)),
    }
    note = f"changed: {counted(changed, 'tag')} I-X at the beginning of an entity, to B-X (IOB1 to BIO)"
    return Contents(features, examples, names, [note] if changed else [], check=several_classes(names))


def sentences(
    file: File, text: str, columns: tuple[int, int] | None, broken: list[Broken]
) -> Iterator[Sentence]:
    """The sentences of a file; one with a line of another shape goes to `broken`."""
    width = 0
    for start, block in blocks(lines_of(text)):
        rows = [SPACES.split(line.strip(" \t")) for line in block]
        width = width or len(rows[0])
        odd = next((place for place, row in enumerate(rows) if len(row) != width), None)
        if odd is not None:
            count = counted(len(rows[odd]), "column")
            broken.append((file.path, f"line {start + odd}: has {count}, and not {width} as before"))
            continue
        word, tag = columns or (1, width)
        if width < 2 or max(word, tag) > width:
            needs = f"column {max(word, tag)}" if columns else "a word and its tag"
            broken.append((file.path, f"line {start}: has {counted(width, 'column')}; expected {needs}"))
            return
        yield Sentence(file, start, [row[word - 1] for row in rows], [row[tag - 1] for row in rows])


def tag_problem(tag: str, is_bio: bool, classes: Sequence[str]) -> str | None:
    """Why a tag cannot be."""
    if is_bio and not BIO.fullmatch(tag):
        return f"tag {tag!r} is none of O, B-X and I-X, which other tags are"
    if not is_class_name(tag):
        return f"tag {tag!r} has odd white space in it"
    if classes and tag not in classes:
        return f"tag {tag!r} is not in `classes`"
    return None


def blocks(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Lines between empty ones (and beginnings of documents), with the number of the first, from 1."""
    block: list[str] = []
    for number, line in enumerate([*lines, ""], 1):
        if line.strip(" \t") and not line.startswith(DOCUMENT):
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


def to_bio(tags: Sequence[str]) -> list[str]:
    """IOB1 as BIO: an I-X that follows neither B-X nor I-X begins an entity. BIO stays as it is."""
    previous = ["O", *tags]
    return [
        f"B-{tag[2:]}" if tag.startswith("I-") and before not in (f"B-{tag[2:]}", tag) else tag
        for before, tag in zip(previous, tags)
    ]
