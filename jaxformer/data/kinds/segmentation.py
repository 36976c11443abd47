"""Images with the class of each pixel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from jaxformer.config.fields import between
from jaxformer.data.base import DatasetConfig, Example, Source, Spec
from jaxformer.data.decoding import decode_mask
from jaxformer.data.geometry import VOID
from jaxformer.data.kinds.images import LetterboxedKind, LetterboxedReader
from jaxformer.data.transform import Transform
from jaxformer.errors import UserError

IDS = 65536  # the values that a pixel of a mask may have
UNKNOWN = -2


@dataclass(frozen=True, kw_only=True)
class Segmentation(LetterboxedKind):
    """Images with the class of each pixel, in a frame of one size.

    `image` uint8 [B, H, W, 3], each image resized to fit, with zeros below and at its right; `extent` int32 [B, 2],
    its height and width there, and `original_size` int32 [B, 2], those that it was stored with; `segmentation` int32
    [B, H, W], each pixel's class, -1 where there is none.
    """

    kind: ClassVar[str] = "segmentation"
    mask_feature: str = "segmentation_mask"
    """The feature that holds the mask: an image of one channel whose values are class ids."""
    ignore_labels: tuple[Annotated[int, between(0, 65535, "an id from 0 to 65535")], ...] = (255,)
    """Ids that are no class; the others are numbered anew without them (CamVid: 11, ADE20K: 0)."""
    class_names: tuple[str, ...] | None = None
    """Names of all ids from 0 on, the ignored ones included, where the dataset does not have them."""

    def open(self, config: DatasetConfig, split: str, train: bool) -> Source:
        return SegmentationSource(config, split, train)

    def nominal_spec(self, image: tuple[int, int, int], transforms: Sequence[Transform]) -> Spec:
        classes = (self.frame(train=True), np.dtype(np.int32))
        return super().nominal_spec(image, transforms) | {"segmentation": classes}


class SegmentationSource(LetterboxedReader):
    """Examples with `image` uint8 [H, W, 3], `segmentation` int32 [H, W] and `original_size`.

    Batches hold what `Segmentation` says.
    """

    def __init__(self, config: DatasetConfig, split: str, train: bool):
        """Opens `split`; raises UserError as `ImageReader` does."""
        super().__init__(config, split, train)
        names, ignored = self._names(), list(self.settings.ignore_labels)
        counted = [label for label in range(len(names)) if label not in ignored]
        if not counted:
            raise UserError(
                f"data.examples.ignore_labels: leaves none of the {len(names)} classes of {self.name}"
            )
        self.class_names = [names[label] for label in counted]
        self._table = np.full(IDS, UNKNOWN, np.int32)
        self._table[counted] = range(len(counted))
        self._table[ignored] = VOID

    def decode(self, features: Any, index: int) -> Example:
        """The image and its mask, in classes."""
        image, classes = self.image(features), self.stored_truth(features, index)
        if classes.shape != image.shape[:2]:
            sizes = f"{classes.shape[0]}x{classes.shape[1]}, the image {image.shape[0]}x{image.shape[1]}"
            raise ValueError(f"the mask is {sizes}")
        return {"image": image, "segmentation": classes, "original_size": np.array(classes.shape, np.int32)}

    def stored_truth(self, features: Any, index: int) -> np.ndarray:
        """The mask in classes, int32 [H, W], at the size that it is stored with; VOID where no class counts."""
        mask = decode_mask(features[self.settings.mask_feature].bytes_list.value[0])
        classes = self._table[mask]
        if (classes == UNKNOWN).any():
            unknown = np.unique(mask[classes == UNKNOWN])
            shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
            problem = f"the mask has the ids {shown}, which are no class of the dataset"
            remedy = "ignore them with data.examples.ignore_labels, or name more in data.examples.class_names"
            raise UserError(f"{self.where(index)}: {problem}; {remedy}")
        return classes

    def _names(self) -> list[str]:
        """Names of all ids that the masks may have, from 0 on; checks the feature of masks."""
        import tensorflow_datasets as tfds

        features, key = self.records.features, self.settings.mask_feature
        images = {name: f for name, f in features.items() if isinstance(f, tfds.features.Image)}
        masks = [name for name, feature in images.items() if feature.shape[-1] == 1]
        self.records.check(key, "data.examples.mask_feature", masks, "an image of one channel")
        if self.settings.class_names is not None:
            return list(self.settings.class_names)
        if not isinstance(features[key], tfds.features.LabeledImage):
            problem = f"{self.name} does not say which classes {key!r} has"
            raise UserError(f"data.examples.class_names: {problem}; name those of all ids from 0 on")
        return list(features[key].names)
