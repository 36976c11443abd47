"""Image classification: each image is of one class."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.models.outputs import ImageOutputs
from jaxformer.tasks import losses, metrics, mixing
from jaxformer.tasks.base import Batch, Batches, Evaluation, example_mask, masked_sum

TOP = 5


@dataclass(frozen=True)
class Classification:
    """Learns the class of an image.

    Batches have `image` (uint8, or float 0..255, [B, H, W, C]), `labels` (int32 [B]) and, where rows may be
    padding, `example_mask` (bool [B]). Models give `ImageOutputs`.

    Attributes:
      loss_name: "softmax" cross-entropy, or "sigmoid": the sum of a binary one a class (Beyer et al. 2020).
      label_smoothing: the share of a label that is spread over all classes, in training; 0.1 is usual.
      focal_gamma: how much less easy examples count (Lin et al. 2017); 2 is usual, None leaves all alike.
      mixup: alpha of mixup (Zhang et al. 2018); 0.2 to 0.8 is usual, 0 is off.
      cutmix: alpha of CutMix (Yun et al. 2019); 1 is usual, 0 is off.
      cutmix_share: where both are on, the share of batches that take CutMix; the others take mixup.
      mean: of the pixels, in 0..1; one number for all channels, or one for each. Taken off on the device.
      std: likewise; what is left is divided by it.
    """

    loss_name: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: float = 0.0
    focal_gamma: float | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    cutmix_share: float = 0.5
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

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
        for name in ("mixup", "cutmix"):
            if not getattr(self, name) >= 0:
                yield f"{name}={getattr(self, name)}: expected an alpha over 0, such as 0.2, or 0 for none"
        if not 0 <= self.cutmix_share <= 1:
            yield f"cutmix_share={self.cutmix_share}: expected a share from 0 to 1"
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, 3):
                yield f"{name}={list(values)}: expected one number for all channels, or three for RGB"
        if not all(0 <= value <= 1 for value in self.mean):
            yield f"mean={list(self.mean)}: expected values in 0..1; divide by 255 if they are in 0..255"
        if not all(0 < value <= 1 for value in self.std):
            yield f"std={list(self.std)}: expected values in 0..1, not 0; divide by 255 if they are in 0..255"

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        """Yields a line for images of another size or with other channels than fit, and for too many classes."""
        height, width, channels = train.element_spec["image"][0]
        size = getattr(model, "image_size", None)
        if size is not None and (height, width) != (size, size):
            yield (
                f"model.image_size={size}: the training images are {height}x{width} after data.transforms; "
                f"set model.image_size={height} or resize them"
            )
        shown = evaluation.element_spec["image"][0]
        if shown != (height, width, channels):
            yield (
                f"data.eval_transforms give images of {shown}, data.transforms of {(height, width, channels)}: "
                "make them the same"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                yield (
                    f"task.{name}={list(values)}: the images have {channels} channels; "
                    f"give {channels} numbers, or one for all"
                )
        names = train.class_names
        if names is not None and model.num_classes < len(names):
            yield f"model.num_classes={model.num_classes}: the dataset has {len(names)} classes; set it to that"

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Refuses labels that are no class of the model."""
        metrics.check_labels(model.num_classes, batch["labels"])

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Normalised images: (image / 255 - mean) / std, float32 [B, H, W, C]."""
        image = jnp.asarray(batch["image"])
        mean, std = (
            jnp.asarray(values, jnp.float32)[None, None, None, :] for values in (self.mean, self.std)
        )
        return {"image": (image.astype(jnp.float32) / 255 - mean) / std}

    def augment(self, key: jax.Array, batch: Batch) -> Batch:
        """Mixup and CutMix, if they are on; see `tasks/mixing.py`. Pairs are within a device under pmap.

        Returns:
          The batch with `image` mixed, float32 0..255, and with `mixed_labels`, int32 [B], the partners', and
          `mix_weight`, float32 [B], the weight of an example's own label. Padding is not mixed into examples.
        """
        if self.mixup == 0 and self.cutmix == 0:
            return batch
        image, labels = jnp.asarray(batch["image"]), jnp.asarray(batch["labels"])
        weights, weight = mixing.draw_weights(
            key, *image.shape[1:3], mixup=self.mixup, cutmix=self.cutmix, cutmix_share=self.cutmix_share
        )
        has_partner = jnp.roll(example_mask(batch), 1)
        mixed = mixing.mix_images(image, weights)
        return {
            **batch,
            "image": jnp.where(has_partner[:, None, None, None], mixed, image.astype(jnp.float32)),
            "mixed_labels": jnp.roll(labels, 1),
            "mix_weight": jnp.where(has_partner, weight, 1.0),
        }

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """The number of examples, float32 []."""
        return {self.loss_key: jnp.sum(example_mask(batch), dtype=jnp.float32)}

    def loss(self, outputs: ImageOutputs, batch: Batch) -> dict[str, jax.Array]:
        """The loss summed over the examples, float32 []; of mixed examples both labels' losses, weighted."""
        per_example = self.per_example(outputs.logits, batch["labels"], self.label_smoothing)
        if "mixed_labels" in batch:
            others = self.per_example(outputs.logits, batch["mixed_labels"], self.label_smoothing)
            weight = batch["mix_weight"]
            per_example = weight * per_example + (1 - weight) * others
        return {self.loss_key: masked_sum(per_example, example_mask(batch))}

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

    def metrics(self, outputs: ImageOutputs, batch: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Accuracy; of mixed examples, for the label that weighs more."""
        mask, labels = example_mask(batch), batch["labels"]
        if "mixed_labels" in batch:
            labels = jnp.where(batch["mix_weight"] >= 0.5, labels, batch["mixed_labels"])
        right = masked_sum(metrics.correct(outputs.logits, labels), mask)
        return {"accuracy": (right, jnp.sum(mask, dtype=jnp.float32))}

    def eval_sums(self, outputs: ImageOutputs, batch: Batch) -> dict[str, Any]:
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

    def summarize(self, sums: dict[str, Any], class_names: Sequence[str] | None) -> Evaluation:
        """Metrics and tables of a split.

        Args:
          sums: `eval_sums` added up over the split, NumPy float64.
          class_names: names of the first classes; the others are called by their numbers.

        Returns:
          metrics: "loss" (without label smoothing, so that runs compare), "accuracy", "balanced_accuracy",
            "macro_f1", "ece", and with more than five classes "top5".
          tables: "class_names"; "confusion", counts [K][K], rows are true classes; "per_class", a "name",
            "precision", "recall", "f1" and "support" each; "calibration", a mean "confidence", an "accuracy"
            and a "count" for each bin of confidence that has examples.
        """
        confusion, calibration = np.asarray(sums["confusion"]), sums["calibration"]
        num_classes, count = len(confusion), max(float(sums["count"]), 1.0)
        names = [*(class_names or [])][:num_classes]
        names += [str(number) for number in range(len(names), num_classes)]
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

    def probabilities(self, outputs: ImageOutputs) -> jax.Array:
        """float32 [B, K]; with the sigmoid loss each class's own, which need not sum to 1."""
        logits = outputs.logits.astype(jnp.float32)
        return jax.nn.softmax(logits) if self.loss_name == "softmax" else jax.nn.sigmoid(logits)
