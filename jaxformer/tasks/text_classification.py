"""A class, or a number, for a text or a pair of texts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.config.fields import at_least
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks import metrics
from jaxformer.tasks.base import Batch, Batches, DataInfo, Evaluation, Row, example_mask, masked_sum
from jaxformer.tasks.classes import ClassTask
from jaxformer.tasks.text import TextTask, labels_fit, text_of
from jaxformer.tasks.text_metrics import pearson, spearman


class WholeTextTask(TextTask):
    """Learns one label for each text: `labels` [B], from the model's first token."""

    needs = ("tokens", "token_mask", "labels")
    head = "sequence"

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        yield from super().fits(model, train, evaluation)
        tokenizer = train.tokenizer
        if tokenizer is not None and not {*tokenizer.encode("")[:1]} & {tokenizer.cls_id, tokenizer.bos_id}:
            yield (
                'data.tokenizer.template: writes no [CLS] or <s> before a text, which the head "sequence" reads; '
                'set it to "bert" (or "roberta")'
            )
        if train.element_spec.get("labels", ((), None))[0]:
            yield "data.examples: each token has a label, this task needs one a text; choose sequences"


@dataclass(frozen=True)
class TextClassification(ClassTask, WholeTextTask):
    """Learns the class of a text.

    Batches have `tokens`, `token_mask`, `token_types` (int32 [B, T]) and `labels` (int32 [B]); see `ClassTask` for the
    rest.
    """

    mixup: Annotated[float, at_least(0, "an alpha above 0, such as 0.2, or 0 for none")] = 0.0
    """Alpha of mixup of embedded texts, word by word (Guo et al. 2019, wordMixup); 0 is off."""

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        yield from super().fits(model, train, evaluation)
        shape, dtype = train.element_spec.get("labels", ((), np.dtype(np.int32)))
        if dtype.kind == "f":
            yield "data.examples.label_feature: holds numbers, not classes; choose task.name='text_regression'"
        elif not shape:
            yield from labels_fit(model, train, "classes")

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Refuses labels that are no class of the model, too."""
        super().check(model, batch)
        metrics.check_labels(model.num_classes, batch["labels"])

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Tokens, what describes them, and the texts that they are mixed with."""
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

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        return super().sample(example, predicted, data) | {"text": text_of(example, data)}


@dataclass(frozen=True)
class TextRegression(WholeTextTask):
    """Learns a number for a text, by its squared error.

    Batches have `tokens`, `token_mask`, `token_types` (int32 [B, T]) and `labels` (float32 [B]). Models give one logit,
    [B, 1].
    """

    metric_names: ClassVar = ("loss", "pearson", "spearman")

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        yield from super().fits(model, train, evaluation)
        if model.kind == "encoder" and model.num_classes != 1:
            yield f"model.num_classes={model.num_classes}: a regression has 1 output; set it to that"

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """The number of examples, float32 []."""
        return {"squared_error": jnp.sum(example_mask(batch), dtype=jnp.float32)}

    def loss(self, outputs: TextOutputs, batch: Batch) -> dict[str, jax.Array]:
        error = outputs.logits[:, 0] - batch["labels"].astype(jnp.float32)
        return {"squared_error": masked_sum(jnp.square(error), example_mask(batch))}

    def eval_sums(self, outputs: TextOutputs, batch: Batch) -> dict[str, Any]:
        """The squared error and the number of examples, float32 []."""
        return {
            "loss": self.loss(outputs, batch)["squared_error"],
            "count": self.counts(batch)["squared_error"],
        }

    def collect(self, outputs: TextOutputs, batch: Batch, model: Any, variables: Any) -> dict[str, jax.Array]:
        """The predicted and the true numbers, float32 [B]."""
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

    def answers(self, predicted: Row, example: Row, about: DataInfo, top: int = 5) -> dict[str, Any]:
        return {"value": float(predicted["value"])}

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        target, value = float(example.get("labels", np.nan)), float(predicted["value"])
        return {
            "correct": None,
            "text": text_of(example, data),
            "target": f"{target:.3g}",
            "prediction": f"{value:.3g}",
        }
