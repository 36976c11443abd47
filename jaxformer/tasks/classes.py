"""What tasks that choose one class for each example have in common: losses, metrics, tables, samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.tasks import losses, metrics
from jaxformer.tasks.base import Batch, Batches, Evaluation, Row, example_mask, masked_sum
from jaxformer.tasks.distillation import Distillation

TOP = 5


@dataclass(frozen=True)
class ClassTask:
    """Learns the class of an example: the base of tasks over images and over texts.

    Batches have `labels` (int32 [B]) and, where rows may be padding, `example_mask` (bool [B]). Models give outputs
    with `logits`, [B, K].
    """

    loss_name: Literal["softmax", "sigmoid"] = "softmax"
    """ "softmax" cross-entropy, or "sigmoid": the sum of a binary one a class (Beyer et al. 2020)."""
    label_smoothing: float = 0.0
    """The share of a label that is spread over all classes, in training; 0.1 is usual."""
    focal_gamma: float | None = None
    """How much less easy examples count (Lin et al. 2017); 2 is usual, None leaves all alike."""
    distillation: Distillation | None = None
    """What is learnt from a teacher, whose logits `teacher_logits` [B, K] the step puts into the batch; None
    has no teacher. A model with a head of its own for it (`distilled`) learns it there."""

    metric_names: ClassVar[tuple[str, ...]] = (
        "loss",
        "accuracy",
        "top5",
        "balanced_accuracy",
        "macro_f1",
        "ece",
    )

    def problems(self) -> Iterator[str]:
        """Yields a line for every value that cannot be."""
        if not 0 <= self.label_smoothing < 1:
            yield f"label_smoothing={self.label_smoothing}: expected at least 0 and less than 1, such as 0.1"
        if self.focal_gamma is not None and not self.focal_gamma >= 0:
            yield f"focal_gamma={self.focal_gamma}: expected 0 or more, such as 2.0, or None for none"

    def absent_metrics(self, model: Any, data: Batches) -> dict[str, str]:
        """Metrics that `summarize` will not give -> why, as a part of a sentence."""
        classes = model.num_classes
        few = classes is not None and classes <= TOP
        return {"top5": f"with {classes} classes it is always 1"} if few else {}

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """The number of examples, float32 [], for each loss."""
        count = jnp.sum(example_mask(batch), dtype=jnp.float32)
        return {self.loss_key: count} | ({} if self.distillation is None else {"distillation": count})

    def loss(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """The loss summed over the examples, float32 []; of mixed examples both labels' losses, weighted."""
        per_example = self.per_example(outputs.logits, batch["labels"], self.label_smoothing)
        if "mixed_labels" in batch:
            others = self.per_example(outputs.logits, batch["mixed_labels"], self.label_smoothing)
            weight = batch["mix_weight"]
            per_example = weight * per_example + (1 - weight) * others
        mask = example_mask(batch)
        if self.distillation is None:
            return {self.loss_key: masked_sum(per_example, mask)}
        own = getattr(outputs, "distilled", None)
        taught = self.distillation.per_example(
            outputs.logits if own is None else own, batch["teacher_logits"]
        )
        share = self.distillation.weight
        return {
            self.loss_key: (1 - share) * masked_sum(per_example, mask),
            "distillation": share * masked_sum(taught, mask),
        }

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

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Accuracy; of mixed examples, for the label that weighs more."""
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

        Args:
          sums: `eval_sums` added up over the split, NumPy float64.
          collected: nothing.
          data: knows the names of the first classes; the others are called by their numbers.

        Returns:
          metrics: "loss" (without label smoothing, so that runs compare), "accuracy", "balanced_accuracy",
            "macro_f1", "ece", and with more than five classes "top5".
          tables: "class_names"; "confusion", counts [K][K], rows are true classes; "per_class", a "name",
            "precision", "recall", "f1" and "support" each; "calibration", a mean "confidence", an "accuracy"
            and a "count" for each bin of confidence that has examples.
        """
        confusion, calibration = np.asarray(sums["confusion"]), sums["calibration"]
        num_classes, count = len(confusion), max(float(sums["count"]), 1.0)
        names = [class_name(number, data.class_names) for number in range(num_classes)]
        found = {
            "loss": float(sums["loss"]) / count,
            "accuracy": float(sums["accuracy"]) / count,
            "balanced_accuracy": metrics.balanced_accuracy(confusion),
            "macro_f1": metrics.macro_f1(confusion),
            "ece": metrics.calibration_error(calibration),
        }
        if num_classes > TOP:
            found["top5"] = float(sums["top5"]) / count
        columns = metrics.per_class(confusion)
        rows = zip(names, columns["precision"], columns["recall"], columns["f1"], columns["support"])
        tables = {
            "class_names": names,
            "confusion": np.rint(confusion).astype(int).tolist(),
            "per_class": [
                {
                    "name": name,
                    "precision": float(p),
                    "recall": float(r),
                    "f1": float(f),
                    "support": int(support),
                }
                for name, p, r, f, support in rows
            ],
            "calibration": metrics.calibration_table(calibration),
        }
        return Evaluation(found, tables)

    def probabilities(self, outputs: Any) -> jax.Array:
        """float32 [B, K]; with the sigmoid loss each class's own, which need not sum to 1."""
        logits = outputs.logits.astype(jnp.float32)
        return jax.nn.softmax(logits) if self.loss_name == "softmax" else jax.nn.sigmoid(logits)

    def collect(self, outputs: Any, batch: Batch, model: Any, variables: Any) -> dict[str, jax.Array]:
        """Nothing: sums say everything."""
        return {}

    def predictions(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """`probabilities`, float32 [B, K]."""
        return {"probabilities": self.probabilities(outputs)}

    def errors(self, outputs: Any, batch: Batch) -> jax.Array:
        """How sure the model is of a wrong class, float32 [B]; 0 where it is right."""
        probabilities = self.probabilities(outputs)
        right = metrics.correct(outputs.logits, batch["labels"])
        return jnp.where(right, 0.0, jnp.max(probabilities, axis=-1))

    def sample(self, example: Row, predicted: Row, data: Batches) -> dict[str, Any]:
        """The true class and the likeliest ones."""
        probabilities, label = predicted["probabilities"], int(example["labels"])
        order = np.argsort(-probabilities, kind="stable")[:TOP]
        return {
            "correct": bool(order[0] == label),
            "label": class_name(label, data.class_names),
            "top": [
                {
                    "class": class_name(int(k), data.class_names),
                    "probability": round(float(probabilities[k]), 6),
                }
                for k in order
            ],
        }


def class_name(number: int, names: Sequence[str] | None) -> str:
    """A class's name; its number where it has none."""
    return str(names[number]) if names and 0 <= number < len(names) else str(number)
