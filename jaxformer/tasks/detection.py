"""Object detection: a set of boxes with classes in each picture (Carion et al. 2020)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.models.outputs import DetectionOutputs
from jaxformer.tasks.base import Batch, Batches, Evaluation, Row, example_mask, masked_sum
from jaxformer.tasks.classes import class_name
from jaxformer.tasks.detection_metrics import METRIC_NAMES, BoxScores, Objects, score_boxes
from jaxformer.tasks.metrics import check_labels
from jaxformer.tasks.set_losses import ClassLoss, ClassLossName, Weights, denoising_losses, set_losses

MOST = 100  # detections in a picture, as COCO counts them
NEEDED = ("image", "extent", "boxes", "labels")


@dataclass(frozen=True)
class Detection:
    """Learns to find objects.

    Batches have `image` (uint8 [B, H, W, C]), `extent`, `boxes`, `labels` (see `data/examples.py`) and, where rows may
    be padding, `example_mask`. Models give `DetectionOutputs` (`DETR`). In every layer of the decoder each true object
    is given a prediction of its own, so that all costs together are the least; there are losses of classes, of the
    boxes' distance (L1) and of their overlap (GIoU).
    """

    class_loss: ClassLossName = "softmax"
    """ "softmax", with a class for no object (model.no_object), or "focal", without; see `ClassLoss`."""
    class_weight: float | None = None
    """Of the class's loss and cost; None: 1 with "softmax" (Carion et al. 2020), 2 with "focal" (Zhu et al.
    2021)."""
    l1_weight: float = 5.0
    """Of the loss and cost of the four numbers' distances."""
    giou_weight: float = 2.0
    """Of those of generalised IoU."""
    no_object_weight: float = 0.1
    """What the softmax's loss of no object counts."""
    focal_alpha: float = 0.25
    """What a true class counts; a false one 1 - alpha."""
    focal_gamma: float = 2.0
    """How much less counts what is right already."""
    num_queries: int | None = None
    """Of the model, which the softmax's loss is divided by; None takes it from there."""
    auxiliary: bool = True
    """Whether all of the decoder's layers are learnt from, not only the last."""
    score_threshold: float = 0.5
    """The least score of what pictures show and `predict` says."""
    mean: tuple[float, ...] = (0.5,)
    """Of the pixels, in 0..1; one number for all channels, or one for each."""
    std: tuple[float, ...] = (0.5,)
    """Likewise; what is left is divided by it."""

    # Sizes that no object has are left out of what `summarize` gives, so none of these can be watched.
    metric_names: ClassVar[tuple[str, ...]] = ("loss", *METRIC_NAMES)

    def absent_metrics(self, model: Any, data: Batches) -> dict[str, str]:
        """Metrics that `summarize` may not give -> why, as a part of a sentence."""
        sizes = [name for name in METRIC_NAMES if name.endswith(("small", "medium", "large"))]
        return dict.fromkeys(sizes, "is given only where there are objects of that size")

    @property
    def of_classes(self) -> ClassLoss:
        """How classes are learnt."""
        return ClassLoss(self.class_loss, self.no_object_weight, self.focal_alpha, self.focal_gamma)

    @property
    def weights(self) -> Weights:
        """Of losses and costs."""
        usual = 1.0 if self.class_loss == "softmax" else 2.0
        return Weights(
            usual if self.class_weight is None else self.class_weight, self.l1_weight, self.giou_weight
        )

    def problems(self) -> Iterator[str]:
        """Yields a line for every value that cannot be."""
        for name in ("class_weight", "l1_weight", "giou_weight", "no_object_weight", "focal_gamma"):
            value = getattr(self, name)
            if value is not None and value < 0:
                yield f"{name}={value}: expected 0 or more"
        if not 0 <= self.focal_alpha <= 1:
            yield f"focal_alpha={self.focal_alpha}: expected a share from 0 to 1"
        if not 0 <= self.score_threshold <= 1:
            yield f"score_threshold={self.score_threshold}: expected a share from 0 to 1"
        yield from pixel_problems(self)

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        """Yields a line for everything that does not fit."""
        missing = [name for name in NEEDED if name not in train.element_spec]
        if missing:
            made = ", ".join(sorted(train.element_spec))
            yield f"data.examples: batches have {made}, this task needs {', '.join(missing)}: choose detection"
            return
        if model.kind != "detector":
            yield f'model: {type(model).__name__} does not find objects; choose "detr"'
            return
        objects = max(data.element_spec["boxes"][0][0] for data in (train, evaluation))
        if objects > model.num_queries:
            yield (
                f"model.num_queries={model.num_queries}: pictures have up to data.examples.max_objects={objects} "
                "objects, and each needs a query; give more, or lower that"
            )
        if self.num_queries not in (None, model.num_queries):
            yield f"task.num_queries={self.num_queries}: the model has {model.num_queries}; leave it out"
        if model.no_object != (self.class_loss == "softmax"):
            yield (
                f"model.no_object={model.no_object}: task.class_loss={self.class_loss!r} "
                f"{'needs' if self.class_loss == 'softmax' else 'has no use for'} a class for no object; "
                f"set it to {not model.no_object}"
            )
        names = train.class_names
        if names is not None and model.num_classes is not None and model.num_classes < len(names):
            yield f"model.num_classes={model.num_classes}: the dataset has {len(names)} classes; set it to that"
        height, width, channels = train.element_spec["image"][0]
        size = model.image_size
        if size is not None and (height, width) != (size, size):
            yield (
                f"model.backbone.image_size={size}: the pictures' frame is {height}x{width} (data.examples.size); "
                "make them the same"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, channels):
                yield f"task.{name}={list(values)}: the pictures have {channels} channels; give as many numbers, or one"

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Refuses labels that are no class of the model."""
        labels = batch["labels"]
        check_labels(model.num_classes, labels[labels >= 0])

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Normalised pictures with zeros around them, their extents and, where known, the true objects."""
        image, extent = jnp.asarray(batch["image"]), jnp.asarray(batch["extent"])
        mean, std = (
            jnp.asarray(values, jnp.float32)[None, None, None, :] for values in (self.mean, self.std)
        )
        pixels = (image.astype(jnp.float32) / 255 - mean) / std
        rows, columns = (
            jnp.arange(side)[None, :] < extent[:, axis, None] for axis, side in enumerate(image.shape[1:3])
        )
        there = (rows[:, :, None] & columns[:, None, :])[..., None]
        true = {name: jnp.asarray(batch[name]) for name in ("boxes", "labels") if name in batch}
        return {"image": jnp.where(there, pixels, 0), "extent": extent, **true}

    def augment(self, key: jax.Array, batch: Batch) -> Batch:
        """Nothing: boxes move with the picture on the host."""
        return batch

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
            # Of an object there are two queries, one of which is none.
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

    def metrics(self, outputs: DetectionOutputs, batch: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Nothing: the losses' parts say how it goes."""
        return {}

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
        """Detections, and what is true."""
        size = batch["original_size"] if "original_size" in batch else batch["extent"]
        true = {"true_boxes": batch["boxes"], "true_classes": batch["labels"], "size": size}
        return {**self.detections(outputs), **{name: jnp.asarray(value) for name, value in true.items()}}

    def summarize(
        self, sums: Mapping[str, Any], collected: Mapping[str, np.ndarray], data: Batches
    ) -> Evaluation:
        """Metrics and tables of a split.

        Returns:
          metrics: "loss" of the last layer and COCO's figures, 0 to 1, in pixels of the pictures as they are stored:
            "ap" (mean over IoU thresholds), "ap50", "ap75", "ar_1", "ar_10", "ar_100", and by size ("ap_small", ...)
            where there are such objects.
          tables: "class_names"; "per_class", a "name", "ap", "ap50", "ap75", "recall" and "support" each.
        """
        loss = sum(float(part["sum"]) / max(float(part["count"]), 1.0) for part in sums.values())
        scores = scored(collected, len(data.class_names or ()))
        names = [class_name(number, data.class_names) for number in range(len(scores.support))]
        columns = scores.per_class()
        per_class = [
            {
                "name": name,
                **{
                    key: None if np.isnan(columns[key][i]) else float(columns[key][i])
                    for key in columns
                    if key != "support"
                },
                "support": int(scores.support[i]),
            }
            for i, name in enumerate(names)
        ]
        return Evaluation({"loss": loss, **scores.metrics()}, {"class_names": names, "per_class": per_class})

    def predictions(self, outputs: DetectionOutputs, batch: Batch) -> dict[str, jax.Array]:
        """`detections`."""
        return self.detections(outputs)

    def errors(self, outputs: DetectionOutputs, batch: Batch) -> jax.Array:
        """The last layer's loss of each picture over the number of its objects, float32 [B]."""
        lost = self.per_image(outputs, batch, all_layers=False)
        return sum(value[0] for value in lost.values()) / jnp.maximum(
            jnp.sum(self.labels(batch) >= 0, axis=1), 1
        )

    def sample(self, example: Row, predicted: Row, data: Batches) -> dict[str, Any]:
        """True and detected objects, as `described`, the latter from the threshold on."""
        extent = example["extent"]
        true = example["labels"] >= 0
        return {
            "correct": None,
            "objects": described(example["boxes"][true], example["labels"][true], extent, data.class_names),
            "detections": self.described(predicted, extent, data.class_names),
        }

    def described(
        self, predicted: Row, size: Sequence[int] | np.ndarray, names: Sequence[str] | None
    ) -> list[dict[str, Any]]:
        """A picture's detections (a row of `detections`) from the threshold on, in pixels of a picture of `size`."""
        sure = predicted["scores"] >= self.score_threshold
        return described(
            predicted["boxes"][sure], predicted["classes"][sure], size, names, predicted["scores"][sure]
        )


def described(
    boxes: np.ndarray,
    classes: np.ndarray,
    size: Sequence[int] | np.ndarray,
    names: Sequence[str] | None,
    scores: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Objects as JSON values: "label", "index", "box" (x0, y0, x1, y1 in pixels, within the picture) and "score".

    Args:
      boxes: [N, 4] in cxcywh, shares of the picture.
      classes: int [N].
      size: height and width of the picture.
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
    """Boxes [N, 4] of shares in cxcywh as x0, y0, x1, y1 in pixels of a picture of `size` (height, width), cut off."""
    boxes = np.asarray(boxes, np.float64)
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    height, width = (float(side) for side in size)
    return np.clip(corners, 0, 1) * np.array([width, height, width, height])[None]


def scored(collected: Mapping[str, np.ndarray], num_classes: int) -> BoxScores:
    """Scores of what `Detection.collect` gave, [N, ...]; more classes than `num_classes` if there are any."""
    predicted, true = [], []
    classes = [
        collected[name].max(initial=-1) + 1 for name in ("classes", "true_classes") if name in collected
    ]
    rows = len(collected.get("size", ()))
    for i in range(rows):
        size, there = collected["size"][i], collected["true_classes"][i] >= 0
        boxes = in_pixels(collected["true_boxes"][i][there], size)
        true.append(Objects(boxes, collected["true_classes"][i][there]))
        found = in_pixels(collected["boxes"][i], size)
        predicted.append(Objects(found, collected["classes"][i], collected["scores"][i]))
    return score_boxes(
        predicted, true, max(num_classes, *map(int, classes), 1) if classes else max(num_classes, 1)
    )


def pixel_problems(task: Any) -> Iterator[str]:
    """Yields a line for every impossible `mean` or `std` of pixels."""
    for name in ("mean", "std"):
        values = getattr(task, name)
        if len(values) not in (1, 3):
            yield f"{name}={list(values)}: expected one number for all channels, or three for RGB"
    if not all(0 <= value <= 1 for value in task.mean):
        yield f"mean={list(task.mean)}: expected values in 0..1; divide by 255 if they are in 0..255"
    if not all(0 < value <= 1 for value in task.std):
        yield f"std={list(task.std)}: expected values in 0..1, not 0; divide by 255 if they are in 0..255"
