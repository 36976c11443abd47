"""Image classification."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.models.outputs import ImageOutputs
from jaxformer.tasks import losses, metrics
from jaxformer.tasks.base import Batch, Evaluation, example_mask
from jaxformer.tasks.mixing import mix


@dataclass(frozen=True)
class Classification:
    """Each image is of one class.

    Attributes:
      loss_name: "softmax" cross-entropy, or "sigmoid": a binary one for every class (Beyer et al. 2020).
      label_smoothing: the share of a label that is spread over all classes.
      focal_gamma: weights hard examples up (Lin et al. 2017; 2 is usual); None leaves all alike.
      mixup: alpha of mixup (Zhang et al. 2018; 0.2 to 0.8 is usual); 0 is off.
      cutmix: alpha of CutMix (Yun et al. 2019; 1 is usual); 0 is off.
      cutmix_share: where both are on, the share of batches that take CutMix.
      mean: of the pixels in 0..1, one for all channels or one each; taken off on the device.
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

    metric_names: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "top5", "ece", "macro_f1")

    def problems(self) -> Iterator[str]:
        """Yields a line for every value that cannot be."""
        if not 0 <= self.label_smoothing < 1:
            yield f"label_smoothing={self.label_smoothing}: expected at least 0 and less than 1, such as 0.1"
        if self.focal_gamma is not None and self.focal_gamma < 0:
            yield f"focal_gamma={self.focal_gamma}: expected 0 or more, or None"
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                yield f"{name}={getattr(self, name)}: expected an alpha over 0, or 0 for none"
        if not 0 <= self.cutmix_share <= 1:
            yield f"cutmix_share={self.cutmix_share}: expected a share from 0 to 1"
        if len(self.mean) != len(self.std) or not self.mean:
            yield f"mean={list(self.mean)}: std has {len(self.std)} values; give as many of both"
        if any(s <= 0 for s in self.std):
            yield f"std={list(self.std)}: expected values over 0"

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Images, uint8 or float32 0..255 [B, H, W, C], normalised in float32."""
        image = jnp.asarray(batch["image"]).astype(jnp.float32)
        mean = jnp.broadcast_to(255 * jnp.asarray(self.mean, jnp.float32), image.shape)
        std = jnp.broadcast_to(255 * jnp.asarray(self.std, jnp.float32), image.shape)
        return {"image": (image - mean) / std}

    def augment(self, key: jax.Array, batch: Batch) -> Batch:
        """Mixup and CutMix: `image` becomes float32, `mixed_labels` [B] and `mix_weight` [B] come in."""
        if self.mixup == 0 and self.cutmix == 0:
            return batch
        alphas = {"mixup_alpha": self.mixup, "cutmix_alpha": self.cutmix, "cutmix_share": self.cutmix_share}
        image, weight = mix(key, batch["image"], **alphas)
        labels = batch["labels"]
        mixed = {"mixed_labels": jnp.roll(labels, 1), "mix_weight": jnp.full(labels.shape, weight)}
        return {**batch, "image": image, **mixed}

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """The examples that are no padding."""
        return {self.loss_key: jnp.sum(example_mask(batch))}

    def loss(self, outputs: ImageOutputs, batch: Batch) -> dict[str, jax.Array]:
        """The loss summed over examples."""
        logits = outputs.logits
        as_targets = partial(
            losses.targets, num_classes=logits.shape[-1], label_smoothing=self.label_smoothing
        )
        targets = as_targets(batch["labels"])
        if "mixed_labels" in batch:
            weight = batch["mix_weight"][:, None]
            targets = weight * targets + (1 - weight) * as_targets(batch["mixed_labels"])
        return {self.loss_key: jnp.sum(self.per_example(logits, targets) * example_mask(batch))}

    @property
    def loss_key(self) -> str:
        """The loss's name in metrics."""
        return "cross_entropy" if self.focal_gamma is None else "focal"

    def per_example(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """The loss of each example, float32 [B]."""
        if self.focal_gamma is not None:
            focal = losses.softmax_focal if self.loss_name == "softmax" else losses.sigmoid_focal
            return focal(logits, targets, self.focal_gamma)
        cross_entropy = (
            losses.softmax_cross_entropy if self.loss_name == "softmax" else losses.sigmoid_cross_entropy
        )
        return cross_entropy(logits, targets)

    def metrics(self, outputs: ImageOutputs, batch: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Accuracy; of a mixed example, by the label that weighs more."""
        mask, labels = example_mask(batch), batch["labels"]
        if "mixed_labels" in batch:
            labels = jnp.where(batch["mix_weight"] >= 0.5, labels, batch["mixed_labels"])
        return {"accuracy": (jnp.sum(metrics.correct(outputs.logits, labels) * mask), jnp.sum(mask))}

    def eval_sums(self, outputs: ImageOutputs, batch: Batch) -> dict[str, Any]:
        """Sums of loss, top-5, confusion matrix and calibration bins."""
        mask, labels, logits = example_mask(batch), batch["labels"], outputs.logits
        targets = losses.targets(labels, logits.shape[-1])
        return {
            "loss": jnp.sum(self.per_example(logits, targets) * mask),
            "top5": jnp.sum(metrics.in_top(logits, labels, 5) * mask),
            "confusion": metrics.confusion(logits, labels, mask),
            "calibration": metrics.calibration_sums(self.probabilities(outputs), labels, mask),
        }

    def summarize(self, sums: dict[str, Any], class_names: Sequence[str] | None) -> Evaluation:
        """Metrics and tables; the loss is without label smoothing."""
        table = sums["confusion"]
        count = max(table.sum(), 1)
        names = list(class_names or [])
        names += [str(i) for i in range(len(names), len(table))]
        per_class = metrics.per_class_table(table, names)
        present = [row["f1"] for row in per_class if row["support"]]
        found = {
            "loss": float(sums["loss"] / count),
            "accuracy": float(np.trace(table) / count),
            "top5": float(sums["top5"] / count),
            "ece": metrics.calibration_error(sums["calibration"]),
            "macro_f1": float(np.mean(present)) if present else 0.0,
        }
        tables = {
            "class_names": names,
            "confusion": table.astype(int).tolist(),
            "per_class": per_class,
            "calibration": metrics.calibration_table(sums["calibration"]),
        }
        return Evaluation(found, tables)

    def probabilities(self, outputs: ImageOutputs) -> jax.Array:
        """float32 [B, K]; of a sigmoid loss each class's own, which need not sum to 1."""
        logits = outputs.logits.astype(jnp.float32)
        return jax.nn.softmax(logits) if self.loss_name == "softmax" else jax.nn.sigmoid(logits)
