"""Texts that a user gives: as they are, in files of one a line, from stdin; and what a model makes of each as input."""

import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.data.kinds.spans import characters
from jaxformer.data.text.rows import Encoder
from jaxformer.errors import UserError, counted
from jaxformer.inference.inputs import Input
from jaxformer.reading import named, parse_object, regular
from jaxformer.tasks.base import Row

logger = logging.getLogger("jaxformer")

TABLES = {".csv", ".json", ".jsonl"}  # of text files those whose lines are hardly meant as texts
STDIN = "-"
NO_LIMIT = 2**31  # tokens
FORMS = {
    "text": "a text",
    "texts": "two texts with one tab between them, or a tuple of them",
    "words": "a text or a list of words",
    "question": "(question, context)",
}


@dataclass(frozen=True)
class Given:
    """Texts, and where they stood."""

    texts: list[Any]
    """Each is a text, or a list: of words, of two texts, or of a question and its context."""
    places: list[str]
    """As "reviews.txt, line 3", for messages."""

    def where(self, index: int) -> str:
        """How messages name a text (as of the examples of a dataset, `data/records.py`)."""
        return self.places[index]


def form_of(config: Any) -> str:
    """The form of a run's inputs: one of FORMS. None of them where its task reads images, or predicts nothing."""
    reads = config.task.reads
    return "texts" if reads == "text" and config.data.examples.texts_in_a_row == 2 else reads


# What the user gives


def read_given(form: str, named: Iterable[tuple[Any, str]], files: Iterable[str | Path] = ()) -> Given:
    """Inputs as they are and those in files, in the form that a task reads.

    Args:
      form: one of FORMS.
      named: inputs with their names for messages.
      files: files of one text a line (two with a tab between them if they are pairs), or of JSON lines with "question"
        and "context"; "-" is stdin.

    Raises:
      UserError: there is none, one has another form, or a file cannot be read.
    """
    found, asks = list(named), form == "question"
    for file in files:
        lines = read_lines(str(file))
        if not asks and Path(file).suffix.lower() in TABLES:
            logger.warning("%s: no columns are read; each line as it is, the header too, is a text", file)
        found += [(read_question(*one), one[1]) for one in lines] if asks else lines
    if not found:
        what = "question: give questions with their contexts" if asks else "text: give texts"
        raise UserError(f"there is no {what}, or files of them")
    texts = [in_form(value, place, form) for value, place in found]
    return Given(texts, [place for _, place in found])


def in_form(value: Any, place: str, form: str) -> str | list[str]:
    """A text as it is, or a list of words, or one of two texts.

    In a text words are parted by white space, and the two texts of a pair by a tab.

    Raises:
      UserError: it is something else, or is no Unicode, as from JSON's "\\ud800" or a command line that is not UTF-8.
    """
    if form == "text" or not isinstance(value, Iterable):
        parts = [value]
    else:
        parts = value.split(None if form == "words" else "\t") if isinstance(value, str) else list(value)
    if not all(isinstance(part, str) for part in parts):
        raise UserError(f"{place}: expected {FORMS[form]}, was given {type(value).__name__}")
    if any("\ud800" <= character <= "\udfff" for character in "".join(parts)):
        raise UserError(f"{place}: has half a surrogate pair, which is no character; give text in UTF-8")
    if form in ("texts", "question") and len(parts) != 2:
        found = counted(len(parts) - 1, "tab") if isinstance(value, str) else counted(len(parts), "text")
        raise UserError(f"{place}: has {found}; this model takes two texts with one tab between them")
    return parts[0] if form == "text" else parts


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


def read_text(file: str) -> str:
    """A file's text, without a byte order mark; "-" is stdin.

    Raises:
      UserError: it cannot be read, or is not UTF-8.
    """
    try:
        content = sys.stdin.buffer.read() if file == STDIN else regular(named(file)).read_bytes()
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
    expected = '{"question": ..., "context": ...}'
    try:
        value = parse_object(line)
    except ValueError as error:
        raise UserError(f"{place}: {error}; expected {expected}") from error
    question, context = value.get("question"), value.get("context")
    if not (isinstance(question, str) and isinstance(context, str)):
        raise UserError(f"{place}: expected texts under both keys, {expected}")
    return question, context


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Has the message about a text begin with where it stood, in the place of what it was called there."""
    try:
        yield
    except UserError as error:
        reason = re.sub("^(text|prompt|the image): ", "", error.lines[0].removeprefix(f"{place}: "))
        raise UserError(f"{place}: {reason}", *error.lines[1:]) from error


# What a model takes


def text_inputs(run: Any, inputs: Any) -> list[Input]:
    """Texts as in training: with special tokens, where it had them, and cut at its length, which is logged.

    Args:
      run: a trained run.
      inputs: one text or several, in the run's form, or what `read_given` gives.

    Raises:
      UserError: a text cannot be encoded, or holds nothing to predict; names it.
    """
    form, settings, most = form_of(run.config), run.config.data.examples, run.model.longest_text
    given: Any = as_given(inputs, form)  # it names a text as the examples of a dataset are named
    if form == "question":
        windows, cut = settings.windows(run.tokenizer, given.texts, given, 0)
        what, length = "questions", settings.question_length
    else:
        in_rows = form == "words" or settings.texts_in_a_row is not None
        what, length = "texts", settings.length if in_rows or not settings.varying else NO_LIMIT
        # Windows over documents have no special tokens around them.
        encoder = Encoder(run.tokenizer, length, form == "texts", special=in_rows or settings.varying)
        windows = [[encoding] for encoding in encoder(given.texts, given, 0, words=form == "words")]
        cut = sum(bool(encoding.overflowing) for (encoding,) in windows)
    if cut:
        logger.warning("%d of %d %s were cut at %d tokens", cut, len(windows), what, length)
    found = []
    for text, place, parts in zip(given.texts, given.places, windows):
        about, asked = {"words": text, "word_ids": parts[0].word_ids}, text
        if form == "question":
            about, asked = {"context": text[1], "characters": [characters(part) for part in parts]}, text[0]
        with naming(place):
            rows = [run.task.prepare(arrays_of(part), run) for part in parts]
        longest = max(len(row["tokens"]) for row in rows)
        if longest > most:
            raise UserError(f"{place}: has {counted(longest, 'token')}, the model takes {most}; shorten it")
        found.append(Input(place, {form: asked}, rows, {**about, **rows[0]}))
    return found


def as_given(inputs: Any, form: str) -> Given:
    """One input or several from Python, in the form that a task reads; see `read_given`."""
    if isinstance(inputs, Given):
        return inputs
    several = [inputs] if isinstance(inputs, (str, tuple)) or not isinstance(inputs, Iterable) else inputs
    name = "question" if form == "question" else "text"
    return read_given(form, [(one, f"{name} {number}") for number, one in enumerate(several, 1)])


def arrays_of(encoding: Any) -> Row:
    """The arrays of a text, without padding."""
    return {
        "tokens": np.array(encoding.ids, np.int32),
        "token_types": np.array(encoding.type_ids, np.int32),
        "token_mask": np.ones(len(encoding.ids), bool),
    }
