"""Object detection: a set of boxes with classes in each image (Carion et al. 2020)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.config.fields import Fraction, NonNegativeFloat
from jaxformer.models.outputs import DetectionOutputs
from jaxformer.tasks.base import (
    Batch,
    Batches,
    DataInfo,
    Evaluation,
    Row,
    class_name,
    class_names,
    example_mask,
    masked_sum,
)
from jaxformer.tasks.detection_metrics import METRIC_NAMES, BoxScores, Objects, score_boxes
from jaxformer.tasks.image import ImageTask
from jaxformer.tasks.metrics import check_labels, class_rows
from jaxformer.tasks.set_losses import ClassLoss, ClassLossName, Weights, denoising_losses, set_losses

MOST = 100  # detections of an image, as COCO counts them
SMALLEST, LARGEST = 640, 1280  # pixels of an image's longer side as `predict` draws it
REPORTED = 320  # as the report draws it


@dataclass(frozen=True)
class Detection(ImageTask):
    """Learns to find objects.

    Batches have `image` (uint8 [B, H, W, C]), `extent`, `boxes`, `labels` (as the examples "detection" make them) and,
    where rows may be padding, `example_mask`. Models give `DetectionOutputs` (`DETR`). In every layer of the decoder
    predictions are matched to the true objects by minimum-cost linear assignment; there are losses of the classes, of
    the boxes' distance (L1) and of their overlap (GIoU).
    """

    class_loss: ClassLossName = "softmax"
    """ "softmax", with a class for no object (model.no_object), or "focal", without; see `ClassLoss`."""
    class_weight: NonNegativeFloat | None = None
    """Weight of the class's loss and cost; None: 1 with "softmax" (Carion et al. 2020), 2 with "focal" (Zhu et al.
    2021)."""
    l1_weight: NonNegativeFloat = 5.0
    """Weight of the loss and cost of the distances of the boxes' four numbers."""
    giou_weight: NonNegativeFloat = 2.0
    """Weight of the loss and cost of generalised IoU."""
    no_object_weight: NonNegativeFloat = 0.1
    """Weight of the class for no object in the softmax's loss."""
    focal_alpha: Fraction = 0.25
    """Weight of a true class in the focal loss; a false one weighs 1 - alpha."""
    focal_gamma: NonNegativeFloat = 2.0
    """How much less predictions that are right already count in the focal loss."""
    num_queries: int | None = None
    """The model's number of queries, by which the softmax's loss is divided; None takes it from the model."""
    auxiliary: bool = True
    """Whether all of the decoder's layers have losses, not only the last."""
    score_threshold: Fraction = 0.5
    """The least score of the detections that the report and `predict` show."""

    metric_names: ClassVar = ("loss", *METRIC_NAMES)
    needs = ("image", "extent", "boxes", "labels")
    examples = "detection"
    kind = "detector"
    kind_does = ("find objects", "detr")

    def absent_metrics(self, model: Any, data: Batches) -> dict[str, str]:
        sizes = [name for name in METRIC_NAMES if name.endswith(("small", "medium", "large"))]
        return dict.fromkeys(sizes, "is given only where there are objects of that size")

    @property
    def of_classes(self) -> ClassLoss:
        """The loss of the classes."""
        return ClassLoss(self.class_loss, self.no_object_weight, self.focal_alpha, self.focal_gamma)

    @property
    def weights(self) -> Weights:
        """The weights of losses and costs."""
        usual = 1.0 if self.class_loss == "softmax" else 2.0
        of_class = usual if self.class_weight is None else self.class_weight
        return Weights(of_class, self.l1_weight, self.giou_weight)

    def misfits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        objects = max(data.element_spec["boxes"][0][0] for data in (train, evaluation))
        if objects > model.num_queries:
            yield (
                f"model.num_queries={model.num_queries}: images have up to data.examples.max_objects={objects} "
                "objects, and each needs a query; give more, or lower that"
            )
        if self.num_queries not in (None, model.num_queries):
            yield f"task.num_queries={self.num_queries}: the model has {model.num_queries}; remove it"
        if model.no_object != (self.class_loss == "softmax"):
            yield (
                f"model.no_object={model.no_object}: task.class_loss={self.class_loss!r} "
                f"{'needs' if self.class_loss == 'softmax' else 'has no use for'} a class for no object; "
                f"set it to {not model.no_object}"
            )
        height, width = train.element_spec["image"][0][:2]
        size = model.image_size
        if size is not None and (height, width) != (size, size):
            yield (
                f"model.backbone.image_size={size}: the images' frame is {height}x{width} (data.examples.size); "
                "make them the same"
            )

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        labels = batch["labels"]
        check_labels(model.num_classes, labels[labels >= 0])

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Normalised images with zeros around them, their extents and, where known, the true objects."""
        image, extent = super().inputs(batch)["image"], jnp.asarray(batch["extent"])
        rows, columns = (
            jnp.arange(side)[None, :] < extent[:, axis, None] for axis, side in enumerate(image.shape[1:3])
        )
        inside = (rows[:, :, None] & columns[:, None, :])[..., None]  # [B, H, W, 1]
        true = {name: jnp.asarray(batch[name]) for name in ("boxes", "labels") if name in batch}
        return {"image": jnp.where(inside, image, 0), "extent": extent, **true}

    def labels(self, batch: Batch) -> jax.Array:
        """int32 [B, N]; -1 where there is no object."""
        return jnp.where(example_mask(batch)[:, None], batch["labels"], -1)

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """The number of true objects, float32 []; of the softmax's loss the weights of all queries."""
        objects = jnp.sum(self.labels(batch) >= 0, dtype=jnp.float32)
        of_class = objects
        if self.class_loss == "softmax":
            queries = jnp.sum(example_mask(batch), dtype=jnp.float32) * (self.num_queries or 0)
            of_class = objects + self.no_object_weight * (queries - objects)
        found = {"class": of_class, "l1": objects, "giou": objects}
        others = {"auxiliary_class": of_class, "auxiliary_boxes": objects}
        return {**found, **others, "denoising_class": objects, "denoising_boxes": objects}

    def loss(self, outputs: DetectionOutputs, batch: Batch) -> dict[str, jax.Array]:
        """The losses' sums, with their weights: of the last layer, of those before it, and of noised objects."""
        per_image = self.per_image(outputs, batch, all_layers=self.auxiliary)
        mask = example_mask(batch)
        sums = {name: masked_sum(value.T, mask) for name, value in per_image.items()}  # [L]
        found = {name: value[-1] for name, value in sums.items()}
        if len(sums["class"]) > 1:
            found["auxiliary_class"] = jnp.sum(sums["class"][:-1])
            found["auxiliary_boxes"] = jnp.sum(sums["l1"][:-1] + sums["giou"][:-1])
        if outputs.denoised is not None:
            given = outputs.denoised
            lost = denoising_losses(
                given.logits, given.boxes, self.labels(batch), batch["boxes"], self.of_classes
            )
            lost = self.weighted(lost)
            # Each object has two noised queries, one of which is to be no object.
            share = 1 + self.no_object_weight if self.class_loss == "softmax" else 1.0
            found["denoising_class"] = masked_sum(lost["class"].T, mask).sum() / share
            found["denoising_boxes"] = masked_sum((lost["l1"] + lost["giou"]).T, mask).sum()
        return found

    def per_image(self, outputs: DetectionOutputs, batch: Batch, all_layers: bool) -> dict[str, jax.Array]:
        """The losses "class", "l1" and "giou" with their weights, float32 [L, B], of all layers or of the last."""
        first = 0 if all_layers else -1
        lost = set_losses(
            outputs.logits[first:],
            outputs.boxes[first:],
            self.labels(batch),
            jnp.asarray(batch["boxes"]),
            self.of_classes,
            self.weights,
        )
        return self.weighted(lost)

    def weighted(self, losses: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Losses by their names, with their weights."""
        weights = {"class": self.weights.classes, "l1": self.weights.l1, "giou": self.weights.giou}
        return {name: weights[name] * value for name, value in losses.items()}

    def eval_sums(self, outputs: DetectionOutputs, batch: Batch) -> dict[str, Any]:
        """The last layer's losses and what they are divided by, float32 []."""
        lost = self.per_image(outputs, batch, all_layers=False)
        counts, mask = self.counts(batch), example_mask(batch)
        return {
            name: {"sum": masked_sum(value[0], mask), "count": counts[name]} for name, value in lost.items()
        }

    def detections(self, outputs: DetectionOutputs) -> dict[str, jax.Array]:
        """The surest detections, the surest first: `scores` float32 [B, M], `classes` int32 [B, M], `boxes` [B, M, 4].

        With "softmax" every query has one class, with "focal" it may have several.
        """
        probabilities = self.of_classes.probabilities(outputs.logits[-1])  # [B, Q, K]
        batch, queries, classes = probabilities.shape
        if self.class_loss == "softmax":
            every = jnp.max(probabilities, axis=-1)
            scores, query = jax.lax.top_k(every, min(MOST, queries))
            found = jnp.take_along_axis(jnp.argmax(probabilities, axis=-1), query, axis=1)
        else:
            flat = probabilities.reshape(batch, queries * classes)
            scores, place = jax.lax.top_k(flat, min(MOST, queries * classes))
            query, found = place // classes, place % classes
        boxes = jnp.take_along_axis(outputs.boxes[-1], query[..., None], axis=1)
        return {"scores": scores, "classes": found.astype(jnp.int32), "boxes": boxes}

    def collect(
        self, outputs: DetectionOutputs, batch: Batch, model: Any, variables: Any
    ) -> dict[str, jax.Array]:
        size = batch["original_size"] if "original_size" in batch else batch["extent"]
        true = {"true_boxes": batch["boxes"], "true_classes": batch["labels"], "size": size}
        return {**self.detections(outputs), **{name: jnp.asarray(value) for name, value in true.items()}}

    def summarize(
        self, sums: Mapping[str, Any], collected: Mapping[str, np.ndarray], data: Batches
    ) -> Evaluation:
        """Metrics and tables of a split.

        Returns:
          metrics: "loss" of the last layer and COCO's figures, 0 to 1, in pixels of the images as they are stored:
            "ap" (mean over IoU thresholds), "ap50", "ap75", "ar_1", "ar_10", "ar_100", and by size ("ap_small", ...)
            where there are such objects.
          tables: "class_names"; "per_class", a "name", "ap", "ap50", "ap75", "recall" and "support" each.
        """
        loss = sum(float(part["sum"]) / max(float(part["count"]), 1.0) for part in sums.values())
        scores = scored(collected, len(data.class_names or ()))
        names = class_names(len(scores.support), data)
        tables = {"class_names": names, "per_class": class_rows(names, scores.per_class())}
        return Evaluation({"loss": loss, **scores.metrics()}, tables)

    def predictions(self, outputs: DetectionOutputs, batch: Batch) -> dict[str, jax.Array]:
        return self.detections(outputs)

    def errors(self, outputs: DetectionOutputs, batch: Batch) -> jax.Array:
        """The last layer's loss of each image over the number of its objects, float32 [B]."""
        lost = self.per_image(outputs, batch, all_layers=False)
        objects = jnp.sum(self.labels(batch) >= 0, axis=1)
        return sum(value[0] for value in lost.values()) / jnp.maximum(objects, 1)

    def sure(
        self, predicted: Row, size: Sequence[int] | np.ndarray, names: Sequence[str] | None
    ) -> list[dict[str, Any]]:
        """An image's detections (a row of `detections`) from the threshold on, in pixels of an image of `size`."""
        sure = predicted["scores"] >= self.score_threshold
        boxes, classes, scores = (predicted[name][sure] for name in ("boxes", "classes", "scores"))
        return described(boxes, classes, size, names, scores)

    def answers(self, predicted: Row, example: Row, about: DataInfo, top: int = 5) -> dict[str, Any]:
        """ "objects": the detections from `score_threshold` on, as `described`, the surest first."""
        return {"objects": self.sure(predicted, example["original_size"], about.class_names)}

    def draw(self, image: np.ndarray, answer: Mapping[str, Any], predicted: Row, example: Row) -> dict:
        from PIL import Image

        from jaxformer.drawing import draw_boxes, font

        size = min(max(max(image.shape[:2]), SMALLEST), LARGEST)
        return {"": Image.fromarray(draw_boxes(image, answer["objects"], size, font(12)))}

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        """The true "objects" and the "detections" from the threshold on, as `described`."""
        from jaxformer import drawing

        extent, true = example["extent"], example["labels"] >= 0
        objects = described(example["boxes"][true], example["labels"][true], extent, data.class_names)
        found = self.sure(predicted, extent, data.class_names)
        classes = sorted({(one["index"], one["label"]) for one in (*objects, *found)})
        return {
            "correct": None,
            "objects": objects,
            "detections": found,
            "legend": [{"name": name, "colour": drawing.css(index)} for index, name in classes],
            "caption": f"{len(objects)} objects, {len(found)} found",
        }

    def compare(self, example: Row, predicted: Row, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
        from jaxformer.drawing import draw_boxes, font

        rows, columns = (int(side) for side in example["extent"])
        image = example["image"][:rows, :columns]
        both = {"truth": sample["objects"], "prediction": sample["detections"]}
        return {shows: draw_boxes(image, objects, REPORTED, font(9)) for shows, objects in both.items()}


def described(
    boxes: np.ndarray,
    classes: np.ndarray,
    size: Sequence[int] | np.ndarray,
    names: Sequence[str] | None,
    scores: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Objects as JSON values: "label", "index", "box" (x0, y0, x1, y1 in pixels, within the image) and "score".

    Args:
      boxes: [N, 4] in cxcywh, shares of the image.
      classes: int [N].
      size: height and width of the image.
      names: of the classes.
      scores: [N]; None for true objects, which have none.
    """
    found = []
    for i, (box, number) in enumerate(zip(in_pixels(boxes, size), classes)):
        one = {"label": class_name(int(number), names), "index": int(number)}
        if scores is not None:
            one["score"] = round(float(scores[i]), 6)
        found.append({**one, "box": [round(float(value), 2) for value in box]})
    return found


def in_pixels(boxes: np.ndarray, size: Sequence[int] | np.ndarray) -> np.ndarray:
    """Boxes [N, 4] of shares in cxcywh as x0, y0, x1, y1 in pixels of a image of `size` (height, width), cut off."""
    boxes = np.asarray(boxes, np.float64)
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    height, width = (float(side) for side in size)
    return np.clip(corners, 0, 1) * np.array([width, height, width, height])[None]


def scored(collected: Mapping[str, np.ndarray], num_classes: int) -> BoxScores:
    """Scores of what `Detection.collect` gave, [N, ...]; more classes than `num_classes` if there are any."""
    predicted, true = [], []
    for row, size in enumerate(collected["size"]):
        part = {name: values[row] for name, values in collected.items()}
        there = part["true_classes"] >= 0
        true.append(Objects(in_pixels(part["true_boxes"][there], size), part["true_classes"][there]))
        predicted.append(Objects(in_pixels(part["boxes"], size), part["classes"], part["scores"]))
    classes = (int(collected[name].max(initial=-1)) + 1 for name in ("classes", "true_classes"))
    return score_boxes(predicted, true, max(num_classes, 1, *classes))
