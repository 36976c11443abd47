"""Tagged words, one a line, with empty lines between sentences, as at the CoNLL shared tasks."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxformer.data.text.formats import (
    Broken,
    Example,
    Parsed,
    TextFile,
    check_classes,
    counted,
    is_class_name,
    lines_of,
    read_files,
)
from jaxformer.data.text.importing_splits import random_share

DOCUMENT = "-DOCSTART-"
SPACES = re.compile(r"[ \t]+")
BIO = re.compile(r"O|[BI]-.+")


@dataclass(frozen=True)
class Sentence:
    """A sentence."""

    file: TextFile
    """Where it is from."""
    line: int
    """The line in which it begins, from 1."""
    tokens: list[str]
    """Its words."""
    tags: list[str]
    """A tag a word."""


@dataclass(frozen=True)
class ConllFormat:
    """Sentences as sequences of `tokens` and `tags`.

    Where any tag begins with "B-" or "I-", all have to be BIO: O, B-X at the beginning of an entity, I-X inside.
    IOB1, where B-X stands only between two entities of one type, becomes BIO (Tjong Kim Sang and Veenstra 1999,
    "Representing Text Chunks", section 2.1).
    """

    extensions: ClassVar[frozenset[str]] = frozenset(
        {".conll", ".txt", ".tsv", ".bio", ".iob", ".iob2", ".train", ".dev", ".test", ".testa", ".testb"}
    )
    test_share: ClassVar[float] = 0.2

    columns: tuple[int, int] | None = None
    """Which columns hold the word and its tag, from 1; None takes the first and the last."""
    classes: tuple[str, ...] = ()
    """The tags, in the order of their labels; empty takes those that there are, O first."""

    def problems(self) -> Iterator[str]:
        """Yields a line for every combination of options that cannot work."""
        if self.columns and (min(self.columns) < 1 or self.columns[0] == self.columns[1]):
            given = ",".join(map(str, self.columns))
            yield f"columns: {given}: expected the word's and the tag's, counted from 1, as in 1,4"
        yield from check_classes(self.classes)

    def read(self, files: Sequence[TextFile], broken: list[Broken]) -> Parsed:
        """All sentences."""
        import tensorflow_datasets as tfds

        sentences = [
            s for file, text in read_files(files, broken) for s in self.sentences(file, text, broken)
        ]
        is_bio = any(tag.startswith(("B-", "I-")) for s in sentences for tag in s.tags)
        examples, changed = [], 0
        for sentence in sentences:
            tags = to_bio(sentence.tags) if is_bio else sentence.tags
            problem = self.problem(tags, is_bio)
            if problem:
                broken.append((sentence.file.path, f"line {sentence.line + problem[0]}: {problem[1]}"))
                continue
            changed += sum(old != new for old, new in zip(sentence.tags, tags))
            examples.append(Example({"tokens": sentence.tokens, "tags": tags}, sentence.file.split))
        there = {tag for example in examples for tag in example.values["tags"]}
        names = list(self.classes) or sorted(there, key=lambda tag: (tag != "O", tag))
        features = {
            "tokens": tfds.features.Sequence(tfds.features.Text()),
            "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=names)),
        }
        notes = (
            [f"changed: {counted(changed, 'tag')} I-X at the beginning of an entity, to B-X (IOB1 to BIO)"]
            if changed
            else []
        )
        return Parsed(features, examples, names, notes=notes)

    def sentences(self, file: TextFile, text: str, broken: list[Broken]) -> Iterator[Sentence]:
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
            word, tag = self.columns or (1, width)
            if width < 2 or max(word, tag) > width:
                needs = f"column {max(word, tag)}" if self.columns else "a word and its tag"
                broken.append((file.path, f"line {start}: has {counted(width, 'column')}; expected {needs}"))
                return
            yield Sentence(file, start, [row[word - 1] for row in rows], [row[tag - 1] for row in rows])

    def problem(self, tags: Sequence[str], is_bio: bool) -> tuple[int, str] | None:
        """The first tag that cannot be, and why."""
        for place, tag in enumerate(tags):
            if is_bio and not BIO.fullmatch(tag):
                return place, f"tag {tag!r} is none of O, B-X and I-X, which other tags are"
            if not is_class_name(tag):
                return place, f"tag {tag!r} has odd white space in it"
            if self.classes and tag not in self.classes:
                return place, f"tag {tag!r} is not in --classes"
        return None

    def hold_out(self, examples: list[Example], share: float) -> tuple[list[Example], list[Example]]:
        """A random share of the sentences."""
        return random_share(examples, share)


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
