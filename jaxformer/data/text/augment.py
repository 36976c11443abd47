"""Augmentation of text for classification: EDA's operations on words (Wei & Zou 2019), and cutoff of tokens.

`transform(example, rng) -> example`, as for images, on `tokens` [T] of one example before it is padded. A
transform has to be bound to the tokenizer first: `transform.bind(tokenizer)`. All that is random comes from
`rng`. Of a pair only the first text is changed.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from jaxformer.data.text.thesaurus import Thesaurus, load_thesaurus
from jaxformer.data.text.word_changes import (
    Words,
    changes,
    delete_words,
    insert_words,
    replace_words,
    swap_words,
)
from jaxformer.errors import UserError

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer

Example = dict[str, Any]

# What goes by the places of tokens, and would no longer fit when words move.
BY_PLACE = ("targets", "decoder_tokens", "segment_ids", "positions", "start", "end")


@dataclass(frozen=True)
class Bound:
    """What a transform of text works with, once it is known.

    Attributes:
      tokenizer: decodes and encodes.
      max_length: tokens that an example may have; None for as many as it had before.
      thesaurus: where synonyms come from, if the transform needs any.
    """

    tokenizer: "Tokenizer"
    max_length: int | None
    thesaurus: Thesaurus | None


@dataclass(frozen=True)
class TextTransform:
    """What all transforms of text have in common: they are bound to a tokenizer before they are used.

    Attributes:
      bound: what a copy is bound to; a config does not set it.
    """

    random: ClassVar[bool] = True
    bound: Bound | None = field(default=None, init=False, repr=False, compare=False)

    def bind(self, tokenizer: "Tokenizer", max_length: int | None = None) -> Self:
        """A copy that can be called.

        Args:
          tokenizer: the one that made the examples' tokens.
          max_length: tokens that an example may have afterwards, special ones included; None lets none grow,
            so that words at the end make room for those that come in.

        Raises:
          UserError: the thesaurus is not there or cannot be read.
        """
        path = getattr(self, "thesaurus", None)
        bound = Bound(tokenizer, max_length, load_thesaurus(path) if path else None)
        transform = copy.copy(self)
        object.__setattr__(transform, "bound", bound)
        return transform

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


class WordTransform(TextTransform):
    """Changes the words of the first text; the batch's labels have to be labels of whole texts."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Changes the example's words.

        Raises:
          UserError: it is not bound, or something in the example goes by the places of tokens.
        """
        bound = self.needs()
        by_place = [key for key in BY_PLACE if key in example]
        if by_place or np.ndim(example.get("labels", 0)):
            raise UserError(
                f"transform {type(self).__name__}: moves words, so the examples' {(by_place or ['labels'])[0]}, "
                "which go by tokens, would no longer fit; leave it out (it is for classifying texts)"
            )
        return change_words(
            example, bound.tokenizer, lambda words: self.augment(words, rng), bound.max_length
        )

    def augment(self, words: Words, rng: np.random.Generator) -> Words:
        """The words of a text, changed; `words` stays as it is."""
        raise NotImplementedError

    def _synonyms(self) -> Thesaurus:
        thesaurus = self.needs().thesaurus
        assert thesaurus is not None
        return thesaurus


@dataclass(frozen=True)
class SynonymReplacement(WordTransform):
    """Replaces words with synonyms (EDA's "SR").

    Attributes:
      thesaurus: file or folder of synonyms; see `load_thesaurus`.
      alpha: share of the words to replace, rounded down, but at least one word.
    """

    thesaurus: str
    alpha: float = 0.1

    def augment(self, words: Words, rng: np.random.Generator) -> Words:
        """Replaces."""
        return replace_words(words, changes(self.alpha, words), self._synonyms(), rng)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from thesaurus_problems(self.thesaurus)
        yield from share_problems("alpha", self.alpha)


@dataclass(frozen=True)
class RandomInsertion(WordTransform):
    """Inserts synonyms of the text's words anywhere (EDA's "RI").

    Attributes:
      thesaurus: file or folder of synonyms; see `load_thesaurus`.
      alpha: words to insert, as a share of the words, rounded down, but at least one.
    """

    thesaurus: str
    alpha: float = 0.1

    def augment(self, words: Words, rng: np.random.Generator) -> Words:
        """Inserts."""
        return insert_words(words, changes(self.alpha, words), self._synonyms(), rng)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from thesaurus_problems(self.thesaurus)
        yield from share_problems("alpha", self.alpha)


@dataclass(frozen=True)
class RandomSwap(WordTransform):
    """Swaps two words, several times (EDA's "RS").

    Attributes:
      alpha: swaps, as a share of the words, rounded down, but at least one.
    """

    alpha: float = 0.1

    def augment(self, words: Words, rng: np.random.Generator) -> Words:
        """Swaps."""
        return swap_words(words, changes(self.alpha, words), rng)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from share_problems("alpha", self.alpha)


@dataclass(frozen=True)
class RandomDeletion(WordTransform):
    """Deletes words (EDA's "RD").

    Attributes:
      alpha: the probability with which each word is deleted; one word always stays.
    """

    alpha: float = 0.1

    def augment(self, words: Words, rng: np.random.Generator) -> Words:
        """Deletes."""
        return delete_words(words, self.alpha, rng)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from share_problems("alpha", self.alpha)


@dataclass(frozen=True)
class Eda(WordTransform):
    """One of the four operations, drawn evenly: "easy data augmentation" (Wei & Zou 2019, arXiv 1901.11196).

    The paper writes several changed copies beside each original; here an example is changed anew whenever it is
    seen. Its section 3.3 has alpha = 0.05 with 16 copies for 500 examples, 0.05 and 8 for 2,000, 0.1 and 4 for
    5,000 and more: `share` 16/17, 8/9, 4/5.

    Attributes:
      thesaurus: file or folder of synonyms; see `load_thesaurus`.
      alpha_replacement: as `SynonymReplacement.alpha`; 0 leaves the operation out, here and below.
      alpha_insertion: as `RandomInsertion.alpha`.
      alpha_swap: as `RandomSwap.alpha`.
      alpha_deletion: as `RandomDeletion.alpha`.
      share: share of the examples that are changed; 0.9 is the nine copies to an original of the paper's code.
    """

    thesaurus: str
    alpha_replacement: float = 0.1
    alpha_insertion: float = 0.1
    alpha_swap: float = 0.1
    alpha_deletion: float = 0.1
    share: float = 0.9

    def augment(self, words: Words, rng: np.random.Generator) -> Words:
        """Does one operation, or none."""
        if rng.random() >= self.share:
            return words
        synonyms = self._synonyms()
        operations: list[tuple[float, Callable[[float], Words]]] = [
            (self.alpha_replacement, lambda a: replace_words(words, changes(a, words), synonyms, rng)),
            (self.alpha_insertion, lambda a: insert_words(words, changes(a, words), synonyms, rng)),
            (self.alpha_swap, lambda a: swap_words(words, changes(a, words), rng)),
            (self.alpha_deletion, lambda a: delete_words(words, a, rng)),
        ]
        operations = [(alpha, operation) for alpha, operation in operations if alpha > 0]
        alpha, operation = operations[rng.integers(len(operations))]
        return operation(alpha)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from thesaurus_problems(self.thesaurus)
        names = ("alpha_replacement", "alpha_insertion", "alpha_swap", "alpha_deletion")
        alphas = {name: getattr(self, name) for name in names}
        for name, alpha in alphas.items():
            if not 0 <= alpha <= 1:
                yield f"{name}={alpha}: must be between 0 and 1"
        if not any(alphas.values()):
            yield "alpha_replacement=0: so are all the others, so nothing is ever done; raise one"
        yield from share_problems("share", self.share)


@dataclass(frozen=True)
class TokenCutoff(TextTransform):
    """Hides tokens (Shen et al. 2020, arXiv 2009.13818, section 3.2, "token cutoff"): nothing attends to them.

    They stay where they are and `token_mask` is False on them, as if they were padding. Special tokens stay to
    be seen, and at least one other. The paper adds a consistency loss between views, which this is not.

    Attributes:
      share: share of the tokens to hide, rounded down; the paper tries 0.05 to 0.2.
    """

    share: float = 0.1

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Masks tokens.

        Raises:
          UserError: it is not bound.
        """
        tokens = np.asarray(example["tokens"])
        mask = np.array(example.get("token_mask", np.ones(len(tokens), bool)))
        candidates = np.flatnonzero(mask & ~is_special(tokens, self.needs().tokenizer))
        count = min(int(self.share * len(candidates)), len(candidates) - 1)
        if count > 0:
            mask[rng.choice(candidates, count, replace=False)] = False
        return example | {"token_mask": mask}

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from share_problems("share", self.share)


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
    try:
        body = tokenizer.encode(space + " ".join(changed), special=False)
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


def thesaurus_problems(path: str) -> Iterator[str]:
    """What is wrong with the path of a thesaurus, without reading it."""
    if not path or not Path(path).expanduser().exists():
        yield (
            f"thesaurus={path!r}: no such file or folder; name a text file of lines 'big: large, huge', or the "
            "folder of WordNet's database (Debian: apt-get install wordnet-base, then /usr/share/wordnet)"
        )


def share_problems(name: str, share: float) -> Iterator[str]:
    """What is wrong with a share."""
    if not 0 < share <= 1:
        yield f"{name}={share}: must be above 0 and at most 1"
