"""A tag for each word of a text: named entities, parts of speech."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks.base import Batch, Batches, DataInfo, Evaluation, Metrics, Row, class_name
from jaxformer.tasks.metrics import check_labels
from jaxformer.tasks.text import TokenTask, labels_fit, real_tokens, text_of
from jaxformer.tasks.text_metrics import entity_scores


@dataclass(frozen=True)
class TokenClassification(TokenTask):
    """Learns the tag of each word, at its first token (Devlin et al. 2019, section 5.3).

    Batches have `tokens`, `token_mask` and `labels` (int32 [B, T], negative where no word begins). Models give logits
    [B, T, K].
    """

    metric_names: ClassVar = ("loss", "accuracy", "precision", "recall", "f1")
    reads: ClassVar = "words"
    needs = ("tokens", "token_mask", "labels")
    head = "token"
    targets_key = "labels"

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        yield from super().fits(model, train, evaluation)
        if not train.element_spec.get("labels", ((0,), None))[0]:
            yield "data.examples: each text has one label, this task needs one a word; choose tagged"
        else:
            yield from labels_fit(model, train, "tags")

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Refuses tags that the model does not have, too."""
        super().check(model, batch)
        labels = batch["labels"]
        check_labels(model.num_classes, labels[labels >= 0])

    def absent_metrics(self, model: Any, data: Batches) -> dict[str, str]:
        if are_entities(data.class_names):
            return {}
        return dict.fromkeys(("precision", "recall", "f1"), "the tags are not of entities (no B-, no I-)")

    def metrics(self, outputs: TextOutputs, batch: Batch) -> Metrics:
        """The accuracy over words."""
        labels = self.targets(batch)
        right = (jnp.argmax(outputs.logits, axis=-1) == labels) & (labels >= 0)
        return {"accuracy": (jnp.sum(right, dtype=jnp.float32), self.counts(batch)["cross_entropy"])}

    def collect(self, outputs: TextOutputs, batch: Batch, model: Any, variables: Any) -> dict[str, jax.Array]:
        """True and predicted tags, int32 [B, T]."""
        return {"labels": self.targets(batch), **self.predictions(outputs, batch)}

    def summarize(
        self, sums: Mapping[str, np.ndarray], collected: Mapping[str, np.ndarray], data: Batches
    ) -> Evaluation:
        """Metrics "loss", "accuracy" over words and, of whole entities, "precision", "recall" and "f1".

        Entities are those that seqeval reads from tags such as B-person and I-person. Tags without such prefixes
        (parts of speech) have none: then the three are left out. The table "per_class" has each kind of entity.
        """
        found = self.means(sums)
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
        labels = self.targets(batch)
        wrong = (jnp.argmax(outputs.logits, axis=-1) != labels) & (labels >= 0)
        return jnp.sum(wrong, axis=1) / jnp.maximum(jnp.sum(labels >= 0, axis=1), 1)

    def answers(self, predicted: Row, example: Row, about: DataInfo, top: int = 5) -> dict[str, Any]:
        """ "tags" of the words, as of their first tokens; None for words beyond the model's length.

        Args:
          predicted: `tags`.
          example: "words", and "word_ids": of each token the number of its word, or None.
          about: the names of the tags.
          top: not needed.
        """
        tags: list[str | None] = [None] * len(example["words"])
        for token, word in reversed([*enumerate(example["word_ids"])]):
            if word is not None:
                tags[word] = class_name(int(predicted["tags"][token]), about.class_names)
        return {"tags": tags}

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        """The text and, as "Oslo/B-place", the words that have a tag or were given one."""
        labels = example.get("labels", np.where(example["token_mask"], 0, -1))
        begins = np.flatnonzero(labels >= 0)
        ends = [*begins[1:], real_tokens(example)]
        words = [data.tokenizer.decode(example["tokens"][a:b]).strip() for a, b in zip(begins, ends)]

        def tagged(tags: np.ndarray) -> str:
            names = [class_name(int(tag), data.class_names) for tag in tags[begins]]
            return " ".join(f"{word}/{name}" for word, name in zip(words, names) if name != "O")

        return {
            "correct": bool((predicted["tags"] == labels)[begins].all()),
            "text": text_of(example, data),
            "target": tagged(labels),
            "prediction": tagged(predicted["tags"]),
        }


def are_entities(names: Sequence[str] | None) -> bool:
    """Whether tags are those of entities, such as B-person and I-person."""
    return any(name[:2] in ("B-", "I-") for name in names or ())
