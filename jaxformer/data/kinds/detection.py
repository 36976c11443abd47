"""Images with objects in boxes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from jaxformer.config.fields import at_most
from jaxformer.config.schema import did_you_mean
from jaxformer.data.base import DatasetConfig, Example, Source, Spec
from jaxformer.data.geometry import object_rows
from jaxformer.data.kinds.images import LetterboxedKind, LetterboxedReader
from jaxformer.data.records import class_names, inner
from jaxformer.data.transform import Transform
from jaxformer.errors import UserError

COUNTED = 1000  # examples whose boxes are looked at before training


@dataclass(frozen=True, kw_only=True)
class Detection(LetterboxedKind):
    """Images with objects in boxes, in a frame of one size.

    `image` uint8 [B, H, W, 3], each image resized to fit, with zeros below and at its right; `extent` int32 [B, 2],
    its height and width there, and `original_size` int32 [B, 2], those that it was stored with; `boxes` float32
    [B, N, 4], center x and y, width and height as shares of the extent; `labels` int32 [B, N], -1 where there is no
    object.
    """

    kind: ClassVar[str] = "detection"
    max_objects: Annotated[int, at_most(2**20)] = 100
    """N; of more objects in an image the largest stay, and it is said how many are left out."""
    objects_feature: str = "objects"
    """The feature that holds the sequence of objects."""
    bbox_feature: str = "bbox"
    """The feature of an object that holds its box (TFDS BBox)."""
    label_feature: str = "label"
    """The feature of an object that holds its class."""
    crowd_feature: str | None = None
    """An object's mark that it is many in one box (COCO's "is_crowd"); None has none. Training leaves such boxes out;
    an evaluation neither asks for them nor counts what is found in them, as COCO's does."""
    bad_boxes: Literal["drop", "refuse"] = "drop"
    """What is done about boxes without an area or wholly outside of the image: "drop", and it is said how
    many, or "refuse". Boxes that reach out of the image are clipped."""

    def open(self, config: DatasetConfig, split: str, train: bool) -> Source:
        return DetectionSource(config, split, train)

    def nominal_spec(self, image: tuple[int, int, int], transforms: Sequence[Transform]) -> Spec:
        objects = self.max_objects
        boxes, labels = ((objects, 4), np.dtype(np.float32)), ((objects,), np.dtype(np.int32))
        return super().nominal_spec(image, transforms) | {"boxes": boxes, "labels": labels}


class DetectionSource(LetterboxedReader):
    """Examples with `image` uint8 [H, W, 3], `boxes` float32 [n, 4] (pixels), `labels` int32 [n], `original_size`.

    Batches hold what `Detection` says.
    """

    settings: Detection

    def __init__(self, config: DatasetConfig, split: str, train: bool):
        """Opens `split`; the boxes of its first examples are looked at, for `facts`.

        Raises:
          UserError: the dataset, version, split or feature is not there, or not what it has to be.
        """
        super().__init__(config, split, train)
        self.class_names, self._num_classes = self._classes()
        self.facts = list(self._counts())

    def decode(self, features: Any, index: int) -> Example:
        """The image and its objects, boxes clipped to it."""
        image = self.image(features)
        height, width = image.shape[:2]
        shares, _, crowds = self._objects(features, index)
        bad = ~clip(shares)[1] & ~crowds
        if self.settings.bad_boxes == "refuse" and bad.any():
            box = ", ".join(f"{value:.4g}" for value in shares[bad][0])
            problem = f"the box ({box}) (ymin, xmin, ymax, xmax) has no area in the image"
            remedy = "mend the dataset, or leave such boxes out with data.examples.bad_boxes='drop'"
            raise UserError(f"{self.where(index)}: {problem}; {remedy}")
        true = self.stored_truth(features, index)
        boxes, labels = (true[name][~true["crowds"]] for name in ("boxes", "labels"))
        pixels = boxes * np.array([width, height, width, height], np.float32)[None]
        size = np.array([height, width], np.int32)
        return {"image": image, "boxes": pixels, "labels": labels, "original_size": size}

    def stored_truth(self, features: Any, index: int) -> dict[str, np.ndarray]:
        """The objects but for bad boxes.

        Returns:
          "boxes" float32 [n, 4], x0, y0, x1, y1 as shares, "labels" int32 [n], and "crowds" bool [n].
        """
        shares, labels, crowds = self._objects(features, index)
        clipped, good = clip(shares)
        return {"boxes": clipped[good][:, [1, 0, 3, 2]], "labels": labels[good], "crowds": crowds[good]}

    def finish(self, example: Mapping[str, Any]) -> Mapping[str, Any]:
        """The image in its frame and the objects in rows."""
        made = dict(super().finish(example))
        return made | object_rows(made, self.settings.max_objects)

    def _objects(self, features: Any, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As stored: boxes float32 [n, 4] (ymin, xmin, ymax, xmax as shares), labels int32 [n], crowds bool [n]."""
        settings, objects = self.settings, self.settings.objects_feature
        boxes = features[f"{objects}/{settings.bbox_feature}"].float_list.value
        boxes = np.array(boxes, np.float32).reshape(-1, 4)
        labels = np.array(features[f"{objects}/{settings.label_feature}"].int64_list.value, np.int64)
        crowds = np.zeros(len(labels), bool)
        if settings.crowd_feature is not None:
            crowds = np.array(features[f"{objects}/{settings.crowd_feature}"].int64_list.value, bool)
        classes = self._num_classes
        if classes is not None and (unknown := labels[(labels < 0) | (labels >= classes)]).size:
            known = f"the dataset has the classes 0 to {classes - 1}; mend the dataset"
            raise UserError(f"{self.where(index)}: an object's class is {unknown[0]}, and {known}")
        return boxes, labels.astype(np.int32), crowds

    def _counts(self) -> Iterator[str]:
        """Lines about boxes that are changed or left out."""
        count, most = min(len(self), COUNTED), self.settings.max_objects
        outside = bad = crowded = left_out = 0
        for index, features in enumerate(self.records.read(range(count))):
            shares, _, crowds = self._objects(features, index)
            shares = shares[~crowds]
            clipped, good = clip(shares)
            bad += int((~good).sum())
            outside += int((clipped != shares).any(1)[good].sum())
            more = int(good.sum()) - most
            crowded, left_out = crowded + (more > 0), left_out + max(0, more)
        where = self.split if count == len(self) else f"the first {count:,} of {self.split}"
        if outside:
            yield f"{where}: boxes that reach out of their images, and are clipped: {outside:,}"
        if bad and self.settings.bad_boxes == "drop":
            yield f"{where}: boxes without an area in their images, which are dropped: {bad:,}"
        if left_out:
            what = f"images with more than {most} objects (data.examples.max_objects): {crowded:,}"
            yield f"{where}: {what}; their smallest are left out, {left_out:,} in all"

    def _classes(self) -> tuple[list[str] | None, int | None]:
        """Names and number of the classes, as far as the dataset has them; checks the features of objects."""
        import tensorflow_datasets as tfds

        settings = self.settings
        parts = {name: inner(feature) for name, feature in self.records.features.items()}
        lists = [name for name, part in parts.items() if part is not None]
        key = settings.objects_feature
        self.records.check(key, "data.examples.objects_feature", lists, "a sequence of objects")
        inside = dict(parts[key].items()) if isinstance(parts[key], tfds.features.FeaturesDict) else {}
        for field in ("bbox_feature", "label_feature", "crowd_feature"):
            name = getattr(settings, field)
            if name is not None and name not in inside:
                what = f"data.examples.{field}: objects of {self.name} have no feature {name!r}"
                raise UserError(f"{what}; {did_you_mean(name, inside)}")
        box = inside[settings.bbox_feature]
        layout = getattr(getattr(box, "bbox_format", None), "name", "REL_YXYX")
        if not isinstance(box, tfds.features.BBoxFeature) or layout != "REL_YXYX":
            what = f"data.examples.bbox_feature: {settings.bbox_feature!r} of {self.name} is {box}"
            needed = "a TFDS BBoxFeature with shares of the image (ymin, xmin, ymax, xmax)"
            raise UserError(f"{what}, not {needed}")
        return class_names(inside[settings.label_feature])


def clip(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes float32 [n, 4] of shares clipped to the image, and bool [n]: which have an area then."""
    clipped = np.clip(shares, 0, 1)
    return clipped, (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
