"""A tag for each word of a text: named entities, parts of speech."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks.base import Batch, Batches, Evaluation, Row, example_mask
from jaxformer.tasks.classes import class_name
from jaxformer.tasks.losses import token_cross_entropy
from jaxformer.tasks.metrics import check_labels
from jaxformer.tasks.text import TextTask, head_fits, labels_fit, text_fits, text_of
from jaxformer.tasks.text_metrics import entity_scores


@dataclass(frozen=True)
class TokenClassification(TextTask):
    """Learns the tag of each word, at its first token (Devlin et al. 2019, section 5.3).

    Batches have `tokens`, `token_mask` and `labels` (int32 [B, T], negative where no word begins). Models give logits
    [B, T, K].
    """

    label_smoothing: float = 0.0
    """The share of a tag that is spread over all tags, in training."""

    metric_names: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "precision", "recall", "f1")

    def problems(self) -> Iterator[str]:
        """Yields a line for every value that cannot be."""
        if not 0 <= self.label_smoothing < 1:
            yield f"label_smoothing={self.label_smoothing}: expected at least 0 and less than 1, such as 0.1"

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        """Yields a line for texts without tags, texts that are too long, and too many tags."""
        yield from head_fits(model, "token")
        yield from text_fits(model, train, evaluation, ("tokens", "token_mask", "labels"))
        if not train.element_spec.get("labels", ((0,), None))[0]:
            yield "data.examples: each text has one label, this task needs one a word; choose tagged"
        else:
            yield from labels_fit(model, train, "tags")

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Refuses tags that the model does not have, and tokens that it does not know."""
        super().check(model, batch)
        labels = batch["labels"]
        check_labels(model.num_classes, labels[labels >= 0])

    def absent_metrics(self, model: Any, data: Batches) -> dict[str, str]:
        """Metrics that `summarize` will not give -> why, as a part of a sentence."""
        if are_entities(data.class_names):
            return {}
        return dict.fromkeys(("precision", "recall", "f1"), "the tags are not of entities (no B-, no I-)")

    def labels(self, batch: Batch) -> jax.Array:
        """int32 [B, T]: tags, -1 where there is none."""
        return jnp.where(example_mask(batch)[:, None], batch["labels"], -1)

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """The number of words, float32 []."""
        return {"cross_entropy": jnp.sum(self.labels(batch) >= 0, dtype=jnp.float32)}

    def loss(self, outputs: TextOutputs, batch: Batch) -> dict[str, jax.Array]:
        """The cross-entropy summed over the words, float32 []."""
        losses = token_cross_entropy(outputs.logits, self.labels(batch), self.label_smoothing)
        return {"cross_entropy": jnp.sum(losses)}

    def metrics(self, outputs: TextOutputs, batch: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Accuracy over words."""
        labels = self.labels(batch)
        right = (jnp.argmax(outputs.logits, axis=-1) == labels) & (labels >= 0)
        return {"accuracy": (jnp.sum(right, dtype=jnp.float32), self.counts(batch)["cross_entropy"])}

    def eval_sums(self, outputs: TextOutputs, batch: Batch) -> dict[str, Any]:
        """Losses without label smoothing, right words and words, float32 []."""
        (right, count) = self.metrics(outputs, batch)["accuracy"]
        losses = token_cross_entropy(outputs.logits, self.labels(batch))
        return {"loss": jnp.sum(losses), "correct": right, "count": count}

    def collect(self, outputs: TextOutputs, batch: Batch, model: Any, variables: Any) -> dict[str, jax.Array]:
        """Tags, and those that the model gives, int32 [B, T]."""
        return {"labels": self.labels(batch), **self.predictions(outputs, batch)}

    def summarize(
        self, sums: Mapping[str, np.ndarray], collected: Mapping[str, np.ndarray], data: Batches
    ) -> Evaluation:
        """Metrics "loss", "accuracy" over words and, of whole entities, "precision", "recall" and "f1".

        Entities are those that seqeval reads from tags such as B-person and I-person. Tags without such prefixes
        (parts of speech) have none: then the three are left out. The table "per_class" has each kind of entity.
        """
        count = max(float(sums["count"]), 1.0)
        found = {"loss": float(sums["loss"]) / count, "accuracy": float(sums["correct"]) / count}
        names = data.class_names or []
        if not are_entities(names):
            return Evaluation(found, {"class_names": list(names)})
        labels, predicted = collected["labels"], collected["tags"]
        true, given = (
            [
                [class_name(int(tag), names) for tag, label in zip(row, mask) if label >= 0]
                for row, mask in zip(tags, labels)
            ]
            for tags in (labels, predicted)
        )
        scores = entity_scores(given, true)
        kinds = [{"name": kind.pop("type"), **kind} for kind in scores.pop("entities")]
        return Evaluation(found | scores, {"class_names": list(names), "per_class": kinds})

    def predictions(self, outputs: TextOutputs, batch: Batch) -> dict[str, jax.Array]:
        """The likeliest tag of each token, int32 [B, T]."""
        return {"tags": jnp.argmax(outputs.logits, axis=-1).astype(jnp.int32)}

    def errors(self, outputs: TextOutputs, batch: Batch) -> jax.Array:
        """The share of words with a wrong tag, float32 [B]."""
        labels = self.labels(batch)
        wrong = (jnp.argmax(outputs.logits, axis=-1) != labels) & (labels >= 0)
        return jnp.sum(wrong, axis=1) / jnp.maximum(jnp.sum(labels >= 0, axis=1), 1)

    def sample(self, example: Row, predicted: Row, data: Batches) -> dict[str, Any]:
        """The text, and the words that have a tag or were given one."""
        labels = example.get("labels", np.where(example["token_mask"], 0, -1))
        words = labels >= 0
        wrong = int((predicted["tags"] != labels)[words].sum())

        def tagged(tags: np.ndarray) -> str:
            return " ".join(
                f"{data.tokenizer.decode([token])}/{class_name(int(tag), data.class_names)}"
                for token, tag, word in zip(example["tokens"], tags, words)
                if word and class_name(int(tag), data.class_names) != "O"
            )

        return {
            "correct": wrong == 0,
            "text": text_of(example, data),
            "target": tagged(labels),
            "prediction": tagged(predicted["tags"]),
        }


def are_entities(names: Sequence[str] | None) -> bool:
    """Whether tags are those of entities, such as B-person and I-person."""
    return any(name[:2] in ("B-", "I-") for name in names or ())
