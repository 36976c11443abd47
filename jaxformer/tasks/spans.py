"""Answers as spans of a text (Rajpurkar et al. 2016, SQuAD)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.config.fields import PositiveInt
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks.base import Batch, Batches, DataInfo, Evaluation, Row, example_mask, masked_sum
from jaxformer.tasks.losses import token_cross_entropy
from jaxformer.tasks.text import TextTask, text_of
from jaxformer.tasks.text_metrics import best_spans, squad_scores

NEVER = -1e9  # the logit of a place that is no answer's


@dataclass(frozen=True)
class SpanQA(TextTask):
    """Learns where an answer begins and where it ends (Devlin et al. 2019, section 4.2).

    Batches have `tokens`, `token_mask`, `token_types` (int32 [B, T]), `start` and `end` (int32 [B], 0 where the window
    does not hold the answer). Models give logits [B, T, 2].
    """

    max_answer_tokens: PositiveInt = 30
    """Tokens in an answer, at most."""
    n_best: PositiveInt = 20
    """How many answers are compared for each question."""

    metric_names: ClassVar = ("loss", "exact_match", "f1")
    reads: ClassVar = "question"
    needs = ("tokens", "token_mask", "start", "end")
    head = "span"

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        yield from super().fits(model, train, evaluation)
        if getattr(train.source, "answered", None) == 0:
            yield "data.train_split: no window holds its question's answer, nothing can be learnt; choose another"
        if unanswered := getattr(evaluation.source, "unanswered", 0):
            yield (
                f"eval.split: {unanswered:,} of its questions have no answer (as some of SQuAD 2.0), and such are not "
                "scored; remove them from the split"
            )

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """The number of windows, float32 []."""
        return {"cross_entropy": jnp.sum(example_mask(batch), dtype=jnp.float32)}

    def logits(self, outputs: TextOutputs, batch: Batch) -> jax.Array:
        """Logits of starts and ends, float32 [B, 2, T]; NEVER on padding."""
        mask = jnp.asarray(batch["token_mask"])[:, None, :]
        return jnp.where(mask, outputs.logits.swapaxes(1, 2), NEVER)

    def loss(self, outputs: TextOutputs, batch: Batch) -> dict[str, jax.Array]:
        """The mean of both borders' cross-entropies, summed over the windows."""
        return {"cross_entropy": masked_sum(self.losses(outputs, batch), example_mask(batch))}

    def losses(self, outputs: TextOutputs, batch: Batch) -> jax.Array:
        """The loss of each window, float32 [B]."""
        borders = jnp.stack([batch["start"], batch["end"]], axis=1)  # [B, 2]
        return jnp.mean(token_cross_entropy(self.logits(outputs, batch), borders), axis=1)

    def eval_sums(self, outputs: TextOutputs, batch: Batch) -> dict[str, Any]:
        """The loss and the number of windows, float32 []."""
        return {
            "loss": self.loss(outputs, batch)["cross_entropy"],
            "count": self.counts(batch)["cross_entropy"],
        }

    def collect(self, outputs: TextOutputs, batch: Batch, model: Any, variables: Any) -> dict[str, jax.Array]:
        """Logits of starts and ends, float32 [B, 2, T], and each window's number in the split."""
        return {"index": batch["index"], **self.predictions(outputs, batch)}

    def summarize(
        self, sums: Mapping[str, np.ndarray], collected: Mapping[str, np.ndarray], data: Batches
    ) -> Evaluation:
        """Metrics "loss" (of windows), and "exact_match" and "f1" of the best answers over all windows, 0 to 1."""
        logits, windows = collected["logits"], collected["index"]
        characters = stacked([data.source.characters(int(window)) for window in windows], logits.shape[2])
        examples = np.asarray(data.source.examples)[windows]
        questions = {int(example): data.source.question(int(example)) for example in np.unique(examples)}
        contexts = {example: question.context for example, question in questions.items()}
        found = self.best(logits, characters, contexts, examples)
        scores = squad_scores(
            {questions[example].id: answers[0]["text"] for example, answers in found.items()},
            {question.id: question.answers for question in questions.values()},
        )
        return Evaluation({"loss": float(sums["loss"]) / max(float(sums["count"]), 1.0), **scores}, {})

    def best(self, logits: np.ndarray, characters: np.ndarray, contexts: Any, examples: np.ndarray) -> dict:
        """The best answers to each question from its windows' logits [W, 2, T]; see `best_spans`."""
        borders = logits[:, 0], logits[:, 1]
        return best_spans(*borders, characters, contexts, examples, self.n_best, self.max_answer_tokens)

    def predictions(self, outputs: TextOutputs, batch: Batch) -> dict[str, jax.Array]:
        """Logits of starts and ends, float32 [B, 2, T]."""
        return {"logits": self.logits(outputs, batch)}

    def errors(self, outputs: TextOutputs, batch: Batch) -> jax.Array:
        return self.losses(outputs, batch)

    def answers(self, predicted: Row, example: Row, about: DataInfo, top: int = 5) -> dict[str, Any]:
        """The best "answer" over all windows with its "score", "probability", "start" and "end" (characters of the
        context), and the `top` best as "answers".

        Args:
          predicted: `logits` of the question's windows, [W, 2, T].
          example: "characters", a list of int [n, 2] for each window, and the "context".
          about: not needed.
          top: how many answers to list.
        """
        logits = predicted["logits"]
        characters = stacked(example["characters"], logits.shape[2])
        found = self.best(logits, characters, [example["context"]], np.zeros(len(logits), int))[0]
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


def stacked(windows: list[np.ndarray], length: int) -> np.ndarray:
    """int32 [W, length, 2]: where tokens stand in their context; -1 on padding."""
    found = np.full((len(windows), length, 2), -1, np.int32)
    for row, places in zip(found, windows):
        row[: len(places)] = places
    return found


def place_of(answer: str, text: str, before: int) -> tuple[int, int] | None:
    """The range of a text's letters that is the answer, behind `before` letters or one less; None if there is none."""
    begin = text.find(answer, max(0, before - 1)) if answer else -1
    return None if begin < 0 else (begin, begin + len(answer))
