"""What transforms of text have in common: they are told the tokenizer, and put texts in the place of others.

`transform.bind(tokenizer)` gives what is called: `(example, rng) -> example`, as for images, on `tokens` [T] of one
example before it is padded. All that is random comes from `rng`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np

from jaxformer.config.fields import Constraint
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.data.transform import Example, Transform
from jaxformer.errors import UserError

Share: TypeAlias = Annotated[float, Constraint("more than 0, and at most 1", lambda share: 0 < share <= 1)]

# What goes by the places of tokens, and would no longer fit when words move.
BY_PLACE = ("targets", "decoder_tokens", "segment_ids", "positions", "start", "end")


@dataclass(frozen=True)
class TextTransform(Transform):
    """What a config says of a transform of text."""

    modality: ClassVar[Literal["image", "text"]] = "text"
    random: ClassVar[bool] = True

    def bind(self, tokenizer: Tokenizer, max_length: int | None = None) -> "Bound":
        """The transform of a tokenizer's tokens.

        Args:
          tokenizer: the one that made the examples' tokens.
          max_length: tokens that an example may have afterwards, special ones included; None lets none grow,
            so that words at the end make room for those that come in.

        Raises:
          UserError: the tokenizer does not suit it, or a file that the transform needs cannot be read.
        """
        return Bound(self, tokenizer, self.load(tokenizer), max_length)

    def load(self, tokenizer: Tokenizer) -> Any:
        """Reads, or works out, what the transform looks things up in, once."""
        return None

    def apply(self, example: Example, rng: np.random.Generator, bound: "Bound") -> Example:
        """The example, transformed; `bound` is what `bind` has made."""
        raise NotImplementedError


@dataclass(frozen=True)
class Bound:
    """A transform of text that knows its tokenizer."""

    transform: TextTransform
    """What a config says of it."""
    tokenizer: Tokenizer
    """Decodes and encodes."""
    loaded: Any
    """What `TextTransform.load` has read."""
    max_length: int | None = None
    """Tokens that an example may have; None for as many as it had before."""

    draws: ClassVar[bool] = False

    @property
    def fills(self) -> Mapping[str, int]:
        """As `TextTransform.fills`."""
        return self.transform.fills

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Transforms an example."""
        return self.transform.apply(example, rng, self)

    def within(self, max_length: int) -> "Bound":
        """A copy that lets examples grow to `max_length` tokens."""
        return replace(self, max_length=max_length)

    def check_places(self, example: Example) -> None:
        """Raises UserError that names what goes by the places of tokens in an example, if something does."""
        by_place = [key for key in BY_PLACE if key in example]
        if by_place or np.ndim(example.get("labels", 0)):
            raise UserError(
                f"transform {type(self.transform).__name__}: moves words, so the examples' "
                f"{(by_place or ['labels'])[0]}, which go by tokens, would no longer fit; "
                "leave it out (it is for classifying texts)"
            )

    def change_words(self, example: Example, change: Callable[[list[str]], list[str]]) -> Example:
        """Decodes the first text, changes its words, and encodes it again.

        The special tokens around it and a second text stay as they are. In a text that changes, white space becomes
        single spaces, the tokenizer's decoder may write "do not" as "don't" (WordPiece's does), and what no longer
        fits is cut off at the end. An example whose words do not change, or would leave the vocabulary (if it has no
        unknown token), is returned as it is.

        Args:
          example: `tokens` int [T]; `token_mask` and `token_types` [T], if there, are made to fit.
          change: gives the new words, without changing those that it is given.
        """
        tokens = np.asarray(example["tokens"])
        ids = tokens[self.first_text(tokens)].tolist()
        text = self.tokenizer.decode(ids, skip_special=False)  # unknown words stay unknown
        words = text.split()
        if (changed := change(words)) == words:
            return example
        space = text[: len(text) - len(text.lstrip())]  # a first token may have one, and be another without
        return self.put_text(example, space + " ".join(changed))

    def put_text(self, example: Example, text: str) -> Example:
        """Puts a text in the place of the first one; see `change_words`."""
        tokens = np.asarray(example["tokens"])
        place = self.first_text(tokens)
        try:
            body = self.tokenizer.encode(text, special=False)
        except UserError:
            return example
        kept = len(tokens) - (place.stop - place.start)  # tokens that stay
        body = body[: max((len(tokens) if self.max_length is None else self.max_length) - kept, 0)]
        if not body:
            return example
        changed = dict(example)
        for key in {"tokens", "token_mask", "token_types"} & example.keys():
            values = np.asarray(example[key])
            new = {"tokens": body, "token_mask": True}.get(key, values[place.start : place.start + 1])
            middle = np.broadcast_to(np.asarray(new, values.dtype), len(body))
            changed[key] = np.concatenate([values[: place.start], middle, values[place.stop :]])
        return changed

    def first_text(self, tokens: np.ndarray) -> slice:
        """Where the first text of `tokens` [T] is: in every template at most one special token precedes it."""
        special = self.is_special(tokens)
        start = int(special[:1].sum())
        ends = np.flatnonzero(special[start:])
        return slice(start, start + int(ends[0]) if len(ends) else len(special))

    def is_special(self, tokens: np.ndarray) -> np.ndarray:
        """bool [T]: what a template or padding put there. The unknown token and the mask token stand for words."""
        known = self.tokenizer
        ids = (known.pad_id, known.bos_id, known.eos_id, known.cls_id, known.sep_id)
        return np.isin(tokens, [index for index in ids if index is not None])
