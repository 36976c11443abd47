"""Labelled images, and what all kinds of images have in common."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from jaxformer.data.base import DatasetConfig, Example, Source, Spec
from jaxformer.data.decoding import decode_image
from jaxformer.data.geometry import letterbox
from jaxformer.data.kinds.base import Kind
from jaxformer.data.records import Records, class_names
from jaxformer.data.transform import Size, Transform, pair
from jaxformer.errors import UserError

logger = logging.getLogger("jaxformer")


# What the name of an image's file is called: by imports, then by TFDS.
FILE_FEATURES = ("path", "file_name", "filename", "image/filename", "image/file_name")


@dataclass(frozen=True, kw_only=True)
class ImageKind(Kind):
    """A kind of images."""

    image_feature: str = "image"
    """The dataset's feature that holds the image."""
    broken: Literal["refuse", "skip"] = "refuse"
    """What is done about examples whose image (or mask) cannot be decoded: "refuse", or "skip": each is named once;
    in training the next one stands in for it, in an evaluation it counts as missed."""


@dataclass(frozen=True, kw_only=True)
class LetterboxedKind(ImageKind):
    """A kind of images in a frame of one size.

    Each is resized to fit, with zeros below and at its right. In a batch `extent` int32 [B, 2] is the height and width
    of each image in its frame, `original_size` int32 [B, 2] those that it was stored with. In an evaluation `place`
    float32 [B, 4] is where the stored image lies, x0, y0, x1, y1 as shares of the extent: 0, 0, 1, 1 unless a transform
    cuts or mirrors it.
    """

    letterboxed: ClassVar[bool] = True
    size: Size
    """The frame: (height, width) in pixels, or the side of a square."""
    eval_size: Size | None = None
    """The frame in evaluations; None takes `size`."""
    enlarge: bool = True
    """Whether images smaller than the frame are enlarged to fill it; False keeps the sizes that transforms
    such as "resize_shorter" chose."""

    def frame(self, train: bool) -> tuple[int, int]:
        """Height and width of the frame."""
        return pair(self.size if train or self.eval_size is None else self.eval_size)

    def nominal_spec(self, image: tuple[int, int, int], transforms: Sequence[Transform]) -> Spec:
        spec: Spec = dict.fromkeys(("extent", "original_size"), ((2,), np.dtype(np.int32)))
        return spec | {"image": ((*self.frame(train=True), 3), np.dtype(np.uint8))}


@dataclass(frozen=True, kw_only=True)
class Images(ImageKind):
    """Labelled images: `image` uint8 [B, H, W, C] and `labels` int32 [B]."""

    kind: ClassVar[str] = "images"
    label_feature: str = "label"
    """The dataset's feature that holds the label ("label", or CIFAR-100's "coarse_label")."""

    @property
    def strata(self) -> str | None:
        return self.label_feature

    def open(self, config: DatasetConfig, split: str, train: bool) -> Source:
        return ImageSource(config, split)

    def nominal_spec(self, image: tuple[int, int, int], transforms: Sequence[Transform]) -> Spec:
        return {"image": (image, np.dtype(np.uint8)), "labels": ((), np.dtype(np.int32))}


class ImageReader(Source):
    """Images of one split of a prepared dataset, decoded when read; a kind of examples adds what goes with them.

    Attributes:
      settings: the kind of examples.
      records: the split's examples as they are stored.
      channels: of the images, 1 or 3.
    """

    def __init__(self, config: DatasetConfig, split: str):
        """Opens `split`.

        Raises:
          UserError: the dataset, version, split or feature is not there, or cannot be read without
            TensorFlow.
        """
        import tensorflow_datasets as tfds

        self.settings, self.records = config.examples, Records(config, split)
        self.name, self.split = self.records.name, split
        features, key = self.records.features, self.settings.image_feature
        images = {name: f for name, f in features.items() if isinstance(f, tfds.features.Image)}
        fitting = [name for name, feature in images.items() if feature.np_dtype == np.uint8]
        self.records.check(key, "data.examples.image_feature", fitting, "a uint8 Image")
        self.channels = 1 if images[key].shape[-1] == 1 else 3
        self._named: set[int] = set()

    def __len__(self) -> int:
        return len(self.records)

    def record_of(self, index: int) -> int:
        """The number of the record that holds an example's image."""
        return index

    def where(self, index: int) -> str:
        """How messages name an example."""
        return super().where(self.record_of(index))

    def decode(self, features: Any, index: int) -> Example:
        """An example of its stored features, protocol buffers by name.

        Raises:
          ValueError: something of it cannot be decoded.
          UserError: it does not fit the settings.
        """
        raise NotImplementedError

    def stored_truth(self, features: Any, index: int) -> Any:
        """What is right for an example of its stored features; raises as `decode` does."""
        raise NotImplementedError

    def truth(self, index: int) -> Any:
        return self.stored_truth(self.records.read([index])[0], index)

    def image(self, features: Any) -> np.ndarray:
        """An example's image, uint8 [H, W, C]; raises ValueError or IndexError for one that is broken."""
        return decode_image(features[self.settings.image_feature].bytes_list.value[0], self.channels)

    def file_of(self, index: int) -> str | None:
        known = next((name for name in FILE_FEATURES if name in self.records.features), None)
        record = self.record_of(index)
        return known and self.records.text(self.records.read([record])[0], known, record)

    def read(self, indices: Sequence[int]) -> list[Example | None]:
        """The examples at `indices`.

        Raises:
          UserError: a file or an image is broken; names dataset, split and index.
        """
        found = self.records.read([self.record_of(index) for index in indices])
        return [self._example(stored, index) for stored, index in zip(found, indices)]

    def _example(self, features: Any, index: int) -> Example | None:
        try:
            return self.decode(features, index)
        except (ValueError, IndexError) as error:
            broken = f"{self.where(index)}: broken image ({error})"
            if self.settings.broken == "refuse":
                remedy = "prepare or import the dataset again, or leave it out: data.examples.broken='skip'"
                raise UserError(f"{broken}; {remedy}") from error
            if (record := self.record_of(index)) not in self._named:
                self._named.add(record)
                logger.warning("%s; it is left out", broken)
            return None


class LetterboxedReader(ImageReader):
    """Images of three channels in a frame of one size, with what moves with them."""

    def __init__(self, config: DatasetConfig, split: str, train: bool):
        """Opens `split`; raises UserError as `ImageReader` does."""
        super().__init__(config, split)
        self.channels, self._frame, self._train = 3, self.settings.frame(train), train

    def _example(self, features: Any, index: int) -> Example | None:
        """An example; of an evaluation with the corners of its image, which transforms move ("place")."""
        example = super()._example(features, index)
        if example is None or self._train:
            return example
        height, width = example["image"].shape[:2]
        return {**example, "place": np.array([0, 0, width, height], np.float32)}

    def finish(self, example: Mapping[str, Any]) -> Mapping[str, Any]:
        """The image in its frame."""
        made = letterbox(dict(example), self._frame, self.settings.enlarge)
        if "place" in made:
            made["place"] = (made["place"] / np.tile(made["extent"][::-1], 2)).astype(np.float32)
        return made


class ImageSource(ImageReader):
    """Labelled images: `image` uint8 [H, W, C] and `labels`."""

    def __init__(self, config: DatasetConfig, split: str):
        """Opens `split`; raises UserError as `ImageReader` does."""
        super().__init__(config, split)
        key, numbers = self.settings.label_feature, self.records.numbers()
        integers = [name for name, feature in numbers.items() if np.issubdtype(feature.np_dtype, np.integer)]
        self.records.check(key, "data.examples.label_feature", integers, "an integer")
        self.class_names, _ = class_names(numbers[key])

    def decode(self, features: Any, index: int) -> Example:
        """The image and its label."""
        return {"image": self.image(features), "labels": self.stored_truth(features, index)}

    def stored_truth(self, features: Any, index: int) -> int:
        """The label."""
        return features[self.settings.label_feature].int64_list.value[0]
