"""Paraphrases of a dataset's texts: the file that `jaxformer data back-translate` makes, and what draws from it.

A line of the file is a text with the paraphrases that there are of it, possibly none:

    {"text": "a good film", "paraphrases": ["a fine movie", "a good movie"]}

What made the file may stand in the first line, as an object under the key "back_translation".
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxformer.data.text.text_transforms import (
    Example,
    TextTransform,
    first_text,
    is_special,
    put_text,
    share_problems,
)
from jaxformer.errors import UserError
from jaxformer.files import parse_object

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer

HEADER = "back_translation"
SHOWN = 60  # characters of a text in a message


@dataclass(frozen=True)
class BackTranslate(TextTransform):
    """Puts a paraphrase in a text's place: what two translations, there and back, made of it.

    (Sennrich et al. 2016, arXiv 1511.06709, translate back to train translators; Xie et al. 2020, UDA, arXiv
    1904.12848, to augment texts.) One of the text's paraphrases is drawn, evenly; a text that has none stays.
    It has to be the first transform, since a text is known by the tokens that the dataset has. Of two texts of
    the same beginning, both cut to `data.examples.length`, the first in the order of tokens stands for both.
    """

    path: str
    """The file, see this module's docstring; `jaxformer data back-translate` makes it."""
    probability: float = 0.5
    """With which a text is replaced."""
    unknown: Literal["refuse", "keep"] = "refuse"
    """What becomes of a text that is not in the file: "refuse" stops, for it is the file of other texts;
    "keep" lets it be, where the file is of a part of the data."""

    def load(self, tokenizer: "Tokenizer") -> "Paraphrases":
        """Reads the file.

        Raises:
          UserError: it is not there or cannot be read.
        """
        return Paraphrases(self.path, tokenizer)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Replaces the first text, or not.

        Raises:
          UserError: it is not bound, something in the example goes by the places of tokens, or the text is unknown.
        """
        bound = self.needs()
        self.check_places(example)
        tokens = np.asarray(example["tokens"])
        may_be_cut = bound.max_length is None or len(tokens) >= bound.max_length
        found = bound.loaded.of(tokens, may_be_cut)
        if found is None and self.unknown == "refuse":
            start, stop = first_text(is_special(tokens, bound.tokenizer))
            raise UserError(
                f"transform back_translate: {self.path} has no line for the text "
                f"{bound.tokenizer.decode(tokens[start:stop].tolist())[:SHOWN]!r}",
                "make it of the split that is trained on, with `jaxformer data back-translate`, and leave no "
                "transform of words before this one; or set unknown='keep'",
            )
        if not found or rng.random() >= self.probability:
            return example
        return put_text(example, bound.tokenizer, found[rng.integers(len(found))], bound.max_length)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        if not self.path or not Path(self.path).expanduser().is_file():
            yield f"path={self.path!r}: no such file; make it with `jaxformer data back-translate`"
        yield from share_problems("probability", self.probability)


class Paraphrases:
    """The paraphrases of a file, by the tokens of their texts.

    Args:
      path: the file.
      tokenizer: the one that made the examples' tokens.

    Raises:
      UserError: the file cannot be read, holds none, or has characters that the tokenizer lacks.
    """

    def __init__(self, path: str, tokenizer: "Tokenizer"):
        table = read_paraphrases(Path(path).expanduser())
        if not any(table.values()):
            raise UserError(f"{path}: holds no paraphrases; make it with `jaxformer data back-translate`")
        self._tokenizer = tokenizer
        try:
            encoded = tokenizer.encode_batch(list(table), special=False)
        except UserError as error:
            raise UserError(
                f"{path}: {error.lines[0]}", "is it of other texts than the dataset's?"
            ) from error
        found: dict[bytes, tuple[str, ...]] = {}
        for ids, values in zip(encoded, table.values()):
            key = self._key(np.asarray(ids, np.int64))
            found[key] = found.get(key, ()) + values  # of texts that the tokenizer does not tell apart
        self._keys = sorted(found)
        self._values = [found[key] for key in self._keys]

    def of(self, tokens: np.ndarray, may_be_cut: bool) -> tuple[str, ...] | None:
        """The paraphrases of the first text of an example's tokens [T]; None if the file does not have it.

        Args:
          tokens: the example's, with special ones.
          may_be_cut: whether the text may be the beginning of one in the file.
        """
        key = self._key(tokens)
        place = bisect_left(self._keys, key)
        found = self._keys[place] if place < len(self._keys) else b""
        known = found == key if not (may_be_cut and key) else found.startswith(key)
        return self._values[place] if known and place < len(self._keys) else None

    def _key(self, tokens: np.ndarray) -> bytes:
        """The first text's tokens, as bytes that sort as they do."""
        start, stop = first_text(is_special(tokens, self._tokenizer))
        return tokens[start:stop].astype(">u4").tobytes()


def read_paraphrases(path: Path) -> dict[str, tuple[str, ...]]:
    """Text -> its paraphrases.

    Raises:
      UserError: the file cannot be read, or a line is something else; names it.
    """
    table: dict[str, tuple[str, ...]] = {}
    for number, line in read_objects(path):
        if number == 1 and HEADER in line:
            continue
        text, found = line.get("text"), line.get("paraphrases")
        if (
            not isinstance(text, str)
            or not isinstance(found, list)
            or not all(isinstance(paraphrase, str) and paraphrase.strip() for paraphrase in found)
        ):
            raise UserError(
                f"{path}, line {number}: is not a text with its paraphrases; "
                'write it as in {"text": "a good film", "paraphrases": ["a fine movie"]}'
            )
        if text in table:
            raise UserError(f"{path}, line {number}: {text[:SHOWN]!r} has a line already; join them")
        table[text] = tuple(found)
    return table


def read_objects(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The line numbers, from 1, and objects of a file of JSON lines.

    Raises:
      UserError: it cannot be read, or a line is no object.
    """
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8; save the file in that encoding") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, parse_object(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
