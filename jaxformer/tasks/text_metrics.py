"""Metrics of text tasks, on the host, over a whole split: answers to questions, entities, translations, correlations.

All are from 0 to 1 (correlations from -1), as every metric of the project, but BLEU and chrF, which are from 0 to
100, as everybody reports them. Where nothing was to be scored they are 0 and not NaN.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxformer.errors import UserError

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
ENTITY_TAG = re.compile(r"O$|[BIES](-|$)")
NO_ANSWER: dict[str, Any] = {"text": "", "score": 0.0, "probability": 1.0, "start": 0, "end": 0}


def normalize_answer(text: str) -> str:
    """`text` in lower case without ASCII punctuation, English articles and superfluous white space.

    That is SQuAD's official evaluation, v1.1 (Rajpurkar et al. 2016, section 6.1).
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction is one of the answers, after `normalize_answer`; else 0."""
    return float(normalize_answer(prediction) in map(normalize_answer, answers))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """The best F1 over the answers, of the words in common as a multiset, after `normalize_answer`.

    As in SQuAD v1.1 it is 0 where no word is in common, hence also between two texts without words ("the" and
    "a"), which are an exact match; v2.0 has 1 there.
    """
    predicted = Counter(normalize_answer(prediction).split())
    scores = [0.0]
    for answer in answers:
        true = Counter(normalize_answer(answer).split())
        if common := (predicted & true).total():
            scores.append(2 * common / (predicted.total() + true.total()))
    return max(scores)


def squad_scores(predictions: Mapping[str, str], gold: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Means of `exact_match` and `f1` over the questions, 0 to 1; SQuAD's script prints them times 100.

    Args:
      predictions: a question's id -> the predicted answer; a question without one counts as wrong.
      gold: a question's id -> its answers, at least one (v1.1: every question has an answer).

    Returns:
      "exact_match" and "f1".

    Raises:
      UserError: a question has no answer.
    """
    unanswerable = next((key for key, answers in gold.items() if not answers), None)
    if unanswerable is not None:
        raise UserError(
            f"question {unanswerable!r}: has no answer; questions without one (SQuAD 2.0's) are not scored, "
            "leave them out of the split"
        )
    pairs = [(predictions[key], answers) for key, answers in gold.items() if key in predictions]
    return {
        "exact_match": sum(exact_match(*pair) for pair in pairs) / max(len(gold), 1),
        "f1": sum(f1(*pair) for pair in pairs) / max(len(gold), 1),
    }


def best_spans(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    offsets: np.ndarray,
    contexts: Mapping[int, str] | Sequence[str],
    examples: np.ndarray,
    n_best: int = 20,
    max_answer_tokens: int = 30,
) -> dict[int, list[dict[str, Any]]]:
    """The n best answers to every question, as google-research/bert's run_squad.py finds them.

    In each window the `n_best` best starts and the `n_best` best ends (of the context's tokens alone; run_squad.py
    counts the question's too, and drops them later) are combined, unless the end is before the start or the answer too
    long. All that the windows of an example give is sorted by score, and of equal texts the best one stays. A span
    may be read in several windows: run_squad.py keeps the window with the most context around it, here (as in
    transformers' example) the one with the higher score.

    Args:
      start_logits: [W, T], a window a row.
      end_logits: [W, T].
      offsets: int [W, T, 2], where each token begins and ends in its context, in characters; -1 where the token is
        not of the context (special tokens, question, padding).
      contexts: the contexts of the examples, which `examples` and the result index.
      examples: int [W], whose context each window is of; in any order.
      n_best: answers for each example, at most, and starts and ends for each window.
      max_answer_tokens: tokens in an answer, at most.

    Returns:
      For each example that has a window, its answers, best first, at least one: "text" (context[start:end]),
      "score" (the sum of both logits), "probability" (softmax of the scores over these answers), "start" and
      "end" (characters). Where no start comes before any end the answer is "", with score 0.
    """
    first, last, scores = window_candidates(start_logits, end_logits, offsets, n_best, max_answer_tokens)
    examples = np.asarray(examples)
    order = np.argsort(examples, kind="stable")
    owners, begins = np.unique(examples[order], return_index=True)
    answers = {}
    for owner, windows in zip(owners.tolist(), np.split(order, begins[1:])):
        texts = candidate_texts(first[windows], last[windows], scores[windows])
        answers[owner] = distinct(texts, contexts[owner], n_best)
    return answers


def window_candidates(
    start_logits: np.ndarray, end_logits: np.ndarray, offsets: np.ndarray, n_best: int, max_answer_tokens: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Characters where each window's candidates begin and end, int [W, K], and scores, float64 [W, K].

    K is at most n_best^2; where a pair is no answer its score is -inf. Candidates stand in order of their start's
    rank, then of their end's.
    """
    offsets = np.asarray(offsets)
    inside = offsets[..., 0] >= 0
    starts = best_places(start_logits, inside, n_best)  # [W, n]
    ends = best_places(end_logits, inside, n_best)
    start_scores = np.take_along_axis(np.asarray(start_logits, np.float64), starts, 1)
    end_scores = np.take_along_axis(np.asarray(end_logits, np.float64), ends, 1)
    length = ends[:, None, :] - starts[:, :, None] + 1  # [W, n, n]
    allowed = (length >= 1) & (length <= max_answer_tokens)
    allowed &= (
        np.take_along_axis(inside, starts, 1)[:, :, None] & np.take_along_axis(inside, ends, 1)[:, None, :]
    )
    scores = np.where(allowed, start_scores[:, :, None] + end_scores[:, None, :], -np.inf)
    first = np.take_along_axis(offsets[..., 0], starts, 1)[:, :, None]
    last = np.take_along_axis(offsets[..., 1], ends, 1)[:, None, :]
    flat = (len(scores), -1)
    return (
        np.broadcast_to(first, scores.shape).reshape(flat),
        np.broadcast_to(last, scores.shape).reshape(flat),
        scores.reshape(flat),
    )


def best_places(logits: np.ndarray, inside: np.ndarray, count: int) -> np.ndarray:
    """The `count` best places of each row [W, T] that are inside, best first; of equal ones the first."""
    masked = np.where(inside, -np.asarray(logits, np.float64), np.inf)
    return np.argsort(masked, axis=1, kind="stable")[:, :count]


def candidate_texts(first: np.ndarray, last: np.ndarray, scores: np.ndarray) -> tuple[list, list, list]:
    """One example's candidates, best first, as lists of starts, ends and scores; those of -inf are left out."""
    scores = scores.ravel()
    order = np.argsort(-scores, kind="stable")
    order = order[: int((scores > -np.inf).sum())]
    return first.ravel()[order].tolist(), last.ravel()[order].tolist(), scores[order].tolist()


def distinct(candidates: tuple[list, list, list], context: str, n_best: int) -> list[dict[str, Any]]:
    """The first `n_best` candidates that have different texts, with probabilities."""
    found: dict[str, dict[str, Any]] = {}
    for start, end, score in zip(*candidates):
        text = context[start:end]
        if text not in found:
            found[text] = {"text": text, "score": score, "probability": 0.0, "start": start, "end": end}
            if len(found) == n_best:
                break
    answers = list(found.values())
    if not answers:
        return [dict(NO_ANSWER)]
    odds = np.exp(np.array([answer["score"] for answer in answers]) - answers[0]["score"])
    for answer, probability in zip(answers, (odds / odds.sum()).tolist()):
        answer["probability"] = probability
    return answers


def entity_scores(predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Precision, recall and F1 of whole entities, by seqeval, which counts as CoNLL's conlleval does.

    Only an entity with the right type and both right ends is right. An entity may begin with I-, as conlleval
    has it.

    Args:
      predicted: for each text, a tag a word: "O", "B-PER", "I-PER", ... (IOB1, IOB2, IOE or IOBES).
      true: the same for the true tags, of the same lengths.

    Returns:
      "precision", "recall" and "f1" over all entities (micro average), 0 to 1, and "entities": a dict for each
      type, sorted, with "type", "precision", "recall", "f1" and "support" (the true entities of that type).

    Raises:
      UserError: a tag is not of an entity ("NOUN").
      ValueError: lengths differ.
    """
    from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support

    if [len(tags) for tags in predicted] != [len(tags) for tags in true]:
        raise ValueError("predicted and true tags are not of the same lengths")
    tags = {tag for texts in (predicted, true) for text in texts for tag in text}
    wrong = next((tag for tag in sorted(tags) if not ENTITY_TAG.match(tag)), None)
    if wrong is not None:
        raise UserError(
            f"tag {wrong!r}: not an entity's, which are 'O', 'B-TYPE', 'I-TYPE' (and 'E-TYPE', 'S-TYPE'); "
            "take accuracy for tags that are no entities"
        )
    lists = [list(map(list, true)), list(map(list, predicted))]
    types = sorted({entity[0] for texts in lists for entity in get_entities(texts)})
    if not types:
        return {"precision": 0.0, "recall": 0.0, "f1": 0.0, "entities": []}
    micro = precision_recall_fscore_support(*lists, average="micro", zero_division=0)
    each = precision_recall_fscore_support(*lists, average=None, zero_division=0)
    columns = ("precision", "recall", "f1")
    return {
        **{column: float(value) for column, value in zip(columns, micro)},
        "entities": [
            {
                "type": name,
                **{column: float(value) for column, value in zip(columns, row)},
                "support": int(row[3]),
            }
            for name, row in zip(types, zip(*each))
        ],
    }


def translation_scores(
    hypotheses: Sequence[str], references: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Corpus BLEU and chrF by sacreBLEU (Post 2018), both 0 to 100.

    Texts are plain ones, cased and not tokenised: sacreBLEU does that by itself (13a, as mteval-v13a).

    Args:
      hypotheses: the translations.
      references: the true translation of each.

    Returns:
      Scores "bleu" and "chrf", and the signature of each, which belongs beside the figure wherever it is shown.

    Raises:
      ValueError: they are not as many.
    """
    from sacrebleu.metrics import BLEU, CHRF

    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses, {len(references)} references")
    metrics = {"bleu": BLEU(), "chrf": CHRF()}
    if not hypotheses:
        hypotheses, references = [""], [""]  # 0, and a signature
    scores = {
        name: float(metric.corpus_score(hypotheses, [references]).score) for name, metric in metrics.items()
    }
    return scores, {name: str(metric.get_signature()) for name, metric in metrics.items()}


def pearson(predictions: Sequence[float] | np.ndarray, labels: Sequence[float] | np.ndarray) -> float:
    """Pearson's correlation, -1 to 1; 0 where one side is constant, as a collapsed model's is."""
    from scipy import stats

    return correlation(stats.pearsonr, predictions, labels)


def spearman(predictions: Sequence[float] | np.ndarray, labels: Sequence[float] | np.ndarray) -> float:
    """Spearman's rank correlation, -1 to 1; 0 where one side is constant."""
    from scipy import stats

    return correlation(stats.spearmanr, predictions, labels)


def correlation(of: Callable[..., Any], predictions: Any, labels: Any) -> float:
    """One of SciPy's correlations; 0 where it is not defined, since one side has a single value."""
    x, y = np.asarray(predictions, np.float64), np.asarray(labels, np.float64)
    if (x == x[:1]).all() or (y == y[:1]).all():
        return 0.0
    return float(of(x, y).statistic)
