"""Paraphrases of a dataset's texts: the file that `jaxformer data back-translate` makes, and what draws from it.

A line of the file is a text with the paraphrases that there are of it, possibly none:

    {"text": "a good film", "paraphrases": ["a fine movie", "a good movie"]}

What made the file may stand in the first line, as an object under the key "back_translation".
"""

from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from jaxformer.config.fields import Constraint
from jaxformer.data.text.text_transforms import Bound, Example, Share, TextTransform
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.errors import UserError
from jaxformer.reading import numbered_objects

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

    path: Annotated[
        str,
        Constraint(
            "a file that is there; make it with `jaxformer data back-translate`",
            lambda path: Path(path).expanduser().is_file(),
        ),
    ]
    """The file, see this module's docstring; `jaxformer data back-translate` makes it."""
    probability: Share = 0.5
    """The probability with which a text is replaced."""
    unknown: Literal["refuse", "keep"] = "refuse"
    """What becomes of a text that is not in the file: "refuse" stops, for it is the file of other texts;
    "keep" lets it be, where the file is of a part of the data."""

    def load(self, tokenizer: Tokenizer) -> "Paraphrases":
        return Paraphrases(self.path, tokenizer)

    def apply(self, example: Example, rng: np.random.Generator, bound: Bound) -> Example:
        bound.check_places(example)
        tokens = np.asarray(example["tokens"])
        may_be_cut = bound.max_length is None or len(tokens) >= bound.max_length
        text = tokens[bound.first_text(tokens)]
        found = bound.loaded.of(text, may_be_cut)
        if found is None and self.unknown == "refuse":
            raise UserError(
                f"transform back_translate: {self.path} has no line for the text "
                f"{bound.tokenizer.decode(text.tolist())[:SHOWN]!r}",
                "make it of the split that is trained on, with `jaxformer data back-translate`, and leave no "
                "transform of words before this one; or set unknown='keep'",
            )
        if not found or rng.random() >= self.probability:
            return example
        return bound.put_text(example, found[rng.integers(len(found))])


class Paraphrases:
    """The paraphrases of a file, by the tokens of their texts.

    Args:
      path: the file.
      tokenizer: the one that made the examples' tokens.

    Raises:
      UserError: the file cannot be read, holds none, or has characters that the tokenizer lacks.
    """

    def __init__(self, path: str, tokenizer: Tokenizer):
        table = read_paraphrases(Path(path).expanduser())
        if not any(table.values()):
            raise UserError(f"{path}: holds no paraphrases; make it with `jaxformer data back-translate`")
        try:
            encoded = tokenizer.encode_batch(list(table), special=False)
        except UserError as error:
            question = "is it of other texts than the dataset's?"
            raise UserError(f"{path}: {error.lines[0]}", question) from error
        self._found: dict[bytes, tuple[str, ...]] = {}
        for ids, paraphrases in zip(encoded, table.values()):
            key = sortable(np.asarray(ids))
            # The tokenizer may not tell texts apart.
            self._found[key] = self._found.get(key, ()) + paraphrases
        self._keys = sorted(self._found)

    def of(self, tokens: np.ndarray, may_be_cut: bool) -> tuple[str, ...] | None:
        """The paraphrases of a text's tokens [T]; None if the file does not have it.

        Args:
          tokens: the text's, without special ones.
          may_be_cut: whether it may be the beginning of a text in the file.
        """
        key = sortable(tokens)
        if may_be_cut and key and key not in self._found:
            place = bisect_left(self._keys, key)
            key = next((known for known in self._keys[place : place + 1] if known.startswith(key)), key)
        return self._found.get(key)


def sortable(tokens: np.ndarray) -> bytes:
    """Tokens as bytes that sort as they do."""
    return tokens.astype(">u4").tobytes()


def read_paraphrases(path: Path) -> dict[str, tuple[str, ...]]:
    """Text -> its paraphrases.

    Raises:
      UserError: the file cannot be read, or a line is something else; names it.
    """
    table: dict[str, tuple[str, ...]] = {}
    for number, line in numbered_objects(path):
        if number == 1 and HEADER in line:
            continue
        text: Any = line.get("text")
        found: Any = line.get("paraphrases")
        strings = isinstance(text, str) and isinstance(found, list)
        if not strings or not all(isinstance(each, str) and each.strip() for each in found):
            raise UserError(
                f"{path}, line {number}: is not a text with its paraphrases; "
                'write it as in {"text": "a good film", "paraphrases": ["a fine movie"]}'
            )
        if text in table:
            raise UserError(f"{path}, line {number}: {text[:SHOWN]!r} has a line already; join them")
        table[text] = tuple(found)
    return table
