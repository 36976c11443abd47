"""How near written captions are to true ones: BLEU-4, ROUGE-L and CIDEr, on pycocoevalcap's scale.

They are the numbers of pycocoevalcap, the COCO captions' evaluation (Chen et al. 2015), but for the words: its
tokenizer is a program in Java, here a text is its words in small letters without punctuation.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

WORD = re.compile(r"\w+(?:['’-]\w+)*")
SCORES = ("exact_match", "bleu4", "rouge_l", "cider")
LONGEST = 4  # words in a sequence of words that BLEU and CIDEr count
BETA = 1.2  # how much more recall counts than precision
SIGMA = 6.0  # of CIDEr's penalty on length
Words: TypeAlias = tuple[str, ...]
Counts: TypeAlias = list[Counter[Words]]


def caption_scores(written: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Scores of a split's captions; 0 without any.

    Args:
      written: a caption of each picture.
      references: the true captions of each, at least one.

    Returns:
      "exact_match", the share of captions that are one of the true ones, letter by letter but for spaces; "bleu4" and
      "rouge_l", 0 to 1, and "cider", 0 to 10.
    """
    spaced = lambda text: " ".join(text.split())  # noqa: E731
    same = [spaced(text) in map(spaced, true) for text, true in zip(written, references)]
    texts = [words_of(text) for text in written]
    truths = [[words_of(text) for text in true] for true in references]
    return {
        "exact_match": float(np.mean(same)) if same else 0.0,
        "bleu4": bleu4(texts, truths),
        "rouge_l": float(np.mean([rouge_l(*pair) for pair in zip(texts, truths)])) if texts else 0.0,
        "cider": float(np.mean(ciders(texts, truths))) if texts else 0.0,
    }


def words_of(text: str) -> Words:
    """A text's words in small letters, without punctuation."""
    return tuple(WORD.findall(text.lower()))


def bleu4(texts: Sequence[Words], truths: Sequence[Sequence[Words]]) -> float:
    """BLEU of the corpus with sequences of up to 4 words (Papineni et al. 2002), by sacreBLEU, 0 to 1."""
    from sacrebleu.metrics import BLEU

    if not texts:
        return 0.0
    most = max(map(len, truths))
    columns: Any = [[" ".join(true[n]) if n < len(true) else None for true in truths] for n in range(most)]
    metric = BLEU(tokenize="none", smooth_method="none", max_ngram_order=LONGEST)
    return float(metric.corpus_score([" ".join(text) for text in texts], columns).score) / 100


def rouge_l(text: Words, truths: Sequence[Words]) -> float:
    """F of the longest common subsequence, of the best precision and the best recall (Lin 2004), 0 to 1."""
    common = [common_words(text, true) for true in truths]
    precision = max(common) / max(len(text), 1)
    recall = max(count / max(len(true), 1) for count, true in zip(common, truths))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_words(first: Words, second: Words) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        before = row
        row = [0]
        for place, other in enumerate(second):
            row.append(before[place] + 1 if word == other else max(row[-1], before[place + 1]))
    return row[-1]


def ciders(texts: Sequence[Words], truths: Sequence[Sequence[Words]]) -> np.ndarray:
    """CIDEr-D of each caption (Vedantam et al. 2015, section 5), float64 [N], 0 to 10.

    Words that most pictures' captions have count little, so that a caption alone scores 0. As in pycocoevalcap, the
    length that is compared is the number of pairs of words.
    """
    counted = [counts_of(text) for text in texts]
    references = [[counts_of(true) for true in each] for each in truths]
    pictures: Counter[Words] = Counter()
    for each in references:
        pictures.update({words for counts in each for order in counts for words in order})
    whole = math.log(len(texts))

    def weighted(counts: Counter[Words]) -> dict[Words, float]:
        return {words: n * (whole - math.log(max(1, pictures[words]))) for words, n in counts.items()}

    def likeness(text: Counter[Words], true: Counter[Words]) -> float:
        one, other = weighted(text), weighted(true)
        norm = math.sqrt(sum(x * x for x in one.values()) * sum(x * x for x in other.values()))
        total = sum(min(one[words], other[words]) * other[words] for words in one.keys() & other.keys())
        return total / norm if norm else 0.0

    def score(text: Counts, each: Sequence[Counts]) -> float:
        found = []
        for true in each:
            apart = text[1].total() - true[1].total()
            alike = np.mean([likeness(*pair) for pair in zip(text, true)])
            found.append(alike * math.exp(-(apart**2) / (2 * SIGMA**2)))
        return 10 * float(np.mean(found))

    return np.array([score(*pair) for pair in zip(counted, references)])


def counts_of(text: Words) -> Counts:
    """How often each sequence of 1, 2, 3 and 4 words stands in a text."""
    return [Counter(zip(*(text[i:] for i in range(order)))) for order in range(1, LONGEST + 1)]
