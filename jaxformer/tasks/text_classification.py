"""A class, or a number, for a text or a pair of texts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.config.fields import Input, between, left_out
from jaxformer.models.outputs import TextOutputs
from jaxformer.tasks import base, metrics
from jaxformer.tasks.base import Arrays, Batch, Batches, DataInfo, Row, example_mask
from jaxformer.tasks.classes import ClassTask
from jaxformer.tasks.text import TextTask, text_of


class WholeTextTask(TextTask):
    """Learns one label for each text: `labels` [B], from the model's first token."""

    needs = ("tokens", "token_mask", "labels")
    head = "sequence"

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        yield from super().fits(model, train, evaluation)
        tokenizer = train.tokenizer
        if tokenizer is not None and not {*tokenizer.encode("")[:1]} & {tokenizer.cls_id, tokenizer.bos_id}:
            first = 'writes no [CLS] or <s> before a text, which the head "sequence" reads'
            yield f'data.tokenizer.template: {first}; set it to "bert" (or "roberta")'
        if train.element_spec.get("labels", ((), None))[0]:
            yield "data.examples: each token has a label, this task needs one a text; choose sequences"


@dataclass(frozen=True)
class TextClassification(ClassTask, WholeTextTask):
    """Learns the class of a text.

    Batches have `tokens`, `token_mask`, `token_types` (int32 [B, T]) and `labels` (int32 [B]); see `ClassTask` for the
    rest.
    """

    mixup: Input[
        Annotated[float, between(0, 1000, "an alpha above 0 and up to 1000, such as 0.2, or 0 for none")]
    ] = 0.0
    """Alpha of mixup of embedded texts, word by word (Guo et al. 2019, wordMixup); 0 is off."""

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        yield from super().fits(model, train, evaluation)
        shape, dtype = train.element_spec.get("labels", ((), np.dtype(np.int32)))
        if dtype.kind == "f":
            yield "data.examples.label_feature: holds numbers, not classes; choose task.name='text_regression'"
        elif not shape:
            yield from self.classes_fit(model, train, "classes")

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Also refuses labels that are no class of the model."""
        super().check(model, batch)
        metrics.check_labels(model.num_classes, batch["labels"])

    def inputs(self, batch: Batch) -> Arrays:
        """Tokens, what describes them, and the texts that they are mixed with."""
        names = ("mixed_tokens", "mixed_token_mask", "mix_weight")
        return super().inputs(batch) | {name: batch[name] for name in names if name in batch}

    def augment(self, key: jax.Array, batch: Batch) -> Batch:
        """Each text's partner for mixup, if that is on: the row before. Pairs are within a device under pmap.

        Returns:
          The batch with `mixed_tokens`, `mixed_token_mask`, `mixed_labels`, and `mix_weight` float32 [B], the
          weight of an example's own text and label.
        """
        if left_out(self.mixup):
            return batch
        weight = jax.random.beta(key, self.mixup, self.mixup)
        partner = {name: jnp.roll(batch[name], 1, axis=0) for name in ("tokens", "token_mask", "labels")}
        mixed = {f"mixed_{name}": value for name, value in partner.items()}
        has_partner = jnp.roll(example_mask(batch), 1)
        return {**batch, **mixed, "mix_weight": jnp.where(has_partner, weight, 1.0)}

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        return super().sample(example, predicted, data) | {"text": text_of(example, data)}


@dataclass(frozen=True)
class TextRegression(base.ExampleTask, WholeTextTask):
    """Learns a number for a text, by its squared error.

    Batches have `tokens`, `token_mask`, `token_types` (int32 [B, T]) and `labels` (float32 [B]). Models give one logit,
    [B, 1].
    """

    metric_names: ClassVar = ("loss", "pearson", "spearman")

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        yield from super().fits(model, train, evaluation)
        if model.kind == "encoder" and model.num_classes != 1:
            yield f"model.num_classes={model.num_classes}: a regression has 1 output; set it to that"

    @property
    def loss_key(self) -> str:
        return "squared_error"

    def losses(self, outputs: TextOutputs, batch: Batch) -> jax.Array:
        return jnp.square(outputs.logits[:, 0] - batch["labels"].astype(jnp.float32))

    def errors(self, outputs: TextOutputs, batch: Batch) -> jax.Array:
        """The absolute error, float32 [B]."""
        return jnp.sqrt(self.losses(outputs, batch))

    def predictions(self, outputs: TextOutputs, batch: Batch) -> Arrays:
        """`value`, float32 [B]."""
        return {"value": outputs.logits[:, 0]}

    def collect(self, outputs: TextOutputs, batch: Batch, model: Any, variables: Any) -> Arrays:
        """The predicted and the true numbers, float32 [B]."""
        return {"labels": batch["labels"], **self.predictions(outputs, batch)}

    def summarize(self, sums: base.Sums, collected: base.Collected, data: Batches) -> base.Evaluation:
        """Metrics "loss" (the mean squared error) and the correlations "pearson" and "spearman", -1 to 1."""
        found = correlations(collected["value"], collected["labels"])
        baseline = {"loss": float(np.var(np.asarray(collected["labels"], np.float64)))}
        return base.Evaluation({"loss": base.mean_of(sums), **found}, {}, baseline)

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        target, value = float(example.get("labels", np.nan)), float(predicted["value"])
        numbers = {"target": f"{target:.3g}", "prediction": f"{value:.3g}"}
        return {"correct": None, "text": text_of(example, data), **numbers}


def correlations(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """ "pearson" and "spearman", by SciPy; 0 where one side has a single value, as a collapsed model's has."""
    from scipy import stats

    x, y = np.asarray(predictions, np.float64), np.asarray(labels, np.float64)
    constant = (x == x[:1]).all() or (y == y[:1]).all()
    of = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}
    return {name: 0.0 if constant else float(function(x, y).statistic) for name, function in of.items()}
