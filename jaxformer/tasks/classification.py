"""Image classification: each image is of one class."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.tasks import metrics, mixing
from jaxformer.tasks.base import Batch, Batches, example_mask
from jaxformer.tasks.classes import ClassTask


@dataclass(frozen=True)
class Classification(ClassTask):
    """Learns the class of an image.

    Batches have `image` (uint8, or float 0..255, [B, H, W, C]), `labels` (int32 [B]) and, where rows may be
    padding, `example_mask` (bool [B]). Models give `ImageOutputs`.
    """

    mixup: float = 0.0
    """Alpha of mixup (Zhang et al. 2018); 0.2 to 0.8 is usual, 0 is off."""
    cutmix: float = 0.0
    """Alpha of CutMix (Yun et al. 2019); 1 is usual, 0 is off."""
    cutmix_share: float = 0.5
    """Where both are on, the share of batches that take CutMix; the others take mixup."""
    mean: tuple[float, ...] = (0.5,)
    """Of the pixels, in 0..1; one number for all channels, or one for each. Taken off on the device."""
    std: tuple[float, ...] = (0.5,)
    """Likewise; what is left is divided by it."""

    def problems(self) -> Iterator[str]:
        """Yields a line for every value that cannot be."""
        yield from super().problems()
        for name in ("mixup", "cutmix"):
            if not getattr(self, name) >= 0:
                yield f"{name}={getattr(self, name)}: expected an alpha over 0, such as 0.2, or 0 for none"
        if not 0 <= self.cutmix_share <= 1:
            yield f"cutmix_share={self.cutmix_share}: expected a share from 0 to 1"
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, 3):
                yield f"{name}={list(values)}: expected one number for all channels, or three for RGB"
        if not all(0 <= value <= 1 for value in self.mean):
            yield f"mean={list(self.mean)}: expected values in 0..1; divide by 255 if they are in 0..255"
        if not all(0 < value <= 1 for value in self.std):
            yield f"std={list(self.std)}: expected values in 0..1, not 0; divide by 255 if they are in 0..255"

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        """Yields a line for images of another size or with other channels than fit, and for too many classes."""
        if "image" not in train.element_spec:
            made = ", ".join(sorted(train.element_spec))
            yield f"data.examples: batches have {made}, this task needs image: choose images, or another task"
            return
        if model.kind != "image":
            yield f'model: {type(model).__name__} does not classify images; choose another, such as "vit"'
            return
        height, width, channels = train.element_spec["image"][0]
        size = model.image_size
        if size is not None and (height, width) != (size, size):
            yield (
                f"model.image_size={size}: the training images are {height}x{width} after data.transforms; "
                f"set model.image_size={height} or resize them"
            )
        shown = evaluation.element_spec["image"][0]
        if shown != (height, width, channels):
            yield (
                f"data.eval_transforms give images of {shown}, data.transforms of {(height, width, channels)}: "
                "make them the same"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                yield (
                    f"task.{name}={list(values)}: the images have {channels} channels; "
                    f"give {channels} numbers, or one for all"
                )
        names = train.class_names
        if names is not None and model.num_classes < len(names):
            yield f"model.num_classes={model.num_classes}: the dataset has {len(names)} classes; set it to that"

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        """Refuses labels that are no class of the model."""
        metrics.check_labels(model.num_classes, batch["labels"])

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Normalised images: (image / 255 - mean) / std, float32 [B, H, W, C]."""
        image = jnp.asarray(batch["image"])
        mean, std = (
            jnp.asarray(values, jnp.float32)[None, None, None, :] for values in (self.mean, self.std)
        )
        return {"image": (image.astype(jnp.float32) / 255 - mean) / std}

    def augment(self, key: jax.Array, batch: Batch) -> Batch:
        """Mixup and CutMix, if they are on; see `tasks/mixing.py`. Pairs are within a device under pmap.

        Returns:
          The batch with `image` mixed, float32 0..255, and with `mixed_labels`, int32 [B], the partners', and
          `mix_weight`, float32 [B], the weight of an example's own label. Padding is not mixed into examples.
        """
        if self.mixup == 0 and self.cutmix == 0:
            return batch
        image, labels = jnp.asarray(batch["image"]), jnp.asarray(batch["labels"])
        weights, weight = mixing.draw_weights(
            key, *image.shape[1:3], mixup=self.mixup, cutmix=self.cutmix, cutmix_share=self.cutmix_share
        )
        has_partner = jnp.roll(example_mask(batch), 1)
        mixed = mixing.mix_images(image, weights)
        return {
            **batch,
            "image": jnp.where(has_partner[:, None, None, None], mixed, image.astype(jnp.float32)),
            "mixed_labels": jnp.roll(labels, 1),
            "mix_weight": jnp.where(has_partner, weight, 1.0),
        }
