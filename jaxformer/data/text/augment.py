"""Augmentation of text for classification: EDA's operations on words (Wei & Zou 2019), and cutoff of tokens.

They are transforms of text, see `text_transforms.py`. Of a pair only the first text is changed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxformer.data.text.text_transforms import (
    Example,
    TextTransform,
    change_words,
    is_special,
    share_problems,
)
from jaxformer.data.text.thesaurus import Thesaurus, load_thesaurus
from jaxformer.data.text.word_changes import (
    Words,
    changes,
    delete_words,
    insert_words,
    replace_words,
    swap_words,
)

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer


class WordTransform(TextTransform):
    """Changes the words of the first text; the batch's labels have to be labels of whole texts."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Changes the example's words.

        Raises:
          UserError: it is not bound, or something in the example goes by the places of tokens.
        """
        bound = self.needs()
        self.check_places(example)
        return change_words(
            example, bound.tokenizer, lambda words: self.augment(words, rng), bound.max_length
        )

    def augment(self, words: Words, rng: np.random.Generator) -> Words:
        """The words of a text, changed; `words` stays as it is."""
        raise NotImplementedError

    def load(self, tokenizer: "Tokenizer") -> Thesaurus | None:
        """The thesaurus, if the transform has one.

        Raises:
          UserError: it is not there or cannot be read.
        """
        path = getattr(self, "thesaurus", None)
        return load_thesaurus(path) if path else None

    def _synonyms(self) -> Thesaurus:
        return self.needs().loaded


@dataclass(frozen=True)
class SynonymReplacement(WordTransform):
    """Replaces words with synonyms (EDA's "SR")."""

    thesaurus: str
    """File or folder of synonyms; see `load_thesaurus`."""
    alpha: float = 0.1
    """Share of the words to replace, rounded down, but at least one word."""

    def augment(self, words: Words, rng: np.random.Generator) -> Words:
        """Replaces."""
        return replace_words(words, changes(self.alpha, words), self._synonyms(), rng)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from thesaurus_problems(self.thesaurus)
        yield from share_problems("alpha", self.alpha)


@dataclass(frozen=True)
class RandomInsertion(WordTransform):
    """Inserts synonyms of the text's words anywhere (EDA's "RI")."""

    thesaurus: str
    """File or folder of synonyms; see `load_thesaurus`."""
    alpha: float = 0.1
    """Words to insert, as a share of the words, rounded down, but at least one."""

    def augment(self, words: Words, rng: np.random.Generator) -> Words:
        """Inserts."""
        return insert_words(words, changes(self.alpha, words), self._synonyms(), rng)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from thesaurus_problems(self.thesaurus)
        yield from share_problems("alpha", self.alpha)


@dataclass(frozen=True)
class RandomSwap(WordTransform):
    """Swaps two words, several times (EDA's "RS")."""

    alpha: float = 0.1
    """Swaps, as a share of the words, rounded down, but at least one."""

    def augment(self, words: Words, rng: np.random.Generator) -> Words:
        """Swaps."""
        return swap_words(words, changes(self.alpha, words), rng)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from share_problems("alpha", self.alpha)


@dataclass(frozen=True)
class RandomDeletion(WordTransform):
    """Deletes words (EDA's "RD")."""

    alpha: float = 0.1
    """The probability with which each word is deleted; one word always stays."""

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
    """

    thesaurus: str
    """File or folder of synonyms; see `load_thesaurus`."""
    alpha_replacement: float = 0.1
    """As `SynonymReplacement.alpha`; 0 leaves the operation out, here and below."""
    alpha_insertion: float = 0.1
    """As `RandomInsertion.alpha`."""
    alpha_swap: float = 0.1
    """As `RandomSwap.alpha`."""
    alpha_deletion: float = 0.1
    """As `RandomDeletion.alpha`."""
    share: float = 0.9
    """Share of the examples that are changed; 0.9 is the nine copies to an original of the paper's code."""

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
    """

    share: float = 0.1
    """Share of the tokens to hide, rounded down; the paper tries 0.05 to 0.2."""

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


def thesaurus_problems(path: str) -> Iterator[str]:
    """What is wrong with the path of a thesaurus, without reading it."""
    if not path or not Path(path).expanduser().exists():
        yield (
            f"thesaurus={path!r}: no such file or folder; name a text file of lines 'big: large, huge', or the "
            "folder of WordNet's database (Debian: apt-get install wordnet-base, then /usr/share/wordnet)"
        )
