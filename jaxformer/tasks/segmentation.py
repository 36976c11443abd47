"""Semantic segmentation: each pixel is of one class."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.errors import UserError
from jaxformer.models.outputs import SegmentationOutputs
from jaxformer.tasks.base import Batch, Batches, Evaluation, Row, example_mask, masked_sum
from jaxformer.tasks.classes import class_name
from jaxformer.tasks.segmentation_losses import dice, lovasz_softmax, pixel_cross_entropy, pixel_weights
from jaxformer.tasks.segmentation_metrics import (
    METRIC_NAMES,
    pixel_confusion,
    segmentation_metrics,
    segmentation_per_class,
)

LOSSES = ("cross_entropy", "dice", "lovasz")
BYTE = 256  # classes that fit into a byte


@dataclass(frozen=True)
class Segmentation:
    """Learns the class of each pixel.

    Batches have `image` (uint8, or float 0..255, [B, H, W, C]), `segmentation` (int32 [B, H, W], each pixel's class; -1
    is ignored everywhere) and, where rows may be padding, `example_mask` (bool [B]). Models give `SegmentationOutputs`.
    """

    cross_entropy: float = 1.0
    """Weight of the pixels' cross-entropy, which is a mean over the pixels that have a class."""
    dice: float = 0.0
    """Weight of the Dice loss, a mean over images (`segmentation_losses.dice`)."""
    lovasz: float = 0.0
    """Weight of the Lovasz-softmax loss, a mean over images (`segmentation_losses.lovasz_softmax`)."""
    lovasz_step: int = 1
    """It sees every so many-th pixel down and across; it sorts the pixels once a class, which takes long."""
    class_weights: tuple[float, ...] | None = None
    """Of the classes' pixels in the cross-entropy, which is then a weighted mean; None: all alike."""
    mean: tuple[float, ...] = (0.5,)
    """Of the pixels, in 0..1; one number for all channels, or one for each. Taken off on the device."""
    std: tuple[float, ...] = (0.5,)
    """Likewise; what is left is divided by it."""

    metric_names: ClassVar[tuple[str, ...]] = ("loss", *METRIC_NAMES)

    def problems(self) -> Iterator[str]:
        """Yields a line for every value that cannot be."""
        for name in LOSSES:
            if not getattr(self, name) >= 0:
                yield f"{name}={getattr(self, name)}: expected a weight of 0 or more"
        if not any(getattr(self, name) > 0 for name in LOSSES):
            yield "cross_entropy=0: nothing is learnt without a loss; set it, dice or lovasz to more than 0"
        if self.lovasz_step < 1:
            yield f"lovasz_step={self.lovasz_step}: expected at least 1"
        if self.class_weights is not None and not all(weight >= 0 for weight in self.class_weights):
            yield f"class_weights={list(self.class_weights)}: expected weights of 0 or more"
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, 3):
                yield f"{name}={list(values)}: expected one number for all channels, or three for RGB"
        if not all(0 <= value <= 1 for value in self.mean):
            yield f"mean={list(self.mean)}: expected values in 0..1; divide by 255 if they are in 0..255"
        if not all(0 < value <= 1 for value in self.std):
            yield f"std={list(self.std)}: expected values in 0..1, not 0; divide by 255 if they are in 0..255"

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        """Yields a line for data without masks, images of a size that the model does not take, and too many classes."""
        if missing := {"image", "segmentation"} - train.element_spec.keys():
            made = ", ".join(sorted(train.element_spec))
            yield (
                f"data.examples: batches have {made}, this task needs {' and '.join(sorted(missing))}: "
                'set examples=dict(name="segmentation", ...), or choose another task'
            )
            return
        if model.kind != "segmenter":
            yield f'model: {type(model).__name__} does not segment images; choose "segmenter"'
            return
        if model.image_size is not None:
            yield from size_problems(model, train, evaluation)
        channels = train.element_spec["image"][0][-1]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                yield (
                    f"task.{name}={list(values)}: the images have {channels} channels; "
                    f"give {channels} numbers, or one for all"
                )
        names = train.class_names
        if model.num_classes is None:
            yield "model.num_classes: the dataset does not say how many classes it has; set it"
        elif names is not None and model.num_classes < len(names):
            yield f"model.num_classes={model.num_classes}: the dataset has {len(names)} classes; set it to that"
        elif self.class_weights is not None and len(self.class_weights) != model.num_classes:
            yield (
                f"task.class_weights: there are {len(self.class_weights)} weights and {model.num_classes} classes; "
                "give one for each"
            )

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Refuses classes that the model does not have."""
        classes = batch["segmentation"]
        if classes.size and classes.max() >= model.num_classes:
            raise UserError(
                f"model.num_classes={model.num_classes}: the classes must be 0 to {model.num_classes - 1}, a mask has "
                f"{classes.max()}; set it to {classes.max() + 1} or more, or ignore them (data.examples.ignore_labels)"
            )

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Normalised images: (image / 255 - mean) / std, float32 [B, H, W, C]."""
        image = jnp.asarray(batch["image"])
        mean, std = (
            jnp.asarray(values, jnp.float32)[None, None, None, :] for values in (self.mean, self.std)
        )
        return {"image": (image.astype(jnp.float32) / 255 - mean) / std}

    def augment(self, key: jax.Array, batch: Batch) -> Batch:
        """Nothing: transforms on the host move images and masks together."""
        return batch

    def classes(self, batch: Batch) -> jax.Array:
        """int32 [B, H, W]: the class of each pixel; -1 on padding rows, too."""
        return jnp.where(example_mask(batch)[:, None, None], jnp.asarray(batch["segmentation"]), -1)

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """The (weighted) number of pixels with a class, and of images with such pixels; float32 []."""
        classes = self.classes(batch)
        pixels = jnp.sum(pixel_weights(classes, self.class_weights))
        images = jnp.sum(jnp.any(classes >= 0, axis=(1, 2)), dtype=jnp.float32)
        return {name: pixels if name == "cross_entropy" else images for name in self.used}

    def loss(self, outputs: SegmentationOutputs, batch: Batch) -> dict[str, jax.Array]:
        """Each loss times its weight, summed over pixels or images, float32 []."""
        classes, logits = self.classes(batch), self.logits(outputs, batch)
        step, mask = self.lovasz_step, example_mask(batch)
        sums = {
            "cross_entropy": lambda: jnp.sum(pixel_cross_entropy(logits, classes, self.class_weights)),
            "dice": lambda: masked_sum(dice(logits, classes), mask),
            "lovasz": lambda: masked_sum(
                lovasz_softmax(logits[:, ::step, ::step], classes[:, ::step, ::step]), mask
            ),
        }
        return {name: getattr(self, name) * sums[name]() for name in self.used}

    @property
    def used(self) -> tuple[str, ...]:
        """The losses whose weight is not 0."""
        return tuple(name for name in LOSSES if getattr(self, name) > 0)

    def logits(self, outputs: SegmentationOutputs, batch: Batch) -> jax.Array:
        """float32 [B, H, W, K], at the images' size."""
        height, width = batch["image"].shape[1:3]
        return outputs.at((height, width))

    def metrics(self, outputs: SegmentationOutputs, batch: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
        """The share of pixels whose class no other one's logit exceeds."""
        classes, logits = self.classes(batch), self.logits(outputs, batch)
        numbers = jnp.arange(logits.shape[-1])[None, None, None, :]
        own = jnp.max(jnp.where(numbers == classes[..., None], logits, -jnp.inf), axis=-1)
        right = (classes >= 0) & (own >= jnp.max(logits, axis=-1))
        pixels = jnp.sum(classes >= 0, dtype=jnp.float32)
        return {"pixel_accuracy": (jnp.sum(right, dtype=jnp.float32), pixels)}

    def eval_sums(self, outputs: SegmentationOutputs, batch: Batch) -> dict[str, jax.Array]:
        """The cross-entropy without weights and the number of pixels, float32 [], and "confusion", int32 [K, K]."""
        classes, logits = self.classes(batch), self.logits(outputs, batch)
        return {
            "loss": jnp.sum(pixel_cross_entropy(logits, classes)),
            "count": jnp.sum(classes >= 0, dtype=jnp.float32),
            "confusion": pixel_confusion(jnp.argmax(logits, axis=-1), classes, logits.shape[-1]),
        }

    def collect(
        self, outputs: SegmentationOutputs, batch: Batch, model: Any, variables: Any
    ) -> dict[str, jax.Array]:
        """Nothing: sums say everything."""
        return {}

    def summarize(
        self, sums: Mapping[str, np.ndarray], collected: Mapping[str, np.ndarray], data: Batches
    ) -> Evaluation:
        """Metrics and tables of a split.

        Args:
          sums: `eval_sums` added up over the split, NumPy float64.
          collected: nothing.
          data: knows the names of the first classes; the others are called by their numbers.

        Returns:
          metrics: "loss" (a pixel's cross-entropy, so that runs compare), "mean_iou", "pixel_accuracy" and
            "mean_accuracy".
          tables: "class_names"; "confusion", pixels [K][K], rows are true classes; "per_class", a "name", "iou",
            "accuracy", "precision" and "support" (pixels) each, None where a share is of nothing.
        """
        confusion = np.rint(np.asarray(sums["confusion"])).astype(np.int64)
        names = [class_name(number, data.class_names) for number in range(len(confusion))]
        loss = float(sums["loss"]) / max(float(sums["count"]), 1.0)
        columns = segmentation_per_class(confusion)
        per_class = [
            {
                "name": name,
                **{key: share(values[i]) for key, values in columns.items() if key != "support"},
                "support": int(columns["support"][i]),
            }
            for i, name in enumerate(names)
        ]
        tables = {"class_names": names, "confusion": confusion.tolist(), "per_class": per_class}
        return Evaluation({"loss": loss, **segmentation_metrics(confusion)}, tables)

    def predictions(self, outputs: SegmentationOutputs, batch: Batch) -> dict[str, jax.Array]:
        """The likeliest class of each pixel, [B, H, W]: uint8, or int32 where a byte is too small."""
        logits = self.logits(outputs, batch)
        dtype = jnp.uint8 if logits.shape[-1] <= BYTE else jnp.int32
        return {"classes": jnp.argmax(logits, axis=-1).astype(dtype)}

    def errors(self, outputs: SegmentationOutputs, batch: Batch) -> jax.Array:
        """The share of each image's pixels that are taken for another class, float32 [B]."""
        classes = self.classes(batch)
        wrong = (classes >= 0) & (self.predictions(outputs, batch)["classes"] != classes)
        wrong, known = (jnp.sum(x, axis=(1, 2), dtype=jnp.float32) for x in (wrong, classes >= 0))
        return wrong / jnp.maximum(known, 1)

    def sample(self, example: Row, predicted: Row, data: Batches) -> dict[str, Any]:
        """How much of it is right, and the names of the classes that are in it or were found there."""
        found, classes = predicted["classes"], example["segmentation"]
        known = classes >= 0
        right = float((found == classes)[known].mean()) if known.any() else None
        present = np.union1d(classes[known], found[known])
        return {
            "correct": None,
            "pixel_accuracy": None if right is None else round(right, 4),
            "classes": {str(int(k)): class_name(int(k), data.class_names) for k in present},
        }


def size_problems(model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
    """Yields a line for images of another size than the model's backbone takes."""
    side = model.image_size
    height, width = train.element_spec["image"][0][:2]
    if (height, width) != (side, side):
        yield (
            f"model.backbone.image_size={side}: the training images are {height}x{width}; "
            f"set data.examples.size={side}, or take a backbone for images of any size"
        )
    height, width = evaluation.element_spec["image"][0][:2]
    if model.window is None and (height, width) != (side, side):
        yield (
            f"model.backbone.image_size={side}: the evaluation's images are {height}x{width}; "
            f"lay windows over them with model.window=[{side}, {side}], or set data.examples.eval_size={side}"
        )
    elif model.window is not None and min(height, width) < side:
        yield (
            f"model.window={list(model.window)}: the evaluation's images are only {height}x{width}; "
            "enlarge data.examples.eval_size"
        )


def share(value: float) -> float | None:
    """A share for JSON: None for NaN, the share of nothing."""
    return None if np.isnan(value) else float(value)
