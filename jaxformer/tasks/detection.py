"""Object detection: a set of boxes with classes in each image (Carion et al. 2020)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer import drawing
from jaxformer.config.fields import Fraction
from jaxformer.errors import counted
from jaxformer.models.outputs import DetectionOutputs
from jaxformer.tasks import base
from jaxformer.tasks.base import Arrays, Batch, Batches, DataInfo, Evaluation, Row, example_mask, masked_sum
from jaxformer.tasks.detection_metrics import BY_SIZE, METRIC_NAMES, Objects, score_boxes
from jaxformer.tasks.image import ImageTask
from jaxformer.tasks.metrics import check_labels, class_rows
from jaxformer.tasks.set_losses import SetLosses

Size = Sequence[int] | np.ndarray  # height and width

MOST = 100  # detections of an image, as COCO counts them
SMALLEST, LARGEST = 640, 1280  # pixels of an image's longer side as `predict` draws it
REPORTED = 320  # as the report draws it


@dataclass(frozen=True)
class Detection(SetLosses, ImageTask):
    """Learns to find objects.

    Batches have `image` (uint8 [B, H, W, C]), `extent`, `boxes`, `labels` (as the examples "detection" make them) and,
    where rows may be padding, `example_mask`. Models give `DetectionOutputs` (`DETR`). In every layer of the decoder
    predictions are matched to the true objects by minimum-cost linear assignment; there are losses of the classes, of
    the boxes' distance (L1) and of their overlap (GIoU).
    """

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
    only_in_training = ("auxiliary",)

    def absent_metrics(self, model: Any, data: Batches) -> dict[str, str]:
        return dict.fromkeys(BY_SIZE, "is given only where there are objects of that size")

    def misfits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        objects = max(data.element_spec["boxes"][0][0] for data in (train, evaluation))
        if objects > model.num_queries:
            many = f"images have up to data.examples.max_objects={objects}"
            yield f"model.num_queries={model.num_queries}: {many}, and each needs a query; give more, or lower that"
        if self.num_queries not in (None, model.num_queries):
            yield f"task.num_queries={self.num_queries}: the model has {model.num_queries}; remove it"
        if model.no_object != self.softmax:
            use = f"task.class_loss={self.class_loss!r} {'needs' if self.softmax else 'has no use for'} such a class"
            yield f"model.no_object={model.no_object}: {use}; set it to {self.softmax}"
        height, width = train.element_spec["image"][0][:2]
        size = model.image_size
        if size is not None and (height, width) != (size, size):
            frame = f"the images' frame is {height}x{width} (data.examples.size)"
            yield f"model.backbone.image_size={size}: {frame}; make them the same"

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        check_labels(model.num_classes, batch["labels"][batch["labels"] >= 0])

    def inputs(self, batch: Batch) -> Arrays:
        """Normalised images with zeros around them, their extents and, where known, the true objects."""
        image, extent = super().inputs(batch)["image"], jnp.asarray(batch["extent"])
        rows, columns = (jnp.arange(n)[None, :] < extent[:, i, None] for i, n in enumerate(image.shape[1:3]))
        inside = (rows[:, :, None] & columns[:, None, :])[..., None]  # [B, H, W, 1]
        true = {name: jnp.asarray(batch[name]) for name in ("boxes", "labels") if name in batch}
        return {"image": jnp.where(inside, image, 0), "extent": extent, **true}

    def labels(self, batch: Batch) -> jax.Array:
        """int32 [B, N]; -1 where there is no object."""
        return jnp.where(example_mask(batch)[:, None], batch["labels"], -1)

    def counts(self, batch: Batch) -> Arrays:
        """The number of true objects, float32 []; of the softmax's loss the weights of all queries."""
        of_class = objects = jnp.sum(self.labels(batch) >= 0, dtype=jnp.float32)
        if self.softmax:
            queries = jnp.sum(example_mask(batch), dtype=jnp.float32) * (self.num_queries or 0)
            of_class = objects + self.no_object_weight * (queries - objects)
        boxes = ("l1", "giou", "auxiliary_boxes", "denoising_class", "denoising_boxes")
        return {"class": of_class, "auxiliary_class": of_class, **dict.fromkeys(boxes, objects)}

    def loss(self, outputs: DetectionOutputs, batch: Batch) -> Arrays:
        """The losses' sums, with their weights: of the last layer, of those before it, and of noised objects."""
        mask, first = example_mask(batch), 0 if self.auxiliary else -1
        per_image = self.per_image(outputs, batch, first)
        sums = {name: masked_sum(value.T, mask) for name, value in per_image.items()}  # [L]
        found = {name: value[-1] for name, value in sums.items()}
        if len(sums["class"]) > 1:
            found["auxiliary_class"] = jnp.sum(sums["class"][:-1])
            found["auxiliary_boxes"] = jnp.sum(sums["l1"][:-1] + sums["giou"][:-1])
        if outputs.denoised is not None:
            lost = self.denoising_losses(outputs.denoised, self.labels(batch), batch["boxes"])
            # Each object has two noised queries, one of which is to be no object.
            share = 1 + self.no_object_weight if self.softmax else 1.0
            found["denoising_class"] = masked_sum(lost["class"].T, mask).sum() / share
            found["denoising_boxes"] = masked_sum((lost["l1"] + lost["giou"]).T, mask).sum()
        return found

    def per_image(self, outputs: DetectionOutputs, batch: Batch, first: int = -1) -> Arrays:
        """The losses "class", "l1" and "giou" with their weights, float32 [L, B], of the layers from `first` on."""
        boxes, labels = jnp.asarray(batch["boxes"]), self.labels(batch)
        return self.set_losses(outputs.logits[first:], outputs.boxes[first:], labels, boxes)

    def eval_sums(self, outputs: DetectionOutputs, batch: Batch) -> dict[str, Any]:
        """The last layer's losses and what they are divided by, float32 []."""
        lost, counts, mask = self.per_image(outputs, batch), self.counts(batch), example_mask(batch)
        return {name: {"loss": masked_sum(x[0], mask), "count": counts[name]} for name, x in lost.items()}

    def predictions(self, outputs: DetectionOutputs, batch: Batch) -> Arrays:
        """The surest detections, the surest first: `scores` float32 [B, M], `classes` int32 [B, M], `boxes` [B, M, 4].

        With "softmax" every query has one class, with "focal" it may have several.
        """
        probabilities = self.class_probabilities(outputs.logits[-1])  # [B, Q, K]
        batch_size, queries, classes = probabilities.shape
        if self.softmax:
            scores, query = jax.lax.top_k(jnp.max(probabilities, axis=-1), min(MOST, queries))
            found = jnp.take_along_axis(jnp.argmax(probabilities, axis=-1), query, axis=1)
        else:
            flat = probabilities.reshape(batch_size, queries * classes)
            scores, place = jax.lax.top_k(flat, min(MOST, queries * classes))
            query, found = place // classes, place % classes
        boxes = jnp.take_along_axis(outputs.boxes[-1], query[..., None], axis=1)
        return {"scores": scores, "classes": found.astype(jnp.int32), "boxes": boxes}

    def collect(self, outputs: DetectionOutputs, batch: Batch, model: Any, variables: Any) -> Arrays:
        """The detections, and the size of the stored image with the place where it lies."""
        return {**self.predictions(outputs, batch), "size": batch["original_size"], "place": batch["place"]}

    def summarize(self, sums: base.Sums, collected: base.Collected, data: Batches) -> Evaluation:
        """Metrics and tables of a split.

        Returns:
          metrics: "loss" of the last layer and COCO's figures, 0 to 1, of all objects that the dataset has, whether a
            transform has cut them off or not, in pixels of the images as they are stored:
            "ap" (mean over IoU thresholds), "ap50", "ap75", "ar_1", "ar_10", "ar_100", and by size ("ap_small", ...)
            where there are such objects.
          tables: "class_names"; "per_class", a "name", "ap", "ap50", "ap75", "recall" and "support" each.
        """
        predicted, true, unseen = [], [], base.unseen(collected, data)
        # Nobody knows an unseen one's size.
        sizes = [*collected["size"], *[data.element_spec["image"][0][:2]] * len(unseen)]
        for row, (index, size) in enumerate(zip([*collected["index"], *unseen], sizes)):
            stored, scale = data.source.truth(int(index)), np.tile(size[::-1], 2)[None]
            boxes = np.asarray(stored["boxes"], np.float64) * scale
            true.append(Objects(boxes, stored["labels"], crowds=stored.get("crowds")))
            if row < len(collected["index"]):
                boxes, classes, scores = (collected[name][row] for name in ("boxes", "classes", "scores"))
                predicted.append(Objects(in_pixels(boxes, size, collected["place"][row]), classes, scores))
        nothing = Objects(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
        predicted += [nothing] * len(unseen)
        highest = max((int(part.labels.max(initial=0)) for part in (*predicted, *true)), default=0)
        names = base.class_names(max(len(data.class_names or ()), highest + 1), data)
        scores, per_class = score_boxes(predicted, true, len(names))
        loss = sum(base.mean_of(part) for part in sums.values())
        tables = {"class_names": names, "per_class": class_rows(names, per_class)}
        return Evaluation({"loss": loss, **scores}, tables, {"ap": 0.0})

    def errors(self, outputs: DetectionOutputs, batch: Batch) -> jax.Array:
        """The last layer's loss of each image over the number of its objects, float32 [B]."""
        objects = jnp.sum(self.labels(batch) >= 0, axis=1)
        return sum(value[0] for value in self.per_image(outputs, batch).values()) / jnp.maximum(objects, 1)

    def sure(self, predicted: Row) -> Row:
        """The detections of an image (a row of `predictions`) from the threshold on."""
        sure = predicted["scores"] >= self.score_threshold
        return {name: predicted[name][sure] for name in ("boxes", "classes", "scores")}

    def answers(self, predicted: Row, example: Row, about: DataInfo, top: int = 5) -> dict[str, Any]:
        """ "objects": the detections from `score_threshold` on, as `described`, the surest first."""
        return {"objects": described(self.sure(predicted), example["original_size"], about.class_names)}

    def draw(self, image: np.ndarray, answer: Mapping[str, Any], predicted: Row, example: Row) -> base.Images:
        from PIL import Image

        size = min(max(*image.shape[:2], SMALLEST), LARGEST)
        return {"": Image.fromarray(drawing.draw_boxes(image, answer["objects"], size, drawing.font(12)))}

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        """The true "objects" and the "detections" from the threshold on, as `described`."""
        there, extent = example["labels"] >= 0, example["extent"]
        true = {"boxes": example["boxes"][there], "classes": example["labels"][there]}
        objects, found = (described(x, extent, data.class_names) for x in (true, self.sure(predicted)))
        classes = sorted({(one["index"], one["label"]) for one in (*objects, *found)})
        return {
            "correct": None,
            "objects": objects,
            "detections": found,
            "legend": [{"name": name, "colour": drawing.css(index)} for index, name in classes],
            "caption": f"{counted(len(objects), 'object')}, {len(found)} found",
        }

    def compare(self, example: Row, predicted: Row, sample: Mapping[str, Any]) -> base.Images:
        rows, columns = (int(side) for side in example["extent"])
        both = {"truth": sample["objects"], "prediction": sample["detections"]}
        image, font = example["image"][:rows, :columns], drawing.font(9)
        return {shows: drawing.draw_boxes(image, objects, REPORTED, font) for shows, objects in both.items()}


def described(found: Row, size: Size, names: base.Names) -> list[dict[str, Any]]:
    """Objects as JSON values: "label", "index", "score" and "box" (x0, y0, x1, y1 in pixels, within the image).

    Args:
      found: `boxes` [N, 4] in cxcywh, shares of the image; `classes` int [N]; and `scores` [N], which true objects do
        not have.
      size: height and width of the image.
      names: of the classes.
    """
    boxes, scores = in_pixels(found["boxes"], size).tolist(), found.get("scores", ())
    sure = [{"score": round(float(score), 6)} for score in scores] or [{}] * len(boxes)
    rows = zip(found["classes"], sure, boxes)
    return [{**base.labelled(k, names), **score, "box": [round(x, 2) for x in box]} for k, score, box in rows]


def in_pixels(boxes: np.ndarray, size: Size, place: Sequence[float] = (0, 0, 1, 1)) -> np.ndarray:
    """Boxes [N, 4] of shares in cxcywh as x0, y0, x1, y1 in pixels of an image of `size` (height, width), cut off.

    What the boxes are shares of may be a part of the image, whose corners are then at `place` (x0, y0, x1, y1) of it.
    """
    boxes, corners_at = np.asarray(boxes, np.float64), np.asarray(place, np.float64)[None]
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    corners = np.clip(corners, 0, 1) - np.tile(corners_at[:, :2], 2)
    corners = corners / np.tile(corners_at[:, 2:] - corners_at[:, :2], 2)
    corners = np.concatenate([*(f(corners[:, :2], corners[:, 2:]) for f in (np.minimum, np.maximum))], axis=1)
    height, width = (float(side) for side in size)
    return np.clip(corners, 0, 1) * np.array([width, height, width, height])[None]
