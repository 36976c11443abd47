"""What the formats of text files share: what a reader gives back, and UTF-8 files read line by line."""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from jaxformer.errors import UserError

# A file, and what is wrong with it or with a line of it: "line 7: label is empty".
Broken = tuple[Path, str]


@dataclass(frozen=True)
class TextFile:
    """A file to import."""

    path: Path
    """Where it is."""
    name: str
    """Its path within the source's folder, with "/"."""
    split: str | None
    """Its split, or None if no file says which."""


@dataclass(frozen=True)
class Example:
    """An example that was read."""

    values: dict[str, Any]
    """By feature, as TFDS encodes them."""
    split: str | None
    """Its split, or None if the files do not say."""
    label: str = ""
    """Its class, where each class is held out by the same share."""
    topic: str = ""
    """What it is about; examples of one topic stay in one split."""


@dataclass(frozen=True)
class Parsed:
    """What a reader found."""

    features: dict[str, Any]
    """TFDS feature connectors by name."""
    examples: list[Example]
    """In the order of the files."""
    class_names: list[str] = field(default_factory=list)
    """The classes, in the order of their labels."""
    needed: list[str] = field(default_factory=list)
    """Classes that have to be in the training split, or nothing can be learnt about them."""
    notes: list[str] = field(default_factory=list)
    """What was changed or left out by intent; a line for people each."""


class Format(Protocol):
    """A kind of text file, with its options as fields."""

    extensions: ClassVar[frozenset[str]]  # of the files that are taken from folders; none: all are
    test_share: ClassVar[float]  # what is held out if nobody says

    def problems(self) -> Iterator[str]:
        """Yields a line for every combination of options that cannot work."""

    def read(self, files: Sequence[TextFile], broken: list[Broken]) -> Parsed:
        """Reads and checks all files; what can be left out goes to `broken`.

        Raises:
          UserError: something is wrong that cannot be left out.
        """

    def hold_out(self, examples: list[Example], share: float) -> tuple[list[Example], list[Example]]:
        """The examples to train on and those to test with; always the same."""


class NotText(ValueError):
    """A file is empty, not UTF-8, or cannot be read; its text says which, and the line."""


def decode(content: bytes) -> str:
    """UTF-8 as text, without a byte order mark, and with "\\n" at the end of lines that end with "\\r\\n".

    Raises:
      NotText: it is not UTF-8, or holds nothing but white space; names the line, the byte, and its place.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise NotText("line 1: byte 0 begins UTF-16; save the file as UTF-8")
    mark = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
    try:
        text = content[mark:].decode("utf-8")
    except UnicodeDecodeError as error:
        place = mark + error.start
        line = content.count(b"\n", 0, place) + 1
        raise NotText(
            f"line {line}: byte {place} ({content[place]:#04x}) is not UTF-8; save the file as UTF-8"
        ) from error
    if not text.strip():
        raise NotText("is empty" if not text else "holds nothing but white space")
    return text.replace("\r\n", "\n")


def read_text(path: Path) -> str:
    """A file's text; see `decode`.

    Raises:
      NotText: it is not UTF-8, is empty, or cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NotText(f"cannot be read ({error.strerror or error})") from error
    return decode(content)


def read_files(files: Sequence[TextFile], broken: list[Broken]) -> Iterator[tuple[TextFile, str]]:
    """Files with their texts; those that are no text go to `broken`."""
    for file in files:
        try:
            text = read_text(file.path)
        except NotText as error:
            broken.append((file.path, str(error)))
        else:
            yield file, text


def lines_of(text: str) -> list[str]:
    """Lines as "\\n" ends them, and nothing else: U+2028 and its like are part of a text."""
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def located(path: Path, reason: str) -> str:
    """A file and what is wrong: "a.csv, line 7: label is empty", or "a.csv: is empty"."""
    return f"{path}, {reason}" if reason.startswith("line ") else f"{path}: {reason}"


def counted(number: int, noun: str) -> str:
    """ "1 line", "1,000 lines"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def refuse(broken: Sequence[Broken]) -> None:
    """Raises a UserError that names the first of what is broken, and how many more there are."""
    if broken:
        first = located(*broken[0])
        more = f" (and {len(broken) - 1:,} more)" if len(broken) > 1 else ""
        raise UserError(f"{first}{more}; repair it, or leave out what is broken with --skip-broken")


def is_class_name(name: str) -> bool:
    """Whether TFDS can store a class of this name: it keeps a line for each, and strips it."""
    return name != "" and name == name.strip() and not {"\n", "\r"} & set(name)


def check_classes(classes: Sequence[str]) -> Iterator[str]:
    """Yields a line for every impossible name among the classes that were given."""
    for name in classes:
        if not is_class_name(name):
            yield f"classes: {name!r} is not a class's name; it needs to be one line without spaces around"
        elif list(classes).count(name) > 1:
            yield f"classes: {name!r} is there twice"
