"""Augmentation of text for classification: EDA's operations on words (Wei & Zou 2019), and cutoff of tokens.

They are transforms of text, see `text_transforms.py`. Of a pair only the first text is changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import numpy as np

from jaxformer.config.fields import Constraint, Fraction
from jaxformer.data.text.text_transforms import (
    Bound,
    Example,
    Share,
    TextTransform,
    change_words,
    is_special,
)
from jaxformer.data.text.thesaurus import DATABASE, Thesaurus, load_thesaurus
from jaxformer.data.text.word_changes import OPERATIONS, Words

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer

ThesaurusPath: TypeAlias = Annotated[
    str,
    Constraint(
        f"a file that is there, of lines 'big: large, huge', or {DATABASE}",
        lambda path: bool(path) and Path(path).expanduser().exists(),
    ),
]


@dataclass(frozen=True)
class WordTransform(TextTransform):
    """Changes the words of the first text; the batch's labels have to be labels of whole texts."""

    def apply(self, example: Example, rng: np.random.Generator, bound: Bound) -> Example:
        bound.check_places(example)
        return change_words(
            example,
            bound.tokenizer,
            lambda words: self.augment(words, rng, bound.loaded),
            bound.max_length,
        )

    def augment(self, words: Words, rng: np.random.Generator, synonyms: Thesaurus | None) -> Words:
        """The words of a text, changed; `words` stays as it is."""
        raise NotImplementedError


@dataclass(frozen=True)
class WithThesaurus(WordTransform):
    """Takes words from a thesaurus."""

    thesaurus: ThesaurusPath
    """File or folder of synonyms; see `load_thesaurus`."""

    def load(self, tokenizer: "Tokenizer") -> Thesaurus:
        return load_thesaurus(self.thesaurus)


@dataclass(frozen=True)
class SynonymReplacement(WithThesaurus):
    """Replaces words with synonyms (EDA's "SR")."""

    alpha: Share = 0.1
    """Share of the words to replace, rounded down, but at least one word."""

    def augment(self, words: Words, rng: np.random.Generator, synonyms: Thesaurus | None) -> Words:
        return OPERATIONS["replacement"](words, self.alpha, rng, synonyms)


@dataclass(frozen=True)
class RandomInsertion(WithThesaurus):
    """Inserts synonyms of the text's words anywhere (EDA's "RI")."""

    alpha: Share = 0.1
    """Words to insert, as a share of the words, rounded down, but at least one."""

    def augment(self, words: Words, rng: np.random.Generator, synonyms: Thesaurus | None) -> Words:
        return OPERATIONS["insertion"](words, self.alpha, rng, synonyms)


@dataclass(frozen=True)
class RandomSwap(WordTransform):
    """Swaps two words, several times (EDA's "RS")."""

    alpha: Share = 0.1
    """Swaps, as a share of the words, rounded down, but at least one."""

    def augment(self, words: Words, rng: np.random.Generator, synonyms: Thesaurus | None) -> Words:
        return OPERATIONS["swap"](words, self.alpha, rng, synonyms)


@dataclass(frozen=True)
class RandomDeletion(WordTransform):
    """Deletes words (EDA's "RD")."""

    alpha: Share = 0.1
    """The probability with which each word is deleted; one word always stays."""

    def augment(self, words: Words, rng: np.random.Generator, synonyms: Thesaurus | None) -> Words:
        return OPERATIONS["deletion"](words, self.alpha, rng, synonyms)


@dataclass(frozen=True)
class Eda(WithThesaurus):
    """One of the four operations, drawn evenly: "easy data augmentation" (Wei & Zou 2019, arXiv 1901.11196).

    The paper writes several changed copies beside each original; here an example is changed anew whenever it is
    seen. Its section 3.3 has alpha = 0.05 with 16 copies for 500 examples, 0.05 and 8 for 2,000, 0.1 and 4 for
    5,000 and more: `share` 16/17, 8/9, 4/5.
    """

    alpha_replacement: Fraction = 0.1
    """As `SynonymReplacement.alpha`; 0 leaves the operation out, here and below."""
    alpha_insertion: Fraction = 0.1
    """As `RandomInsertion.alpha`."""
    alpha_swap: Fraction = 0.1
    """As `RandomSwap.alpha`."""
    alpha_deletion: Fraction = 0.1
    """As `RandomDeletion.alpha`."""
    share: Share = 0.9
    """Share of the examples that are changed; 0.9 is the nine copies to an original of the paper's code."""

    def alphas(self) -> dict[str, float]:
        """The operations that are done -> how much of a text they change."""
        alphas = (self.alpha_replacement, self.alpha_insertion, self.alpha_swap, self.alpha_deletion)
        return {name: alpha for name, alpha in zip(OPERATIONS, alphas) if alpha > 0}

    def augment(self, words: Words, rng: np.random.Generator, synonyms: Thesaurus | None) -> Words:
        if rng.random() >= self.share:
            return words
        alphas = list(self.alphas().items())
        name, alpha = alphas[rng.integers(len(alphas))]
        return OPERATIONS[name](words, alpha, rng, synonyms)

    def problems(self) -> Iterator[str]:
        """Yields what cannot work together."""
        if not self.alphas():
            yield "alpha_replacement=0: so are all the others, so nothing is ever done; raise one"


@dataclass(frozen=True)
class TokenCutoff(TextTransform):
    """Hides tokens (Shen et al. 2020, arXiv 2009.13818, section 3.2, "token cutoff"): nothing attends to them.

    They stay where they are and `token_mask` is False on them, as if they were padding. Special tokens stay to
    be seen, and at least one other. The paper adds a consistency loss between views, which this is not.
    """

    share: Share = 0.1
    """Share of the tokens to hide, rounded down; the paper tries 0.05 to 0.2."""

    def apply(self, example: Example, rng: np.random.Generator, bound: Bound) -> Example:
        tokens = np.asarray(example["tokens"])
        mask = np.array(example.get("token_mask", np.ones(len(tokens), bool)))
        candidates = np.flatnonzero(mask & ~is_special(tokens, bound.tokenizer))
        count = min(int(self.share * len(candidates)), len(candidates) - 1)
        if count > 0:
            mask[rng.choice(candidates, count, replace=False)] = False
        return example | {"token_mask": mask}
