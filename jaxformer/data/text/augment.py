"""Augmentation of text for classification: EDA's operations on words (Wei & Zou 2019), and cutoff of tokens.

They are transforms of text, see `text_transforms.py`. Of a pair only the first text is changed. Words are what stands
between white space. Punctuation that stands alone is no word: it stays where it is and is not counted. Where the
paper's code and its text differ, the text is followed: a stop word's synonyms are not inserted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, TypeAlias

import numpy as np

from jaxformer.config.fields import Constraint, Fraction
from jaxformer.data.text.text_transforms import Bound, Example, Share, TextTransform
from jaxformer.data.text.thesaurus import DATABASE, Thesaurus, load_thesaurus
from jaxformer.data.text.tokenizers import Tokenizer

Words = list[str]
ThesaurusPath: TypeAlias = Annotated[
    str,
    Constraint(
        f"a file that is there, of lines 'big: large, huge', or {DATABASE}",
        lambda path: bool(path) and Path(path).expanduser().exists(),
    ),
]

# Never replaced: the stop words of the paper's code (jasonwei20/eda_nlp, code/eda.py), once NLTK's for English.
STOP_WORDS_TEXT = """
    a about above after again against all am an and any are as at be because been before being below between
    both but by can did do does doing don down during each few for from further had has have having he her
    here hers herself him himself his how i if in into is it its itself just me more most my myself no nor not
    now of off on once only or other our ours ourselves out over own s same she should so some such t than that
    the their theirs them themselves then there these they this those through to too under until up very was
    we were what when where which while who whom why will with you your yours yourself yourselves
"""
STOP_WORDS = frozenset(STOP_WORDS_TEXT.split())


def changes(alpha: float, words: Words) -> int:
    """How many changes: n = max(1, alpha times the number of words), as the paper's code has it."""
    return max(1, int(alpha * len(places(words))))


def places(words: Words) -> list[int]:
    """The indices of what has a letter or a digit: punctuation that stands alone is no word, and stays."""
    return [index for index, word in enumerate(words) if core(word)[1]]


def core(word: str) -> tuple[str, str, str]:
    """A word's punctuation before, itself from its first letter or digit to its last, and punctuation after."""
    inside = [index for index, character in enumerate(word) if character.isalnum()]
    if not inside:
        return word, "", ""
    return word[: inside[0]], word[inside[0] : inside[-1] + 1], word[inside[-1] + 1 :]


def replace_words(words: Words, count: int, thesaurus: Thesaurus, rng: np.random.Generator) -> Words:
    """Replaces up to `count` different words, wherever they occur, each with one synonym; stop words stay.

    Punctuation around a word stays, and a synonym is capitalised as the word was.
    """
    cores = [core(word)[1].lower() for word in words]
    candidates = [word for word in dict.fromkeys(cores) if word and word not in STOP_WORDS]
    chosen: dict[str, str] = {}
    for index in rng.permutation(len(candidates)):
        if len(chosen) == count:
            break
        synonyms = thesaurus.synonyms(candidates[index])
        if synonyms:
            chosen[candidates[index]] = synonyms[rng.integers(len(synonyms))]
    return [dress(chosen[key], word) if key in chosen else word for key, word in zip(cores, words)]


def dress(synonym: str, word: str) -> str:
    """`synonym` with the capitals and the punctuation of `word`."""
    before, inside, after = core(word)
    if len(inside) > 1 and inside.isupper():
        synonym = synonym.upper()
    elif inside[0].isupper():
        synonym = synonym[0].upper() + synonym[1:]
    return before + synonym + after


def insert_words(words: Words, count: int, thesaurus: Thesaurus, rng: np.random.Generator) -> Words:
    """`count` times inserts, anywhere, a synonym of one of the words that is no stop word."""
    known = [core(words[index])[1].lower() for index in places(words)]
    lists = [thesaurus.synonyms(word) for word in known if word not in STOP_WORDS]
    lists = [synonyms for synonyms in lists if synonyms]
    changed = list(words)
    for _ in range(count if lists else 0):
        synonyms = lists[rng.integers(len(lists))]
        changed.insert(rng.integers(len(changed) + 1), synonyms[rng.integers(len(synonyms))])
    return changed


def swap_words(words: Words, count: int, rng: np.random.Generator) -> Words:
    """`count` times swaps two words at different places."""
    changed, movable = list(words), places(words)
    for _ in range(count if len(movable) > 1 else 0):
        first, second = rng.choice(movable, 2, replace=False)
        changed[first], changed[second] = changed[second], changed[first]
    return changed


def delete_words(words: Words, probability: float, rng: np.random.Generator) -> Words:
    """Deletes each word with `probability`; if that would be all of them, one of them stays."""
    deletable = places(words)
    if len(deletable) < 2:
        return list(words)
    deleted = {index for index, drawn in zip(deletable, rng.random(len(deletable))) if drawn < probability}
    if len(deleted) == len(deletable):
        deleted.remove(deletable[rng.integers(len(deletable))])
    return [word for index, word in enumerate(words) if index not in deleted]


# Name -> (words, alpha, rng, thesaurus) -> the changed words. `Eda` draws one of them, by their order.
OPERATIONS: dict[str, Callable[..., Words]] = {
    "replacement": lambda words, alpha, rng, from_: replace_words(words, changes(alpha, words), from_, rng),
    "insertion": lambda words, alpha, rng, from_: insert_words(words, changes(alpha, words), from_, rng),
    "swap": lambda words, alpha, rng, _: swap_words(words, changes(alpha, words), rng),
    "deletion": lambda words, alpha, rng, _: delete_words(words, alpha, rng),
}


@dataclass(frozen=True)
class WordTransform(TextTransform):
    """Changes the words of the first text; the batch's labels have to be labels of whole texts."""

    def apply(self, example: Example, rng: np.random.Generator, bound: Bound) -> Example:
        bound.check_places(example)
        return bound.change_words(example, lambda words: self.augment(words, rng, bound.loaded))

    def augment(self, words: Words, rng: np.random.Generator, synonyms: Thesaurus | None) -> Words:
        """The words of a text, changed; `words` stays as it is."""
        raise NotImplementedError


@dataclass(frozen=True)
class WithThesaurus(WordTransform):
    """Takes words from a thesaurus."""

    thesaurus: ThesaurusPath
    """File or folder of synonyms; see `load_thesaurus`."""

    def load(self, tokenizer: Tokenizer) -> Thesaurus:
        return load_thesaurus(self.thesaurus)


@dataclass(frozen=True)
class OneOperation(WordTransform):
    """Does one of EDA's operations."""

    operation: ClassVar[str]
    """Its name in `OPERATIONS`."""
    alpha: Share = 0.1
    """How many words are replaced or inserted, or how often two are swapped, as a share of the words, rounded down,
    but at least one; of "random_deletion", the probability with which each word is deleted: one always stays."""

    def augment(self, words: Words, rng: np.random.Generator, synonyms: Thesaurus | None) -> Words:
        return OPERATIONS[self.operation](words, self.alpha, rng, synonyms)


@dataclass(frozen=True)
class SynonymReplacement(OneOperation, WithThesaurus):
    """Replaces words with synonyms (EDA's "SR")."""

    operation: ClassVar[str] = "replacement"


@dataclass(frozen=True)
class RandomInsertion(OneOperation, WithThesaurus):
    """Inserts synonyms of the text's words anywhere (EDA's "RI")."""

    operation: ClassVar[str] = "insertion"


@dataclass(frozen=True)
class RandomSwap(OneOperation):
    """Swaps two words, several times (EDA's "RS")."""

    operation: ClassVar[str] = "swap"


@dataclass(frozen=True)
class RandomDeletion(OneOperation):
    """Deletes words (EDA's "RD")."""

    operation: ClassVar[str] = "deletion"


@dataclass(frozen=True)
class Eda(WithThesaurus):
    """One of the four operations, drawn evenly: "easy data augmentation" (Wei & Zou 2019, arXiv 1901.11196).

    The paper writes several changed copies beside each original; here an example is changed anew whenever it is
    seen. Its section 3.3 has alpha = 0.05 with 16 copies for 500 examples, 0.05 and 8 for 2,000, 0.1 and 4 for
    5,000 and more: `share` 16/17, 8/9, 4/5.
    """

    alpha_replacement: Fraction = 0.1
    """How much "synonym_replacement" changes; 0 leaves the operation out, here and below."""
    alpha_insertion: Fraction = 0.1
    """How much "random_insertion" changes."""
    alpha_swap: Fraction = 0.1
    """How much "random_swap" changes."""
    alpha_deletion: Fraction = 0.1
    """How much "random_deletion" changes."""
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
        candidates = np.flatnonzero(mask & ~bound.is_special(tokens))
        count = min(int(self.share * len(candidates)), len(candidates) - 1)
        if count > 0:
            mask[rng.choice(candidates, count, replace=False)] = False
        return example | {"token_mask": mask}
