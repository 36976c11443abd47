"""The texts that a user gives: on the command line, in files of one a line, from stdin; and where each stood."""

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


def read_texts(texts: Sequence[str], files: Sequence[str]) -> Given:
    """Texts as they are, and the lines of files; "-" is stdin.

    Raises:
      UserError: there is none, or a file cannot be read.
    """
    found = [(text, f"--text {number}") for number, text in enumerate(texts, 1)]
    found += [line for file in files for line in read_lines(file)]
    if not found:
        raise UserError("there is no text: give files of one text a line, - for stdin, or --text TEXT")
    return Given([text for text, _ in found], [place for _, place in found])


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


def as_pairs(given: Given) -> Given:
    """Lines of two texts with a tab between them, as pairs.

    Raises:
      UserError: a line has another number of tabs.
    """
    pairs = [tuple(text.split("\t")) for text in given.texts]
    for pair, place in zip(pairs, given.places):
        if len(pair) != 2:
            raise UserError(
                f"{place}: has {len(pair) - 1} tabs; this model takes two texts with one tab between them"
            )
    return Given(pairs, given.places)


def as_words(given: Given) -> Given:
    """Texts as lists of words, which white space parts."""
    return Given([text.split() for text in given.texts], given.places)


def read_questions(questions: Sequence[str], context_file: str | None, files: Sequence[str]) -> Given:
    """Questions about the text of a file, and those of files of JSON lines: {"question": ..., "context": ...}.

    Raises:
      UserError: there is none, or one without a context, or something cannot be read.
    """
    if questions and context_file is None:
        raise UserError("--question: needs the text that answers it; name its file with --context-file")
    if context_file is not None and not questions:
        raise UserError(f"--context-file {context_file}: needs a question about it; ask with --question")
    found: list[tuple[tuple[str, str], str]] = []
    if context_file is not None:
        context = read_text(context_file)
        found += [((question, context), f"--question {n}") for n, question in enumerate(questions, 1)]
    for file in files:
        found += [(read_question(line, place), place) for line, place in read_lines(file)]
    if not found:
        raise UserError(
            "there is no question: give --question TEXT --context-file FILE, or files of JSON lines with "
            "question and context"
        )
    return Given([pair for pair, _ in found], [place for _, place in found])


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
