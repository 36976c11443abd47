"""What transforms of text have in common: they are told the tokenizer, and put texts in the place of others.

`transform(example, rng) -> example`, as for images, on `tokens` [T] of one example before it is padded. A
transform has to be bound to the tokenizer first: `transform.bind(tokenizer)`. All that is random comes from
`rng`.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from jaxformer.data.text.word_changes import Words
from jaxformer.errors import UserError

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer

Example = dict[str, Any]

# What goes by the places of tokens, and would no longer fit when words move.
BY_PLACE = ("targets", "decoder_tokens", "segment_ids", "positions", "start", "end")


@dataclass(frozen=True)
class Bound:
    """What a transform of text works with, once it is known."""

    tokenizer: "Tokenizer"
    """Decodes and encodes."""
    max_length: int | None
    """Tokens that an example may have; None for as many as it had before."""
    loaded: Any
    """What `TextTransform.load` has read."""


@dataclass(frozen=True)
class TextTransform:
    """What all transforms of text have in common: they are bound to a tokenizer before they are used."""

    random: ClassVar[bool] = True
    bound: Bound | None = field(default=None, init=False, repr=False, compare=False)
    """What a copy is bound to; a config does not set it."""

    def bind(self, tokenizer: "Tokenizer", max_length: int | None = None) -> Self:
        """A copy that can be called.

        Args:
          tokenizer: the one that made the examples' tokens.
          max_length: tokens that an example may have afterwards, special ones included; None lets none grow,
            so that words at the end make room for those that come in.

        Raises:
          UserError: a file that the transform needs is not there or cannot be read.
        """
        return self._with(Bound(tokenizer, max_length, self.load(tokenizer)))

    def within(self, max_length: int) -> Self:
        """A copy of a bound transform that lets examples grow to `max_length` tokens."""
        return self._with(replace(self.needs(), max_length=max_length))

    def load(self, tokenizer: "Tokenizer") -> Any:
        """Reads what the transform looks things up in, once."""
        return None

    def needs(self) -> Bound:
        """What it is bound to.

        Raises:
          UserError: nothing, so the data is not text.
        """
        if self.bound is None:
            raise UserError(
                f"transform {type(self).__name__}: works on tokens; use it with a dataset of text"
            )
        return self.bound

    def check_places(self, example: Example) -> None:
        """Refuses an example of which something goes by the places of tokens.

        Raises:
          UserError: names it.
        """
        by_place = [key for key in BY_PLACE if key in example]
        if by_place or np.ndim(example.get("labels", 0)):
            raise UserError(
                f"transform {type(self).__name__}: moves words, so the examples' {(by_place or ['labels'])[0]}, "
                "which go by tokens, would no longer fit; leave it out (it is for classifying texts)"
            )

    def _with(self, bound: Bound) -> Self:
        transform = copy.copy(self)
        object.__setattr__(transform, "bound", bound)
        return transform


def change_words(
    example: Example,
    tokenizer: "Tokenizer",
    change: Callable[[Words], Words],
    max_length: int | None = None,
) -> Example:
    """Decodes the first text, changes its words, and encodes it again.

    The special tokens around it and a second text stay as they are. In a text that changes, white space becomes
    single spaces, the tokenizer's decoder may write "do not" as "don't" (WordPiece's does), and what no longer
    fits is cut off at the end. An example whose words do not change, or would leave the vocabulary (if it has no
    unknown token), is returned as it is.

    Args:
      example: `tokens` int [T]; `token_mask` and `token_types` [T], if there, are made to fit.
      tokenizer: the one that made the tokens.
      change: gives the new words, without changing those that it is given.
      max_length: tokens in the result, at most; None for T.
    """
    tokens = np.asarray(example["tokens"])
    start, stop = first_text(is_special(tokens, tokenizer))
    text = tokenizer.decode(tokens[start:stop].tolist(), skip_special=False)  # unknown words stay unknown
    words = text.split()
    changed = change(words)
    if changed == words:
        return example
    space = text[: len(text) - len(text.lstrip())]  # a first token may have one, and be another without
    return put_text(example, tokenizer, space + " ".join(changed), max_length)


def put_text(example: Example, tokenizer: "Tokenizer", text: str, max_length: int | None = None) -> Example:
    """Puts a text in the place of the first one; see `change_words`."""
    tokens = np.asarray(example["tokens"])
    start, stop = first_text(is_special(tokens, tokenizer))
    try:
        body = tokenizer.encode(text, special=False)
    except UserError:
        return example
    room = (len(tokens) if max_length is None else max_length) - start - (len(tokens) - stop)
    body = body[: max(room, 0)]
    if not body:
        return example
    replacements: dict[str, Sequence[int]] = {"tokens": body, "token_mask": [True] * len(body)}
    if "token_types" in example:
        replacements["token_types"] = [int(example["token_types"][start])] * len(body)
    return example | {
        key: splice(np.asarray(example[key]), start, stop, middle)
        for key, middle in replacements.items()
        if key in example
    }


def splice(values: np.ndarray, start: int, stop: int, middle: Sequence[int]) -> np.ndarray:
    """`values` with `middle` in place of start:stop; of the same dtype."""
    return np.concatenate([values[:start], np.asarray(middle, values.dtype), values[stop:]])


def is_special(tokens: np.ndarray, tokenizer: "Tokenizer") -> np.ndarray:
    """bool [T]: what a template or padding put there. The unknown token and the mask token stand for words."""
    names = ("pad_id", "bos_id", "eos_id", "cls_id", "sep_id")
    ids = [getattr(tokenizer, name) for name in names]
    return np.isin(tokens, [index for index in ids if index is not None])


def first_text(special: np.ndarray) -> tuple[int, int]:
    """(start, stop) of the first text, which at most one special token precedes in every template."""
    start = int(special[:1].sum())
    ends = np.flatnonzero(special[start:])
    return start, start + int(ends[0]) if len(ends) else len(special)


def share_problems(name: str, share: float) -> Iterator[str]:
    """What is wrong with a share."""
    if not 0 < share <= 1:
        yield f"{name}={share}: must be above 0 and at most 1"
