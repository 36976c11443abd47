"""Semantic segmentation: each pixel is of one class."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.config.fields import Constraint, PositiveInt, at_least
from jaxformer.errors import UserError
from jaxformer.models.outputs import SegmentationOutputs
from jaxformer.tasks.base import (
    Batch,
    Batches,
    DataInfo,
    Evaluation,
    Metrics,
    Row,
    class_name,
    class_names,
    example_mask,
    masked_sum,
)
from jaxformer.tasks.image import ImageTask
from jaxformer.tasks.metrics import class_rows
from jaxformer.tasks.segmentation_losses import dice, lovasz_softmax, pixel_cross_entropy, pixel_weights
from jaxformer.tasks.segmentation_metrics import (
    METRIC_NAMES,
    pixel_confusion,
    segmentation_metrics,
    segmentation_per_class,
)

if TYPE_CHECKING:
    from PIL import Image

LOSSES = ("cross_entropy", "dice", "lovasz")
BYTE = 256  # classes that fit into a byte
WEIGHT = at_least(0, "a weight of 0 or more")
WEIGHTS = Constraint("weights of 0 or more", lambda weights: all(weight >= 0 for weight in weights))


@dataclass(frozen=True)
class Segmentation(ImageTask):
    """Learns the class of each pixel.

    Batches have `image` (uint8, or float 0..255, [B, H, W, C]), `segmentation` (int32 [B, H, W], each pixel's class; -1
    is ignored everywhere) and, where rows may be padding, `example_mask` (bool [B]). Models give `SegmentationOutputs`.
    """

    cross_entropy: Annotated[float, WEIGHT] = 1.0
    """Weight of the pixels' cross-entropy, which is a mean over the pixels that have a class."""
    dice: Annotated[float, WEIGHT] = 0.0
    """Weight of the Dice loss, a mean over images (`segmentation_losses.dice`)."""
    lovasz: Annotated[float, WEIGHT] = 0.0
    """Weight of the Lovasz-softmax loss, a mean over images (`segmentation_losses.lovasz_softmax`)."""
    lovasz_step: PositiveInt = 1
    """Stride of the pixels that the Lovasz loss sees, down and across: it sorts them for each class, which is slow."""
    class_weights: Annotated[tuple[float, ...], WEIGHTS] | None = None
    """Weights of the classes' pixels in the cross-entropy, which is then a weighted mean; None weighs all alike."""

    metric_names: ClassVar = ("loss", *METRIC_NAMES)
    needs = ("image", "segmentation")
    examples = "segmentation"
    kind = "segmenter"
    kind_does = ("segment images", "segmenter")
    views = ("flip",)
    written: ClassVar = {"map": "-classes"}

    def problems(self) -> Iterator[str]:
        """Yields a line if nothing is left to learn."""
        if not self.used:
            yield "cross_entropy=0: nothing is learnt without a loss; set it, dice or lovasz to more than 0"

    def misfits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        if model.image_size is not None:
            yield from size_problems(model, train, evaluation)
        if model.num_classes is None:
            yield "model.num_classes: the dataset does not say how many classes it has; set it"
        elif self.class_weights is not None and len(self.class_weights) != model.num_classes:
            yield (
                f"task.class_weights: there are {len(self.class_weights)} weights and {model.num_classes} classes; "
                "give one for each"
            )

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        classes = batch["segmentation"]
        if classes.size and classes.max() >= model.num_classes:
            raise UserError(
                f"model.num_classes={model.num_classes}: the classes must be 0 to {model.num_classes - 1}, a mask has "
                f"{classes.max()}; set it to {classes.max() + 1} or more, or ignore them (data.examples.ignore_labels)"
            )

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

    def metrics(self, outputs: SegmentationOutputs, batch: Batch) -> Metrics:
        """The share of pixels with a class that no other class's logit exceeds."""
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

    def summarize(
        self, sums: Mapping[str, np.ndarray], collected: Mapping[str, np.ndarray], data: Batches
    ) -> Evaluation:
        """Metrics and tables of a split.

        Returns:
          metrics: "loss" (a pixel's cross-entropy, so that runs compare), "mean_iou", "pixel_accuracy" and
            "mean_accuracy".
          tables: "class_names"; "confusion", pixels [K][K], rows are true classes; "per_class", a "name", "iou",
            "accuracy", "precision" and "support" (pixels) each, None where a share is of nothing.
        """
        confusion = np.rint(np.asarray(sums["confusion"])).astype(np.int64)
        names = class_names(len(confusion), data)
        loss = float(sums["loss"]) / max(float(sums["count"]), 1.0)
        per_class = class_rows(names, segmentation_per_class(confusion))
        tables = {"class_names": names, "confusion": confusion.tolist(), "per_class": per_class}
        return Evaluation({"loss": loss, **segmentation_metrics(confusion)}, tables)

    def predictions(self, outputs: SegmentationOutputs, batch: Batch) -> dict[str, jax.Array]:
        """The likeliest class of each pixel, [B, H, W]: uint8, or int32 where a byte is too small."""
        logits = self.logits(outputs, batch)
        dtype = jnp.uint8 if logits.shape[-1] <= BYTE else jnp.int32
        return {"classes": jnp.argmax(logits, axis=-1).astype(dtype)}

    def errors(self, outputs: SegmentationOutputs, batch: Batch) -> jax.Array:
        """The share of each image's pixels that are predicted to be of another class, float32 [B]."""
        classes = self.classes(batch)
        wrong = (classes >= 0) & (self.predictions(outputs, batch)["classes"] != classes)
        wrong, known = (jnp.sum(x, axis=(1, 2), dtype=jnp.float32) for x in (wrong, classes >= 0))
        return wrong / jnp.maximum(known, 1)

    def answers(self, predicted: Row, example: Row, about: DataInfo, top: int = 5) -> dict[str, Any]:
        """ "classes": the classes that are in the image, the largest first: "label", "index", "share" of the pixels."""
        classes = at_size(predicted["classes"], example["extent"], example["original_size"])
        counts = np.bincount(classes.reshape(-1))
        order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        return {
            "classes": [
                {
                    "label": class_name(int(index), about.class_names),
                    "index": int(index),
                    "share": round(float(counts[index] / classes.size), 6),
                }
                for index in order
            ]
        }

    def draw(self, image: np.ndarray, answer: Mapping[str, Any], predicted: Row, example: Row) -> dict:
        """The image in the classes' colours, and the "map": the classes' numbers, in 8 bits (with a palette) or 16."""
        from jaxformer import drawing

        classes = at_size(predicted["classes"], example["extent"], example["original_size"])
        annotated = drawing.annotate(
            drawing.over_image(image, classes),
            [(entry["label"], entry["share"]) for entry in answer["classes"]],
            [drawing.css(entry["index"]) for entry in answer["classes"]],
        )
        return {"": annotated, "map": map_image(classes, predicted["classes"].dtype == np.uint8)}

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        """The share of the pixels that are right, and the classes that are in the image or were found there."""
        from jaxformer import drawing

        found, classes = predicted["classes"], example["segmentation"]
        known = classes >= 0
        right = float((found == classes)[known].mean()) if known.any() else None
        present = np.union1d(classes[known], found[known])
        return {
            "correct": None,
            "pixel_accuracy": None if right is None else round(right, 4),
            "legend": [
                {"name": class_name(int(k), data.class_names), "colour": drawing.css(int(k))} for k in present
            ],
            "caption": "no pixel has a class" if right is None else f"{right:.1%} of its pixels are right",
        }

    def compare(self, example: Row, predicted: Row, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
        from jaxformer import drawing

        rows, columns = (int(side) for side in example.get("extent", predicted["classes"].shape))
        both = {"truth": example["segmentation"], "prediction": predicted["classes"].astype(np.int32)}
        image = example["image"][:rows, :columns]
        return {shows: drawing.over_image(image, classes[:rows, :columns]) for shows, classes in both.items()}


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


def at_size(classes: np.ndarray, extent: np.ndarray, size: Sequence[int] | np.ndarray) -> np.ndarray:
    """int32 [h, w]: a frame's classes [H, W] without its padding, at an image's own height and width."""
    import cv2

    inside = np.ascontiguousarray(classes[: extent[0], : extent[1]], np.float32)  # OpenCV resizes no int32
    shape = int(size[1]), int(size[0])
    return cv2.resize(inside, shape, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.int32)


def map_image(classes: np.ndarray, few: bool) -> "Image.Image":
    """An image whose values are the classes; `few` classes fit into a byte."""
    from PIL import Image

    from jaxformer import drawing

    if not few:
        return Image.fromarray(classes.astype(np.uint16))
    image = Image.fromarray(classes.astype(np.uint8), "P")
    image.putpalette(drawing.palette(BYTE).tobytes(), "RGB")
    return image
