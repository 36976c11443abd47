"""What tasks that choose one class for each example have in common: losses, metrics, tables, samples."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.config.fields import Input, Rate, at_least
from jaxformer.errors import UserError
from jaxformer.tasks import base, losses, metrics
from jaxformer.tasks.base import Arrays, Batch, DataInfo, Evaluation, Row, example_mask, masked_sum

TOP = 5


@dataclass(frozen=True)
class ClassTask(base.ExampleTask):
    """Learns the class of an example: the base of tasks over images and over texts.

    Batches have `labels` (int32 [B]) and, where rows may be padding, `example_mask` (bool [B]). Models give outputs
    with `logits`, [B, K].
    """

    loss_name: Literal["softmax", "sigmoid"] = "softmax"
    """ "softmax" cross-entropy, or "sigmoid": the sum of a binary one a class (Beyer et al. 2020)."""
    label_smoothing: Input[Rate] = 0.0
    """The share of a label that is spread over all classes, in training; 0.1 is usual."""
    focal_gamma: Annotated[float, at_least(0, "0 or more, such as 2.0, or None for none")] | None = None
    """How much less easy examples count (Lin et al. 2017); 2 is usual, None weighs all alike."""
    distillation: losses.Distillation | None = None
    """Learning from a teacher, whose logits `teacher_logits` [B, K] the step puts into the batch; None has no
    teacher. A model with a head of its own for it (`distilled`) learns it there."""

    averaged = True
    metric_names: ClassVar = ("loss", "accuracy", "top5", "balanced_accuracy", "macro_f1", "ece")

    def absent_metrics(self, model: Any, data: base.Batches) -> dict[str, str]:
        classes = model.num_classes
        few = classes is not None and classes <= TOP
        return {"top5": f"with {classes} classes it is always 1"} if few else {}

    def counts(self, batch: Batch) -> Arrays:
        found = super().counts(batch)
        return found if self.distillation is None else {**found, "distillation": found[self.loss_key]}

    def loss(self, outputs: Any, batch: Batch) -> Arrays:
        """Mixed examples have both labels' losses, weighted."""
        per_example = self.per_example(outputs.logits, batch["labels"], self.label_smoothing)
        if "mixed_labels" in batch:
            others = self.per_example(outputs.logits, batch["mixed_labels"], self.label_smoothing)
            weight = batch["mix_weight"]
            per_example = weight * per_example + (1 - weight) * others
        mask = example_mask(batch)
        found = {self.loss_key: masked_sum(per_example, mask)}
        if self.distillation is None:
            return found
        student = outputs.logits if outputs.distilled is None else outputs.distilled
        of_teacher = masked_sum(self.distillation.per_example(student, batch["teacher_logits"]), mask)
        share = self.distillation.weight
        return {self.loss_key: (1 - share) * found[self.loss_key], "distillation": share * of_teacher}

    @property
    def independent_classes(self) -> bool:
        return self.loss_name == "sigmoid"

    @property
    def loss_key(self) -> str:
        return "cross_entropy" if self.focal_gamma is None else "focal"

    def losses(self, outputs: Any, batch: Batch) -> jax.Array:
        """Without label smoothing."""
        return self.per_example(outputs.logits, batch["labels"])

    def per_example(self, logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
        """The loss of each example, float32 [B], from logits [B, K] and labels int [B]."""
        targets = losses.targets(labels, logits.shape[-1], label_smoothing)
        loss = losses.softmax_loss if self.loss_name == "softmax" else losses.sigmoid_loss
        return loss(logits, targets, self.focal_gamma)

    def metrics(self, outputs: Any, batch: Batch) -> base.Metrics:
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
            **super().eval_sums(outputs, batch),
            "accuracy": masked_sum(metrics.correct(logits, labels), mask),
            "top5": masked_sum(metrics.correct(logits, labels, TOP), mask),
            "confusion": metrics.confusion_matrix(logits, labels, mask),
            "calibration": metrics.calibration_sums(self.probabilities(outputs), labels, mask),
        }

    def summarize(self, sums: base.Sums, collected: base.Collected, data: base.Batches) -> Evaluation:
        """Metrics and tables of a split.

        Returns:
          metrics: "loss" (without label smoothing, so that runs compare), "accuracy", "balanced_accuracy" (the mean
            recall of the classes with examples, Brodersen et al. 2010), "macro_f1" (the mean over the classes that
            occur), "ece", and with more than five classes "top5". An image that cannot be decoded is a missed
            example of its class, and has no part in "loss", "ece", "confusion" and "calibration".
          tables: "class_names"; "confusion", counts [K][K], rows are true classes; "per_class", a "name",
            "precision", "recall", "f1" and "support" each; "calibration", a mean "confidence", an "accuracy"
            and a "count" for each bin of confidence that has examples.
        """
        confusion = np.asarray(sums["confusion"])
        labels = [data.source.truth(index) for index in base.unseen(collected, data)]
        missed = np.bincount(np.array(labels, int), minlength=len(confusion))
        names, per_class = base.class_names(len(confusion), data), metrics.per_class(confusion, missed)
        all_of_them = {**sums, "count": sums["count"] + len(labels)}
        found = {
            "loss": base.mean_of(sums),
            "accuracy": base.mean_of(all_of_them, "accuracy"),
            "balanced_accuracy": metrics.mean(per_class["recall"]),
            "macro_f1": metrics.mean(per_class["f1"]),
            "ece": metrics.calibration_error(sums["calibration"]),
        }
        if len(confusion) > TOP:
            found["top5"] = base.mean_of(all_of_them, "top5")
        shown = {key: np.nan_to_num(per_class[key]) for key in ("precision", "recall", "f1", "support")}
        tables = {
            "class_names": names,
            "confusion": np.rint(confusion).astype(int).tolist(),
            "per_class": metrics.class_rows(names, shown),
            "calibration": metrics.calibration_table(sums["calibration"]),
        }
        return Evaluation(found, tables, {"accuracy": metrics.commonest_share(per_class["support"])})

    def probabilities(self, outputs: Any) -> jax.Array:
        """float32 [B, K]; with the sigmoid loss each class's own, which need not sum to 1.

        Raises:
          UserError: the model has no head, such as an imported one whose source has none.
        """
        if outputs.logits is None or outputs.logits.ndim != 2:
            raise UserError(
                "this run's model has no head, and so answers nothing",
                "train it with `model.pretrained`, or ask for its features",
            )
        logits = outputs.logits.astype(jnp.float32)
        return jax.nn.softmax(logits) if self.loss_name == "softmax" else jax.nn.sigmoid(logits)

    def predictions(self, outputs: Any, batch: Batch) -> Arrays:
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
            "label": base.class_name(label, data.class_names),
            "top": [{"class": one["label"], "probability": one["probability"]} for one in top],
        }


def top_classes(probabilities: np.ndarray, names: base.Names, top: int) -> list[dict[str, Any]]:
    """The `top` classes of probabilities [K], the likeliest first; of equal ones the first class."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [{**base.labelled(k, names), "probability": round(float(probabilities[k]), 6)} for k in order]
