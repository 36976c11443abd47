"""Answers as spans of a text (Rajpurkar et al. 2016, SQuAD): the task, the best spans, and their scores."""

import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.config.fields import PositiveInt
from jaxformer.errors import UserError
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks import base
from jaxformer.tasks.base import Arrays, Batch, Batches, DataInfo, Row
from jaxformer.tasks.losses import token_cross_entropy
from jaxformer.tasks.text import TextTask, text_of

NEVER = -1e9  # the logit of padding
PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class SpanQA(base.ExampleTask, TextTask):
    """Learns where an answer begins and where it ends (Devlin et al. 2019, section 4.2).

    Batches have `tokens`, `token_mask`, `token_types` (int32 [B, T]), `start` and `end` (int32 [B], 0 where the window
    does not hold the answer). Models give logits [B, T, 2].
    """

    max_answer_tokens: PositiveInt = 30
    """Tokens in an answer, at most."""
    n_best: PositiveInt = 20
    """How many answers are compared for each question."""
    no_answer_threshold: float | None = None
    """How much more "no answer" (the window's first token) must score than the best answer in order to be given: 0 is
    usual for SQuAD 2.0 (Rajpurkar et al. 2018). None always gives an answer, as SQuAD 1.1 has one for each question."""

    metric_names: ClassVar = ("loss", "exact_match", "f1")
    reads: ClassVar = "question"
    needs = ("tokens", "token_mask", "start", "end")
    head = "span"

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        yield from super().fits(model, train, evaluation)
        if getattr(train.source, "answered", None) == 0:
            yield "data.train_split: no window holds its question's answer, nothing can be learnt; choose another"
        unanswered = getattr(evaluation.source, "unanswered", 0)
        if unanswered and self.no_answer_threshold is None:
            without = f"{unanswered:,} of its questions have no answer (as some of SQuAD 2.0)"
            yield f"eval.split: {without}; set task.no_answer_threshold=0 to score them, or remove them from the split"

    def logits(self, outputs: TextOutputs, batch: Batch) -> jax.Array:
        """Logits of starts and ends, float32 [B, 2, T]; NEVER on padding."""
        mask = jnp.asarray(batch["token_mask"])[:, None, :]
        return jnp.where(mask, outputs.logits.swapaxes(1, 2), NEVER)

    def losses(self, outputs: TextOutputs, batch: Batch) -> jax.Array:
        """The mean of both borders' cross-entropies."""
        borders = jnp.stack([batch["start"], batch["end"]], axis=1)  # [B, 2]
        return jnp.mean(token_cross_entropy(self.logits(outputs, batch), borders), axis=1)

    def predictions(self, outputs: TextOutputs, batch: Batch) -> Arrays:
        """Logits of starts and ends, float32 [B, 2, T]."""
        return {"logits": self.logits(outputs, batch)}

    def collect(self, outputs: TextOutputs, batch: Batch, model: Any, variables: Any) -> Arrays:
        """Logits of starts and ends, float32 [B, 2, T], and each window's number in the split."""
        return {"index": batch["index"], **self.predictions(outputs, batch)}

    def summarize(self, sums: base.Sums, collected: base.Collected, data: Batches) -> base.Evaluation:
        """Metrics "loss" (of windows), and "exact_match" and "f1" of the best answers over all windows, 0 to 1."""
        windows, source = collected["index"], data.source
        owners = np.asarray(source.examples)[windows]
        predicted, gold = {}, {}
        for number in np.unique(owners):
            rows, question = np.flatnonzero(owners == number), source.question(int(number))
            characters = [source.characters(int(window)) for window in windows[rows]]
            best = self.best(collected["logits"][rows], characters, question.context)[0]
            predicted[question.id], gold[question.id] = best["text"], question.answers
        scores = squad_scores(predicted, gold, self.no_answer_threshold is not None)
        return base.Evaluation({"loss": base.mean_of(sums), **scores}, {})

    def best(self, logits: np.ndarray, characters: Sequence[np.ndarray], context: str) -> list[dict]:
        """The best answers to a question.

        Args:
          logits: of its windows, [W, 2, T].
          characters: where the tokens of each window stand in the context, int [n, 2].
          context: the text.
        """
        offsets = np.full((len(logits), logits.shape[2], 2), -1, np.int32)  # -1 on padding
        for row, places in zip(offsets, characters):
            row[: len(places)] = places
        found = best_spans(logits, offsets, context, self.n_best, self.max_answer_tokens)
        if self.no_answer_threshold is None:
            return found
        return with_no_answer(found, float(logits[:, :, 0].sum(1).min()), self.no_answer_threshold)

    def answers(self, predicted: Row, example: Row, about: DataInfo, top: int = 5) -> dict[str, Any]:
        """The best "answer" over all windows with its "score", "probability", "start" and "end" (characters of the
        context), and the `top` best as "answers"; "" is no answer.

        Args:
          predicted: `logits` of the question's windows, [W, 2, T].
          example: "characters", a list of int [n, 2] for each window, and the "context".
          about: not needed.
          top: how many answers to list.
        """
        found = self.best(predicted["logits"], example["characters"], example["context"])
        best = {"answer" if name == "text" else name: value for name, value in found[0].items()}
        return {**best, "answers": found[:top]}

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        """The text, the answer in this window and the one that the model gives."""
        tokenizer, tokens = data.tokenizer, example["tokens"]
        start, end = (int(i) for i in predicted["logits"].argmax(axis=-1))
        given = tokenizer.decode(tokens[start : end + 1]) if 0 < start <= end else ""
        sample: dict[str, Any] = {"text": text_of(example, data), "prediction": given}
        if "start" not in example:
            return sample | {"correct": None}
        first, last = int(example["start"]), int(example["end"])
        target = tokenizer.decode(tokens[first : last + 1]) if first else ""
        place = place_of(target, sample["text"], len(tokenizer.decode(tokens[:first])))
        return sample | {"correct": (start, end) == (first, last), "target": target, "answer": place}


def place_of(answer: str, text: str, before: int) -> tuple[int, int] | None:
    """The range of a text's letters that is the answer, behind `before` letters or one less; None if there is none."""
    begin = text.find(answer, max(0, before - 1)) if answer else -1
    return None if begin < 0 else (begin, begin + len(answer))


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
    predicted, *wanted = (Counter(normalize_answer(text).split()) for text in (prediction, *answers))
    common = ((2 * (predicted & true).total(), predicted.total() + true.total()) for true in wanted)
    return max(twice / max(both, 1) for twice, both in common)


def squad_scores(
    predictions: Mapping[str, str], gold: Mapping[str, Sequence[str]], unanswerable: bool = False
) -> dict[str, float]:
    """Means of `exact_match` and `f1` over the questions, 0 to 1; SQuAD's script prints them times 100.

    Args:
      predictions: a question's id -> the predicted answer; a question without one counts as wrong.
      gold: a question's id -> its answers.
      unanswerable: whether a question may have none, as in v2.0: both scores are 1 where none is predicted ("").

    Returns:
      "exact_match" and "f1".

    Raises:
      UserError: a question has no answer, and is to have one (v1.1).
    """
    for key, answers in gold.items():
        if not answers and not unanswerable:
            remedy = "set task.no_answer_threshold=0 (SQuAD 2.0), or leave such questions out of the split"
            raise UserError(f"question {key!r}: has no answer; {remedy}")
    pairs = [(predictions[key], answers) for key, answers in gold.items() if key in predictions]
    without = sum(not normalize_answer(given) for given, answers in pairs if not answers)
    pairs = [pair for pair in pairs if pair[1]]
    exact, overlap = (without + sum(score(*pair) for pair in pairs) for score in (exact_match, f1))
    return {"exact_match": exact / max(len(gold), 1), "f1": overlap / max(len(gold), 1)}


def with_no_answer(found: list[dict[str, Any]], score: float, threshold: float) -> list[dict[str, Any]]:
    """The best answers with "" among them, as google-research/bert's run_squad.py has it for SQuAD 2.0.

    Args:
      found: the answers of `best_spans`.
      score: of no answer: the sum of both logits of the first token, in the window where it is the least.
      threshold: how much more than the best answer's it has to be for "" to come first.
    """
    answers = [answer for answer in found if answer["text"]]
    nothing = {"text": "", "score": score, "probability": 0.0, "start": 0, "end": 0}
    wins = not answers or score - answers[0]["score"] > threshold
    rest = sorted([*answers[1:], nothing], key=lambda answer: -answer["score"])
    ordered = [nothing, *answers] if wins else [answers[0], *rest]
    odds = np.exp([answer["score"] - max(one["score"] for one in ordered) for answer in ordered])
    shares = (odds / odds.sum()).tolist()
    return [answer | {"probability": share} for answer, share in zip(ordered, shares)]


def best_spans(
    logits: np.ndarray, offsets: np.ndarray, context: str, n_best: int = 20, max_answer_tokens: int = 30
) -> list[dict[str, Any]]:
    """The n best answers to a question over all its windows, as google-research/bert's run_squad.py finds them.

    In each window the `n_best` best starts and the `n_best` best ends (of the context's tokens alone; run_squad.py
    counts the question's too, and drops them later) are combined, unless the end is before the start or the answer too
    long. All that the windows give is sorted by score, and of equal texts the best one stays. A span whose logits are
    NaN is no answer.

    Args:
      logits: float [W, 2, T], each token's as the first and as the last of the answer.
      offsets: int [W, T, 2]: where the token's characters begin and end in the context; negative where the token is
        none of the context.
      context: the text in which the answer is.
      n_best: the number of answers, at most, and of starts and ends for each window.
      max_answer_tokens: the number of tokens in an answer, at most.

    Returns:
      The answers, best first, at least one: "text" (context[start:end]), "score" (the sum of both logits),
      "probability" (softmax of the scores over these answers), "start" and "end" (characters). Where no start comes
      before any end the answer is "", with score 0.
    """

    def best_places(of_border: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known = np.where(offsets[..., 0] >= 0, np.asarray(of_border, np.float64), -np.inf)
        places = np.argsort(-known, axis=1, kind="stable")[:, :n_best]
        return places, np.take_along_axis(known, places, 1)  # [W, n]

    starts, start_scores = best_places(logits[:, 0])
    ends, end_scores = best_places(logits[:, 1])
    lengths = ends[:, None, :] - starts[:, :, None] + 1  # [W, n, n]
    scores = start_scores[:, :, None] + end_scores[:, None, :]
    scores = np.where((lengths >= 1) & (lengths <= max_answer_tokens), scores, -np.inf)
    order = np.argsort(-scores, axis=None, kind="stable")[: np.count_nonzero(scores > -np.inf)]
    window, start, end = np.unravel_index(order, scores.shape)
    first, last = offsets[window, starts[window, start], 0], offsets[window, ends[window, end], 1]
    found: dict[str, tuple[float, int, int]] = {}
    for span in zip(scores[window, start, end].tolist(), first.tolist(), last.tolist()):
        found.setdefault(context[span[1] : span[2]], span)
        if len(found) == n_best:
            break
    found = found or {"": (0.0, 0, 0)}
    odds = np.exp(np.array([score for score, _, _ in found.values()]) - next(iter(found.values()))[0])
    return [
        {"text": text, "score": score, "probability": probability, "start": start, "end": end}
        for (text, (score, start, end)), probability in zip(found.items(), (odds / odds.sum()).tolist())
    ]
