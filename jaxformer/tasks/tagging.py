"""A tag for each word of a text: named entities, parts of speech."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.errors import UserError
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks import base
from jaxformer.tasks.base import Batch, Batches, DataInfo, Evaluation, Row, class_name
from jaxformer.tasks.metrics import check_labels
from jaxformer.tasks.text import TokenTask, real_length, text_of

Tags = Sequence[Sequence[str]]  # of each word of each text

NO_TAG = "O"  # of a word that the model was not shown
ENTITY_TAG = re.compile(r"O$|[BIES](-|$)")


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
            yield from self.classes_fit(model, train, "tags")

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Also refuses tags that the model does not have."""
        super().check(model, batch)
        check_labels(model.num_classes, batch["labels"][batch["labels"] >= 0])

    def absent_metrics(self, model: Any, data: Batches) -> dict[str, str]:
        if are_entities(data.class_names):
            return {}
        return dict.fromkeys(("precision", "recall", "f1"), "the tags are not of entities (no B-, no I-)")

    def metrics(self, outputs: TextOutputs, batch: Batch) -> base.Metrics:
        """The accuracy over words."""
        right = jnp.sum(self.right(outputs, batch), dtype=jnp.float32)
        return {"accuracy": (right, self.counts(batch)["cross_entropy"])}

    def collect(self, outputs: TextOutputs, batch: Batch, model: Any, variables: Any) -> base.Arrays:
        """True and predicted tags, int32 [B, T]."""
        return {"labels": self.targets(batch), **self.predictions(outputs, batch)}

    def summarize(self, sums: base.Sums, collected: base.Collected, data: Batches) -> Evaluation:
        """Metrics "loss", "accuracy" over words and, of whole entities, "precision", "recall" and "f1".

        Entities are those that seqeval reads from tags such as B-person and I-person. Tags without such prefixes
        (parts of speech) have none: then the three are left out. The table "per_class" has each kind of entity. All
        words of the dataset count; those beyond the model's length are missed, and have no part in "loss".
        """
        names, predicted, true = data.class_names or [], [], []
        for index, tags, labels in zip(collected["index"], collected["likeliest"], collected["labels"]):
            true.append([class_name(tag, names) for tag in data.source.truth(int(index))])
            predicted.append([NO_TAG] * len(true[-1]))
            for word, tag in zip(data.source.words(int(index)), tags[labels >= 0]):
                predicted[-1][word] = class_name(int(tag), names)
        words = max(sum(map(len, true)), 1)
        found = {"loss": base.mean_of(sums), "accuracy": float(np.sum(sums["accuracy"])) / words}
        if not are_entities(names):
            return Evaluation(found, {"class_names": list(names)})
        scores, kinds = entity_scores(predicted, true)
        return Evaluation(found | scores, {"class_names": list(names), "per_class": kinds})

    def errors(self, outputs: TextOutputs, batch: Batch) -> jax.Array:
        """The share of words with a wrong tag, float32 [B]."""
        there = self.targets(batch) >= 0
        wrong = there & ~self.right(outputs, batch)
        return jnp.sum(wrong, axis=1) / jnp.maximum(jnp.sum(there, axis=1), 1)

    def answers(self, predicted: Row, example: Row, about: DataInfo, top: int = 5) -> dict[str, Any]:
        """ "tags" of the words, as of their first tokens; None for words beyond the model's length.

        Args:
          predicted: `likeliest`.
          example: "words", and "word_ids": of each token the number of its word, or None.
          about: the names of the tags.
          top: not needed.
        """
        tags: list[str | None] = [None] * len(example["words"])
        for token, word in reversed([*enumerate(example["word_ids"])]):
            if word is not None:
                tags[word] = class_name(int(predicted["likeliest"][token]), about.class_names)
        return {"tags": tags}

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        """The text and, as "Oslo/B-place", the words that have a tag or were given one."""
        labels = example.get("labels", np.where(example["token_mask"], 0, -1))
        begins = np.flatnonzero(labels >= 0)
        ends = [*begins[1:], real_length(example)]
        words = [data.tokenizer.decode(example["tokens"][a:b]).strip() for a, b in zip(begins, ends)]

        def tagged(tags: np.ndarray) -> str:
            names = [class_name(int(tag), data.class_names) for tag in tags[begins]]
            return " ".join(f"{word}/{name}" for word, name in zip(words, names) if name != "O")

        correct = bool((predicted["likeliest"] == labels)[begins].all())
        both = {"target": tagged(labels), "prediction": tagged(predicted["likeliest"])}
        return {"correct": correct, "text": text_of(example, data), **both}


def are_entities(names: Sequence[str] | None) -> bool:
    """Whether tags are those of entities, such as B-person and I-person."""
    return any(name[:2] in ("B-", "I-") for name in names or ())


def entity_scores(predicted: Tags, true: Tags) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Precision, recall and F1 of whole entities, by seqeval, which counts as CoNLL's conlleval does.

    Only an entity with the right type and both right ends is right. An entity may begin with I-, as conlleval
    has it.

    Args:
      predicted: for each text, a tag a word: "O", "B-PER", "I-PER", ... (IOB1, IOB2, IOE or IOBES).
      true: the same for the true tags, of the same lengths.

    Returns:
      "precision", "recall" and "f1" over all entities (micro average), 0 to 1; and a dict for each type, sorted, with
      "name", "precision", "recall", "f1" and "support" (the true entities of that type).

    Raises:
      UserError: a tag is not of an entity ("NOUN").
    """
    from seqeval.metrics import classification_report

    tags = {tag for texts in (predicted, true) for text in texts for tag in text}
    if wrong := sorted(tag for tag in tags if not ENTITY_TAG.match(tag)):
        entities = "not an entity's, which are 'O', 'B-TYPE', 'I-TYPE' (and 'E-TYPE', 'S-TYPE')"
        raise UserError(f"tag {wrong[0]!r}: {entities}; take accuracy for tags that are no entities")
    if tags <= {"O"}:
        return {"precision": 0.0, "recall": 0.0, "f1": 0.0}, []
    lists = [list(map(list, true)), list(map(list, predicted))]
    *kinds, micro, _, _ = classification_report(*lists, output_dict=True, zero_division=0).items()
    keys = {"precision": "precision", "recall": "recall", "f1": "f1-score"}

    def scores(found: Mapping[str, Any]) -> dict[str, float]:
        return {name: float(found[key]) for name, key in keys.items()}

    rows = [{"name": kind, **scores(found), "support": int(found["support"])} for kind, found in kinds]
    return scores(micro[1]), rows
