"""Semantic segmentation: each pixel is of one class."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer import drawing
from jaxformer.config.fields import Input, NonNegativeFloat, PositiveInt, left_out
from jaxformer.errors import UserError
from jaxformer.models.outputs import SegmentationOutputs
from jaxformer.tasks import base, metrics
from jaxformer.tasks.base import Arrays, Batch, Batches, DataInfo, Evaluation, Row, example_mask, masked_sum
from jaxformer.tasks.image import ImageTask
from jaxformer.tasks.losses import dice, lovasz_softmax, pixel_cross_entropy, pixel_weights

BYTE = 256  # classes that fit into a byte


@dataclass(frozen=True)
class Segmentation(ImageTask):
    """Learns the class of each pixel.

    Batches have `image` (uint8, or float 0..255, [B, H, W, C]), `segmentation` (int32 [B, H, W], each pixel's class; -1
    is ignored everywhere) and, where rows may be padding, `example_mask` (bool [B]). Models give `SegmentationOutputs`.
    """

    cross_entropy: Input[NonNegativeFloat] = 1.0
    """Weight of the pixels' cross-entropy, which is a mean over the pixels that have a class."""
    dice: Input[NonNegativeFloat] = 0.0
    """Weight of the Dice loss, a mean over images (`losses.dice`)."""
    lovasz: Input[NonNegativeFloat] = 0.0
    """Weight of the Lovasz-softmax loss, a mean over images (`losses.lovasz_softmax`)."""
    lovasz_step: PositiveInt = 1
    """Stride of the pixels that the Lovasz loss sees, down and across: it sorts them for each class, which is slow."""
    class_weights: tuple[NonNegativeFloat, ...] | None = None
    """Weights of the classes' pixels in the cross-entropy, which is then a weighted mean; None weighs all alike."""

    metric_names: ClassVar = ("loss", "mean_iou", "pixel_accuracy", "mean_accuracy")
    needs = ("image", "segmentation")
    examples = "segmentation"
    kind = "segmenter"
    kind_does = ("segment images", "segmenter")
    views = ("flip",)
    written: ClassVar = {"map": "-classes"}
    only_in_training = ("dice", "lovasz", "class_weights")

    def problems(self) -> Iterator[str]:
        """Yields a line if nothing is left to learn."""
        if not self.used:
            yield "cross_entropy=0: nothing is learnt without a loss; set it, dice or lovasz to more than 0"

    def misfits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        if model.image_size is not None:
            yield from self.size_problems(model, train, evaluation)
        if model.num_classes is None:
            yield "model.num_classes: the dataset does not say how many classes it has; set it"
        elif self.class_weights is not None and len(self.class_weights) != model.num_classes:
            there = f"there are {len(self.class_weights)} weights and {model.num_classes} classes"
            yield f"task.class_weights: {there}; give one for each"

    def size_problems(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        """Yields a line for images of another size than the model's backbone takes."""
        side, window = model.image_size, model.window
        taken, shown = (data.element_spec["image"][0][:2] for data in (train, evaluation))
        size = "{}x{}".format(*shown)
        if taken != (side, side):
            remedy = f"set data.examples.size={side}, or take a backbone for images of any size"
            yield f"model.backbone.image_size={side}: the training images are {taken[0]}x{taken[1]}; {remedy}"
        if window is None and shown != (side, side):
            remedy = f"lay windows over them with model.window=[{side}, {side}], or set data.examples.eval_size={side}"
            yield f"model.backbone.image_size={side}: the evaluation's images are {size}; {remedy}"
        elif window is not None and min(shown) < side:
            small = f"the evaluation's images are only {size}"
            yield f"model.window={list(window)}: {small}; enlarge data.examples.eval_size"

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        highest, count = batch["segmentation"].max(initial=-1), model.num_classes
        if highest >= count:
            wrong = f"the classes must be 0 to {count - 1}, a mask has {highest}"
            remedy = f"set it to {highest + 1} or more, or ignore them (data.examples.ignore_labels)"
            raise UserError(f"model.num_classes={count}: {wrong}; {remedy}")

    def learnable(self, batch: Batch, outputs: SegmentationOutputs) -> Batch:
        """Masks of blocks, one for each place of the logits: outlines between these cannot be learnt."""
        mask = batch["segmentation"]
        for axis, places in enumerate(outputs.logits.shape[1:3], 1):
            size = mask.shape[axis]
            block = np.arange(size) * places // size
            mask = np.take(mask, ((2 * block + 1) * size) // (2 * places), axis)  # the middle of each
        return {**batch, "segmentation": mask}

    def classes(self, batch: Batch) -> jax.Array:
        """int32 [B, H, W]: the class of each pixel; -1 on padding rows, too."""
        return jnp.where(example_mask(batch)[:, None, None], jnp.asarray(batch["segmentation"]), -1)

    def counts(self, batch: Batch) -> Arrays:
        """The (weighted) number of pixels with a class, and of images with such pixels; float32 []."""
        classes = self.classes(batch)
        pixels = jnp.sum(pixel_weights(classes, self.class_weights))
        images = jnp.sum(jnp.any(classes >= 0, axis=(1, 2)), dtype=jnp.float32)
        return {name: pixels if name == "cross_entropy" else images for name in self.used}

    def loss(self, outputs: SegmentationOutputs, batch: Batch) -> Arrays:
        """Each loss times its weight, summed over pixels or images, float32 []."""
        classes, logits, mask = self.classes(batch), self.logits(outputs, batch), example_mask(batch)
        some = (slice(None), slice(None, None, self.lovasz_step), slice(None, None, self.lovasz_step))
        sums = {
            "cross_entropy": lambda: jnp.sum(pixel_cross_entropy(logits, classes, self.class_weights)),
            "dice": lambda: masked_sum(dice(logits, classes), mask),
            "lovasz": lambda: masked_sum(lovasz_softmax(logits[some], classes[some]), mask),
        }
        return {name: weight * sums[name]() for name, weight in self.used.items()}

    @property
    def used(self) -> dict[str, float]:
        """The losses whose weight is not 0, and their weights."""
        weights = {"cross_entropy": self.cross_entropy, "dice": self.dice, "lovasz": self.lovasz}
        return {name: weight for name, weight in weights.items() if not left_out(weight)}

    def logits(self, outputs: SegmentationOutputs, batch: Batch) -> jax.Array:
        """float32 [B, H, W, K], at the images' size."""
        return outputs.at(batch["image"].shape[1:3])

    def metrics(self, outputs: SegmentationOutputs, batch: Batch) -> base.Metrics:
        """The share of pixels with a class that no other class's logit exceeds."""
        classes, logits = self.classes(batch), self.logits(outputs, batch)
        numbers = jnp.arange(logits.shape[-1])[None, None, None, :]
        own = jnp.max(jnp.where(numbers == classes[..., None], logits, -jnp.inf), axis=-1)
        right = (classes >= 0) & (own >= jnp.max(logits, axis=-1))
        pixels = jnp.sum(classes >= 0, dtype=jnp.float32)
        return {"pixel_accuracy": (jnp.sum(right, dtype=jnp.float32), pixels)}

    def eval_sums(self, outputs: SegmentationOutputs, batch: Batch) -> Arrays:
        """The cross-entropy without weights and the number of pixels, float32 [], at the size of the frame."""
        classes = self.classes(batch)
        losses = pixel_cross_entropy(self.logits(outputs, batch), classes)
        return {"loss": jnp.sum(losses), "count": jnp.sum(classes >= 0, dtype=jnp.float32)}

    def collect(self, outputs: SegmentationOutputs, batch: Batch, model: Any, variables: Any) -> Arrays:
        """The predicted classes, and where the stored image lies among them."""
        return {**self.predictions(outputs, batch), "extent": batch["extent"], "place": batch["place"]}

    def kept(self, rows: base.Collected, data: Batches) -> base.Collected:
        """What `counted` says of the batch, its images at the size that they are stored with."""
        pairs = []
        for index, classes, extent, place in zip(*map(rows.get, ("index", "classes", "extent", "place"))):
            true = data.source.truth(int(index))
            pairs.append((true, as_stored(classes[: extent[0], : extent[1]], place, true.shape)))
        return {"index": rows["index"], **counted(pairs)}

    def summarize(self, sums: base.Sums, collected: base.Collected, data: Batches) -> Evaluation:
        """Metrics and tables of a split: of all pixels that have a class in the dataset's masks, at their own size.

        Returns:
          metrics: "loss" (a pixel's cross-entropy, so that runs compare, at the size of the frame), "mean_iou" (over
            the classes that are there or were predicted), "pixel_accuracy" and "mean_accuracy" (the mean recall of the
            classes that are there). Pixels that a transform cut off, or of images that cannot be decoded, are missed.
          tables: "class_names"; "confusion", pixels [K][K], rows are true classes; "per_class", a "name", "iou",
            "accuracy", "precision" and "support" (pixels) each, None where a share is of nothing.
        """
        masks = [np.zeros(0, np.int32)]
        for index in base.unseen(collected, data):
            with suppress(ValueError):  # a mask that is broken itself
                masks.append(data.source.truth(index).reshape(-1))
        pixels = np.concatenate(masks)
        counts = [collected[name].sum(0) for name in ("confusion", "support")]
        counts.append(np.bincount(pixels[pixels >= 0]))
        names = base.class_names(max(len(data.class_names or ()), *map(len, counts)), data)
        padded = (np.pad(count, (0, len(names) - len(count))).astype(np.int64) for count in counts)
        confusion, shown, unseen = padded
        missed = shown + unseen - confusion.sum(1)
        per_class = metrics.per_class(confusion, missed)
        found = {
            "loss": base.mean_of(sums),
            "mean_iou": metrics.mean(per_class["iou"]),
            "pixel_accuracy": metrics.accuracy(confusion, missed),
            "mean_accuracy": metrics.mean(per_class["recall"]),
        }
        columns = {"iou": "iou", "accuracy": "recall", "precision": "precision", "support": "support"}
        rows = metrics.class_rows(names, {column: per_class[key] for column, key in columns.items()})
        tables = {"class_names": names, "confusion": confusion.tolist(), "per_class": rows}
        return Evaluation(found, tables, {"pixel_accuracy": metrics.commonest_share(per_class["support"])})

    def predictions(self, outputs: SegmentationOutputs, batch: Batch) -> Arrays:
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
        shares = {k: round(float(counts[k] / classes.size), 6) for k in order}
        return {"classes": [{**base.labelled(k, about.class_names), "share": x} for k, x in shares.items()]}

    def draw(self, image: np.ndarray, answer: Mapping[str, Any], predicted: Row, example: Row) -> base.Images:
        """The image in the classes' colours, and the "map": the classes' numbers, in 8 bits (with a palette) or 16."""
        classes = at_size(predicted["classes"], example["extent"], example["original_size"])
        rows = [(entry["label"], entry["share"]) for entry in answer["classes"]]
        colours = [drawing.css(entry["index"]) for entry in answer["classes"]]
        annotated = drawing.annotate(drawing.over_image(image, classes), rows, colours)
        return {"": annotated, "map": map_image(classes, predicted["classes"].dtype == np.uint8)}

    def sample(self, example: Row, predicted: Row, data: DataInfo) -> dict[str, Any]:
        """The share of the pixels that are right, and the classes that are in the image or were found there."""
        found, classes = predicted["classes"], example["segmentation"]
        known = classes >= 0
        right = float((found == classes)[known].mean()) if known.any() else None
        present, names = np.union1d(classes[known], found[known]).tolist(), data.class_names
        return {
            "correct": None,
            "pixel_accuracy": None if right is None else round(right, 4),
            "legend": [{"name": base.class_name(k, names), "colour": drawing.css(k)} for k in present],
            "caption": "no pixel has a class" if right is None else f"{right:.1%} of its pixels are right",
        }

    def compare(self, example: Row, predicted: Row, sample: Mapping[str, Any]) -> base.Images:
        rows, columns = (int(side) for side in example.get("extent", predicted["classes"].shape))
        inside = (slice(rows), slice(columns))
        both = {"truth": example["segmentation"], "prediction": predicted["classes"].astype(np.int32)}
        image = example["image"][inside]
        return {shows: drawing.over_image(image, classes[inside]) for shows, classes in both.items()}


def as_stored(predicted: np.ndarray, place: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """int32 [H, W] of a stored image's `shape`: the classes that were predicted, -1 where it was not shown.

    Args:
      predicted: [h, w], of what was shown.
      place: where the stored image lies in that, x0, y0, x1, y1 as shares of it.
      shape: H and W.
    """
    (x0, y0, x1, y1), places = place.tolist(), []
    for length, shown, first, last in zip(shape, predicted.shape, (y0, x0), (y1, x1)):
        middles = (np.arange(length) + 0.5) / length
        places.append(np.floor((first + (last - first) * middles) * shown).astype(int))
    rows, columns = places[0][:, None], places[1][None]
    height, width = predicted.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    nearest = predicted[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return np.where(inside, nearest.astype(np.int32), -1)


def counted(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Pixels by class, of true and predicted classes int32 [H, W], -1 where there is none.

    Returns:
      "support" float64 [1, K], how many pixels there are of each class, and "confusion" [1, K, K], how many of each
      (rows) were taken for each; K is the highest class that occurs, and one.
    """
    nothing = np.zeros(0, np.int32)
    true, found = (np.concatenate([nothing, *(pair[i].reshape(-1) for pair in pairs)]) for i in (0, 1))
    classes = 1 + max(int(true.max(initial=-1)), int(found.max(initial=-1)))
    support = np.bincount(true[true >= 0], minlength=classes)
    confusion = metrics.pixel_confusion(found, true, classes)
    return {"support": support[None].astype(np.float64), "confusion": confusion[None].astype(np.float64)}


def at_size(classes: np.ndarray, extent: np.ndarray, size: Sequence[int] | np.ndarray) -> np.ndarray:
    """int32 [h, w]: a frame's classes [H, W] without its padding, at an image's own height and width."""
    import cv2

    inside = np.ascontiguousarray(classes[: extent[0], : extent[1]], np.float32)  # OpenCV resizes no int32
    shape = int(size[1]), int(size[0])
    return cv2.resize(inside, shape, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.int32)


def map_image(classes: np.ndarray, few: bool) -> Any:
    """A PIL image whose values are the classes; `few` classes fit into a byte."""
    from PIL import Image

    if not few:
        return Image.fromarray(classes.astype(np.uint16))
    image = Image.fromarray(classes.astype(np.uint8), "P")
    image.putpalette(drawing.palette(BYTE).tobytes(), "RGB")
    return image
