"""Image classification: each image is of one class."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.config.fields import Fraction, at_least
from jaxformer.tasks import metrics, mixing
from jaxformer.tasks.base import Batch, Batches, Row, example_mask
from jaxformer.tasks.classes import ClassTask
from jaxformer.tasks.image import ImageTask

ALPHA = at_least(0, "an alpha above 0, such as 0.2, or 0 for none")


@dataclass(frozen=True)
class Classification(ClassTask, ImageTask):
    """Learns the class of an image.

    Batches have `image` (uint8, or float 0..255, [B, H, W, C]), `labels` (int32 [B]) and, where rows may be
    padding, `example_mask` (bool [B]). Models give `ImageOutputs`.
    """

    mixup: Annotated[float, ALPHA] = 0.0
    """Alpha of mixup (Zhang et al. 2018); 0.2 to 0.8 is usual, 0 is off."""
    cutmix: Annotated[float, ALPHA] = 0.0
    """Alpha of CutMix (Yun et al. 2019); 1 is usual, 0 is off."""
    cutmix_share: Fraction = 0.5
    """Share of the batches that take CutMix where both are on; the others take mixup."""

    views = ("flip", "five_crop", "ten_crop")

    def misfits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
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

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        metrics.check_labels(model.num_classes, batch["labels"])

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

    def draw(self, image: np.ndarray, answer: Mapping[str, Any], predicted: Row, example: Row) -> dict:
        from jaxformer.drawing import annotate

        rows = [(one["label"], one["probability"]) for one in answer["predictions"]]
        return {"": annotate(image, rows)}
