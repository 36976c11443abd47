"""EDA's operations on the words of a text (Wei & Zou 2019, section 2): pure functions of words and `rng`.

Words are what stands between white space. Punctuation that stands alone is no word: it stays where it is and is not
counted. Where the paper's code and its text differ, the text is followed: a stop word's synonyms are not inserted.
"""

from collections.abc import Callable

import numpy as np

from jaxformer.data.text.thesaurus import Thesaurus

Words = list[str]

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
