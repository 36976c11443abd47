"""The texts that a user gives: as they are, in files of one a line, from stdin; and where each stood."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError

STDIN = "-"
KEYS = ("question", "context")


@dataclass(frozen=True)
class Given:
    """Texts, and where they stood.

    Raises:
      UserError: a text is no Unicode, as from JSON's "\\ud800" or a command line that is not UTF-8.
    """

    texts: list[Any]
    """A text each, or a list of words, or a pair: (text, text) or (question, context)."""
    places: list[str]
    """As "reviews.txt, line 3", for messages."""

    def __post_init__(self) -> None:
        for text, place in zip(self.texts, self.places):
            if any("\ud800" <= character <= "\udfff" for character in "".join(text)):
                raise UserError(
                    f"{place}: has half a surrogate pair, which is no character; give text in UTF-8"
                )

    def where(self, index: int) -> str:
        """How messages name a text (as of the examples of a dataset, `data/text/records.py`)."""
        return self.places[index]


def read_given(
    reads: str, pairs: bool, named: Sequence[tuple[Any, str]], files: Sequence[str | Path] = ()
) -> Given:
    """Inputs as they are and those in files, in the form that a task reads.

    Args:
      reads: "text", "words" or "question" (`Task.reads`).
      pairs: whether a text is a pair of texts.
      named: inputs with their names for messages.
      files: files of one text a line (two with a tab between them if they are pairs), or of JSON lines with "question"
        and "context"; "-" is stdin.

    Raises:
      UserError: there is none, one has another form, or a file cannot be read.
    """
    found = list(named)
    for file in files:
        lines = read_lines(str(file))
        found += [(read_question(*one), one[1]) for one in lines] if reads == "question" else lines
    if not found:
        what = "question: give questions with their contexts" if reads == "question" else "text: give texts"
        raise UserError(f"there is no {what}, or files of them")
    form = as_words if reads == "words" else as_pair if pairs or reads == "question" else as_text
    return Given([form(value, place) for value, place in found], [place for _, place in found])


def as_given(inputs: Any, reads: str, pairs: bool) -> Given:
    """One input or several from Python, in the form that a task reads; see `read_given`."""
    if isinstance(inputs, Given):
        return inputs
    single = isinstance(inputs, (str, tuple))
    several = [inputs] if single else list(inputs)
    name = "question" if reads == "question" else "text"
    return read_given(reads, pairs, [(one, f"{name} {number}") for number, one in enumerate(several, 1)])


def as_text(value: Any, place: str) -> str:
    """A text; anything else is refused."""
    if not isinstance(value, str):
        raise UserError(f"{place}: expected a text, was given {type(value).__name__}")
    return value


def as_words(value: Any, place: str) -> list[str]:
    """A list of words; a text's are parted by white space."""
    return value.split() if isinstance(value, str) else [as_text(word, place) for word in value]


def as_pair(value: Any, place: str) -> tuple[str, str]:
    """Two texts; those of a line have a tab between them."""
    parts = tuple(value.split("\t")) if isinstance(value, str) else tuple(value)
    if len(parts) != 2:
        found = f"has {len(parts) - 1} tabs" if isinstance(value, str) else f"has {len(parts)} texts"
        raise UserError(f"{place}: {found}; this model takes two texts with one tab between them")
    return as_text(parts[0], place), as_text(parts[1], place)


def read_lines(file: str) -> list[tuple[str, str]]:
    """The lines of a file with their places; those without a letter are left out.

    Raises:
      UserError: it cannot be read, is not UTF-8, or has nothing but such lines.
    """
    name = "stdin" if file == STDIN else file
    lines = [line.removesuffix("\r") for line in read_text(file).split("\n")]
    found = [(line, f"{name}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise UserError(f"{name}: there is no text in it; give one a line")
    return found


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Has the message about a text begin with where it stood, in the place of what it was called there."""
    try:
        yield
    except UserError as error:
        _, _, reason = error.lines[0].partition(": ")
        raise UserError(f"{place}: {reason}", *error.lines[1:]) from error


def read_text(file: str) -> str:
    """A file's text, without a byte order mark; "-" is stdin.

    Raises:
      UserError: it cannot be read, or is not UTF-8.
    """
    try:
        content = sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {line}: is not UTF-8; save the file in that encoding") from error


def read_question(line: str, place: str) -> tuple[str, str]:
    """A question and its context from a JSON line.

    Raises:
      UserError: it is none.
    """
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UserError(
            f'{place}: is not JSON ({error}); expected {{"question": ..., "context": ...}}'
        ) from error
    if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in KEYS):
        raise UserError(f'{place}: expected texts under both keys, {{"question": ..., "context": ...}}')
    return value["question"], value["context"]
