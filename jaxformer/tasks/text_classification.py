"""A class, or a number, for a text or a pair of texts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks import metrics
from jaxformer.tasks.base import Batch, Batches, Evaluation, Row, example_mask, masked_sum
from jaxformer.tasks.classes import ClassTask
from jaxformer.tasks.text import TextTask, head_fits, labels_fit, text_fits, text_of
from jaxformer.tasks.text_metrics import pearson, spearman


@dataclass(frozen=True)
class TextClassification(ClassTask, TextTask):
    """Learns the class of a text.

    Batches have `tokens`, `token_mask`, `token_types` (int32 [B, T]) and `labels` (int32 [B]); see `ClassTask` for the
    rest.
    """

    mixup: float = 0.0
    """Alpha of mixup of embedded texts, word by word (Guo et al. 2019, wordMixup); 0 is off."""

    def problems(self) -> Iterator[str]:
        """Yields a line for every value that cannot be."""
        yield from super().problems()
        if self.mixup < 0:
            yield f"mixup={self.mixup}: expected an alpha over 0, such as 0.2, or 0 for none"

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        """Yields a line for texts without labels, texts that are too long, and too many classes."""
        yield from head_fits(model, "sequence")
        yield from text_fits(model, train, evaluation, ("tokens", "token_mask", "labels"))
        yield from first_token_fits(train)
        shape, dtype = train.element_spec.get("labels", ((), np.dtype(np.int32)))
        if shape:
            yield "data.examples: each token has a label, this task needs one a text; choose sequences"
        elif dtype.kind == "f":
            yield "data.examples.label_feature: holds numbers, not classes; choose task.name='text_regression'"
        else:
            yield from labels_fit(model, train, "classes")

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Refuses labels that are no class of the model, and tokens that it does not know."""
        super().check(model, batch)
        metrics.check_labels(model.num_classes, batch["labels"])

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Tokens and what describes them; and the texts that they are mixed with."""
        names = ("mixed_tokens", "mixed_token_mask", "mix_weight")
        return super().inputs(batch) | {name: batch[name] for name in names if name in batch}

    def augment(self, key: jax.Array, batch: Batch) -> Batch:
        """Each text's partner for mixup, if that is on: the row before. Pairs are within a device under pmap.

        Returns:
          The batch with `mixed_tokens`, `mixed_token_mask`, `mixed_labels`, and `mix_weight` float32 [B], the
          weight of an example's own text and label.
        """
        if self.mixup == 0:
            return batch
        weight = jax.random.beta(key, self.mixup, self.mixup)
        rolled = {name: jnp.roll(batch[name], 1, axis=0) for name in ("tokens", "token_mask", "labels")}
        has_partner = jnp.roll(example_mask(batch), 1)
        return {
            **batch,
            **{f"mixed_{name}": value for name, value in rolled.items()},
            "mix_weight": jnp.where(has_partner, weight, 1.0),
        }

    def sample(self, example: Row, predicted: Row, data: Batches) -> dict[str, Any]:
        """As of any class, with the text."""
        return super().sample(example, predicted, data) | {"text": text_of(example, data)}


@dataclass(frozen=True)
class TextRegression(TextTask):
    """Learns a number for a text, by its squared error.

    Batches have `tokens`, `token_mask`, `token_types` (int32 [B, T]) and `labels` (float32 [B]). Models give one logit,
    [B, 1].
    """

    metric_names: ClassVar[tuple[str, ...]] = ("loss", "pearson", "spearman")

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        """Yields a line for texts without numbers, texts that are too long, and another number of outputs."""
        yield from head_fits(model, "sequence")
        yield from text_fits(model, train, evaluation, ("tokens", "token_mask", "labels"))
        yield from first_token_fits(train)
        if train.element_spec.get("labels", ((), None))[0]:
            yield "data.examples: each token has a label, this task needs one a text; choose sequences"
        if model.kind == "encoder" and model.num_classes != 1:
            yield f"model.num_classes={model.num_classes}: a regression has 1 output; set it to that"

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """The number of examples, float32 []."""
        return {"squared_error": jnp.sum(example_mask(batch), dtype=jnp.float32)}

    def loss(self, outputs: TextOutputs, batch: Batch) -> dict[str, jax.Array]:
        """The squared error summed over the examples, float32 []."""
        error = outputs.logits[:, 0] - batch["labels"].astype(jnp.float32)
        return {"squared_error": masked_sum(jnp.square(error), example_mask(batch))}

    def eval_sums(self, outputs: TextOutputs, batch: Batch) -> dict[str, Any]:
        """The squared error and the number of examples, float32 []."""
        return {
            "loss": self.loss(outputs, batch)["squared_error"],
            "count": self.counts(batch)["squared_error"],
        }

    def collect(self, outputs: TextOutputs, batch: Batch, model: Any, variables: Any) -> dict[str, jax.Array]:
        """Labels and what the model says, float32 [B]."""
        return {"predicted": outputs.logits[:, 0], "labels": batch["labels"]}

    def summarize(
        self, sums: Mapping[str, np.ndarray], collected: Mapping[str, np.ndarray], data: Batches
    ) -> Evaluation:
        """Metrics "loss" (the mean squared error) and the correlations "pearson" and "spearman"."""
        predicted, labels = collected["predicted"], collected["labels"]
        found = {
            "loss": float(sums["loss"]) / max(float(sums["count"]), 1.0),
            "pearson": pearson(predicted, labels),
            "spearman": spearman(predicted, labels),
        }
        return Evaluation(found, {})

    def predictions(self, outputs: TextOutputs, batch: Batch) -> dict[str, jax.Array]:
        """`value`, float32 [B]."""
        return {"value": outputs.logits[:, 0]}

    def errors(self, outputs: TextOutputs, batch: Batch) -> jax.Array:
        """The absolute error, float32 [B]."""
        return jnp.abs(outputs.logits[:, 0] - batch["labels"].astype(jnp.float32))

    def sample(self, example: Row, predicted: Row, data: Batches) -> dict[str, Any]:
        """The text, the number that it has and the one that the model gives it."""
        target, value = float(example.get("labels", np.nan)), float(predicted["value"])
        return {
            "correct": None,
            "text": text_of(example, data),
            "target": f"{target:.3g}",
            "prediction": f"{value:.3g}",
        }


def first_token_fits(train: Batches) -> Iterator[str]:
    """Yields a line if texts do not begin with a token that stands for the whole, which the head reads."""
    tokenizer = train.tokenizer
    if tokenizer is not None and not {*tokenizer.encode("")[:1]} & {tokenizer.cls_id, tokenizer.bos_id}:
        yield (
            'data.tokenizer.template: writes no [CLS] or <s> before a text, which the head "sequence" reads; '
            'set it to "bert" (or "roberta")'
        )
