"""Images with the class of each pixel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from jaxformer.config.fields import between
from jaxformer.config.schema import did_you_mean
from jaxformer.data.base import DatasetConfig, Example, Source
from jaxformer.data.decoding import decode_mask
from jaxformer.data.geometry import VOID, letterbox
from jaxformer.data.kinds.images import ImageReader, LetterboxedKind
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


class SegmentationSource(ImageReader):
    """Examples with `image` uint8 [H, W, 3], `segmentation` int32 [H, W] and `original_size`.

    Batches hold what `Segmentation` says.
    """

    def __init__(self, config: DatasetConfig, split: str, train: bool):
        """Opens `split`.

        Raises:
          UserError: the dataset, version, split or feature is not there, or not what it has to be.
        """
        super().__init__(config, split)
        settings: Segmentation = config.examples
        self._mask, self._enlarge = settings.mask_feature, settings.enlarge
        self._size = settings.frame(train)
        self.channels = 3
        names = self._names(settings)
        ignored = set(settings.ignore_labels)
        self.class_names = [name for label, name in enumerate(names) if label not in ignored]
        self._table = np.full(IDS, UNKNOWN, np.int32)
        self._table[[label for label in range(len(names)) if label not in ignored]] = range(
            len(self.class_names)
        )
        self._table[list(ignored)] = VOID
        if not self.class_names:
            raise UserError(
                f"data.examples.ignore_labels: leaves none of the {len(names)} classes of {self.name}"
            )

    def decode(self, features: Any, index: int) -> Example:
        """The picture and its mask, in classes."""
        image = self.image(features)
        mask = decode_mask(features[self._mask].bytes_list.value[0])
        if mask.shape != image.shape[:2]:
            sizes = f"{mask.shape[0]}x{mask.shape[1]}, the picture {image.shape[0]}x{image.shape[1]}"
            raise ValueError(f"the mask is {sizes}")
        classes = self._table[mask]
        if (classes == UNKNOWN).any():
            unknown = np.unique(mask[classes == UNKNOWN])
            shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
            raise UserError(
                f"{self.where(index)}: the mask has the ids {shown}, which are no class of the dataset; ignore them "
                "with data.examples.ignore_labels, or name more in data.examples.class_names"
            )
        return {"image": image, "segmentation": classes, "original_size": np.array(mask.shape, np.int32)}

    def finish(self, example: Mapping[str, Any]) -> Mapping[str, Any]:
        """The picture and its mask in their frame."""
        return letterbox(dict(example), self._size, self._enlarge)

    def _names(self, settings: Segmentation) -> list[str]:
        """Names of all ids that the masks may have, from 0 on; checks the feature of masks."""
        import tensorflow_datasets as tfds

        key = settings.mask_feature
        images = {name: f for name, f in self.features.items() if isinstance(f, tfds.features.Image)}
        if key not in images:
            remedy = did_you_mean(key, [name for name in images if name != settings.image_feature])
            raise UserError(f"data.examples.mask_feature: {self.name} has no mask {key!r}; {remedy}")
        feature = images[key]
        if feature.shape[-1] != 1:
            raise UserError(
                f"data.examples.mask_feature: {key!r} of {self.name} is {feature}, not of one channel"
            )
        if settings.class_names is not None:
            return list(settings.class_names)
        if not isinstance(feature, tfds.features.LabeledImage):
            raise UserError(
                f"data.examples.class_names: {self.name} does not say which classes {key!r} has; name those of all "
                "ids from 0 on"
            )
        return list(feature.names) if feature.names else [str(label) for label in range(feature.num_classes)]
