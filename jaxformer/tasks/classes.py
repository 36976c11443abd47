"""What tasks that choose one class for each example have in common: losses, metrics, tables, samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.config.fields import Rate, at_least
from jaxformer.tasks import losses, metrics
from jaxformer.tasks.base import (
    Batch,
    Batches,
    DataInfo,
    Evaluation,
    Metrics,
    Row,
    Task,
    class_name,
    class_names,
    example_mask,
    masked_sum,
)
from jaxformer.tasks.distillation import Distillation

TOP = 5


@dataclass(frozen=True)
class ClassTask(Task):
    """Learns the class of an example: the base of tasks over images and over texts.

    Batches have `labels` (int32 [B]) and, where rows may be padding, `example_mask` (bool [B]). Models give outputs
    with `logits`, [B, K].
    """

    loss_name: Literal["softmax", "sigmoid"] = "softmax"
    """ "softmax" cross-entropy, or "sigmoid": the sum of a binary one a class (Beyer et al. 2020)."""
    label_smoothing: Rate = 0.0
    """The share of a label that is spread over all classes, in training; 0.1 is usual."""
    focal_gamma: Annotated[float, at_least(0, "0 or more, such as 2.0, or None for none")] | None = None
    """How much less easy examples count (Lin et al. 2017); 2 is usual, None weighs all alike."""
    distillation: Distillation | None = None
    """Learning from a teacher, whose logits `teacher_logits` [B, K] the step puts into the batch; None has no
    teacher. A model with a head of its own for it (`distilled`) learns it there."""

    metric_names: ClassVar = ("loss", "accuracy", "top5", "balanced_accuracy", "macro_f1", "ece")

    def absent_metrics(self, model: Any, data: Batches) -> dict[str, str]:
        classes = model.num_classes
        few = classes is not None and classes <= TOP
        return {"top5": f"with {classes} classes it is always 1"} if few else {}

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        count = jnp.sum(example_mask(batch), dtype=jnp.float32)
        return {self.loss_key: count} | ({} if self.distillation is None else {"distillation": count})

    def loss(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """Mixed examples have both labels' losses, weighted."""
        per_example = self.per_example(outputs.logits, batch["labels"], self.label_smoothing)
        if "mixed_labels" in batch:
            others = self.per_example(outputs.logits, batch["mixed_labels"], self.label_smoothing)
            weight = batch["mix_weight"]
            per_example = weight * per_example + (1 - weight) * others
        mask = example_mask(batch)
        if self.distillation is None:
            return {self.loss_key: masked_sum(per_example, mask)}
        own = outputs.distilled
        student = outputs.logits if own is None else own
        of_teacher = self.distillation.per_example(student, batch["teacher_logits"])
        share = self.distillation.weight
        return {
            self.loss_key: (1 - share) * masked_sum(per_example, mask),
            "distillation": share * masked_sum(of_teacher, mask),
        }

    @property
    def independent_classes(self) -> bool:
        return self.loss_name == "sigmoid"

    @property
    def loss_key(self) -> str:
        """The loss's name among a train step's metrics."""
        return "cross_entropy" if self.focal_gamma is None else "focal"

    def per_example(self, logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
        """The loss of each example, float32 [B], from logits [B, K] and labels int [B]."""
        targets = losses.targets(labels, logits.shape[-1], label_smoothing)
        softmax = self.loss_name == "softmax"
        if self.focal_gamma is not None:
            focal = losses.softmax_focal if softmax else losses.sigmoid_focal
            return focal(logits, targets, self.focal_gamma)
        cross_entropy = losses.softmax_cross_entropy if softmax else losses.sigmoid_cross_entropy
        return cross_entropy(logits, targets)

    def metrics(self, outputs: Any, batch: Batch) -> Metrics:
        """The accuracy; of mixed examples for the label that weighs more."""
        mask, labels = example_mask(batch), batch["labels"]
        if "mixed_labels" in batch:
            labels = jnp.where(batch["mix_weight"] >= 0.5, labels, batch["mixed_labels"])
        right = masked_sum(metrics.correct(outputs.logits, labels), mask)
        return {"accuracy": (right, jnp.sum(mask, dtype=jnp.float32))}

    def eval_sums(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Count, loss without label smoothing, right answers, confusion matrix and calibration; float32."""
        mask, labels, logits = example_mask(batch), batch["labels"], outputs.logits
        return {
            "count": jnp.sum(mask, dtype=jnp.float32),
            "loss": masked_sum(self.per_example(logits, labels), mask),
            "accuracy": masked_sum(metrics.correct(logits, labels), mask),
            "top5": masked_sum(metrics.correct(logits, labels, TOP), mask),
            "confusion": metrics.confusion_matrix(logits, labels, mask),
            "calibration": metrics.calibration_sums(self.probabilities(outputs), labels, mask),
        }

    def summarize(
        self, sums: dict[str, Any], collected: Mapping[str, np.ndarray], data: Batches
    ) -> Evaluation:
        """Metrics and tables of a split.

        Returns:
          metrics: "loss" (without label smoothing, so that runs compare), "accuracy", "balanced_accuracy",
            "macro_f1", "ece", and with more than five classes "top5".
          tables: "class_names"; "confusion", counts [K][K], rows are true classes; "per_class", a "name",
            "precision", "recall", "f1" and "support" each; "calibration", a mean "confidence", an "accuracy"
            and a "count" for each bin of confidence that has examples.
        """
        confusion, calibration = np.asarray(sums["confusion"]), sums["calibration"]
        num_classes, count = len(confusion), max(float(sums["count"]), 1.0)
        names = class_names(num_classes, data)
        found = {
            "loss": float(sums["loss"]) / count,
            "accuracy": float(sums["accuracy"]) / count,
            "balanced_accuracy": metrics.balanced_accuracy(confusion),
            "macro_f1": metrics.macro_f1(confusion),
            "ece": metrics.calibration_error(calibration),
        }
        if num_classes > TOP:
            found["top5"] = float(sums["top5"]) / count
        tables = {
            "class_names": names,
            "confusion": np.rint(confusion).astype(int).tolist(),
            "per_class": metrics.class_rows(names, metrics.per_class(confusion)),
            "calibration": metrics.calibration_table(calibration),
        }
        return Evaluation(found, tables)

    def probabilities(self, outputs: Any) -> jax.Array:
        """float32 [B, K]; with the sigmoid loss each class's own, which need not sum to 1."""
        logits = outputs.logits.astype(jnp.float32)
        return jax.nn.softmax(logits) if self.loss_name == "softmax" else jax.nn.sigmoid(logits)

    def predictions(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """`probabilities`, float32 [B, K]."""
        return {"probabilities": self.probabilities(outputs)}

    def errors(self, outputs: Any, batch: Batch) -> jax.Array:
        """The probability of a wrong class, float32 [B]; 0 where the prediction is right."""
        probabilities = self.probabilities(outputs)
        right = metrics.correct(outputs.logits, batch["labels"])
        return jnp.where(right, 0.0, jnp.max(probabilities, axis=-1))

    def answers(self, predicted: Row, example: Row, about: DataInfo, top: int = TOP) -> dict[str, Any]:
        return {"predictions": top_classes(predicted["probabilities"], about.class_names, top)}

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        label, top = int(example["labels"]), top_classes(predicted["probabilities"], data.class_names, TOP)
        return {
            "correct": top[0]["index"] == label,
            "label": class_name(label, data.class_names),
            "top": [{"class": one["label"], "probability": one["probability"]} for one in top],
        }


def top_classes(probabilities: np.ndarray, names: Sequence[str] | None, top: int) -> list[dict[str, Any]]:
    """The `top` classes of probabilities [K], the likeliest first; of equal ones the first class."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [
        {
            "label": class_name(int(index), names),
            "index": int(index),
            "probability": round(float(probabilities[index]), 6),
        }
        for index in order
    ]
