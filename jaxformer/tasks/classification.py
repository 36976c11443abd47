"""Image classification: each image is of one class."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer import drawing
from jaxformer.config.fields import Fraction, Input, InputOrZero, between, left_out
from jaxformer.tasks import metrics
from jaxformer.tasks.base import Batch, Batches, Images, Row, example_mask
from jaxformer.tasks.classes import ClassTask
from jaxformer.tasks.image import ImageTask, sizes_fit

Weights = tuple[jax.Array, jax.Array]
ALPHA = between(0, 1000, "an alpha above 0 and up to 1000, such as 0.2, or 0 for none")


@dataclass(frozen=True)
class Classification(ClassTask, ImageTask):
    """Learns the class of an image.

    Batches have `image` (uint8, or float 0..255, [B, H, W, C]), `labels` (int32 [B]) and, where rows may be
    padding, `example_mask` (bool [B]). Models give `ImageOutputs`.
    """

    mixup: Input[Annotated[float, ALPHA]] = 0.0
    """Alpha of mixup (Zhang et al. 2018); 0.2 to 0.8 is usual, 0 is off."""
    cutmix: Input[Annotated[float, ALPHA]] = 0.0
    """Alpha of CutMix (Yun et al. 2019); 1 is usual, 0 is off."""
    cutmix_share: InputOrZero[Fraction] = 0.5
    """Share of the batches that take CutMix where both are on (timm's `switch_prob`); the others take mixup."""

    views = ("flip", "five_crop", "ten_crop")

    def misfits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        if model.num_classes is None and "num_classes" in model.sizes:
            yield "model.num_classes: the dataset does not say how many classes it has; set it"
        elif model.num_classes is None:
            name = type(model).__name__
            yield f"model: {name} has no field num_classes; jaxformer/models/base.py describes the contract"
        yield from sizes_fit(model, train, evaluation)

    def check(self, model: Any, batch: Mapping[str, np.ndarray]) -> None:
        metrics.check_labels(model.num_classes, batch["labels"])

    def augment(self, key: jax.Array, batch: Batch) -> Batch:
        """Mixup and CutMix, if they are on: every image is mixed with the one before it in the batch.

        Both are a weighted sum of an image and its partner. The weights are drawn once a batch, as in big_vision and in
        timm's (and so DeiT's) mode="batch": mixup's are all alike, CutMix's 0 in a box and else 1. Pairs are within a
        device under pmap.

        Returns:
          The batch with `image` mixed, float32 0..255, and with `mixed_labels`, int32 [B], the partners', and
          `mix_weight`, float32 [B], the weight of an example's own label. Padding is not mixed into examples.
        """
        if left_out(self.mixup) and left_out(self.cutmix):
            return batch
        image, labels = jnp.asarray(batch["image"], jnp.float32), jnp.asarray(batch["labels"])
        weights, weight = self.draw_weights(key, *image.shape[1:3])
        own = weights[None, :, :, None]
        mixed = own * image + (1 - own) * jnp.roll(image, 1, axis=0)
        has_partner = jnp.roll(example_mask(batch), 1)
        return {
            **batch,
            "image": jnp.where(has_partner[:, None, None, None], mixed, image),
            "mixed_labels": jnp.roll(labels, 1),
            "mix_weight": jnp.where(has_partner, weight, 1.0),
        }

    def draw_weights(self, key: jax.Array, height: int, width: int) -> Weights:
        """The weights of whichever of `mixup_weights` and `cutmix_weights` is on, or drawn."""
        choice_key, key = jax.random.split(key)
        if left_out(self.cutmix):
            return mixup_weights(key, self.mixup, height, width)
        cut = cutmix_weights(key, self.cutmix, height, width)
        if left_out(self.mixup):
            return cut
        is_cut = jax.random.bernoulli(choice_key, self.cutmix_share)
        whole = mixup_weights(key, self.mixup, height, width)
        return jnp.where(is_cut, cut[0], whole[0]), jnp.where(is_cut, cut[1], whole[1])

    def draw(self, image: np.ndarray, answer: Mapping[str, Any], predicted: Row, example: Row) -> Images:
        rows = [(one["label"], one["probability"]) for one in answer["predictions"]]
        return {"": drawing.annotate(image, rows)}


def mixup_weights(key: jax.Array, alpha: float, height: int, width: int) -> Weights:
    """Mixup (Zhang et al. 2018, equation 1): lambda from Beta(alpha, alpha).

    As in big_vision's `get_mixup`, an example's own weight is the larger of lambda and 1 - lambda: pairs are
    mixed in the same proportions, and `labels` are those that weigh more.

    Returns:
      An image's own weight at each pixel, float32 [height, width], and its label's, float32 [].
    """
    weight = jax.random.beta(key, alpha, alpha, dtype=jnp.float32)
    weight = jnp.maximum(weight, 1 - weight)
    return jnp.full((height, width), weight), weight


def cutmix_weights(key: jax.Array, alpha: float, height: int, width: int) -> Weights:
    """CutMix (Yun et al. 2019, section 3.1): a box of the partner, of the share 1 - lambda of the image.

    Lambda is from Beta(alpha, alpha). The box has the image's proportions and its centre anywhere; what
    sticks out is cut off, and the label's weight is the share of pixels that are left (timm's `correct_lam`).

    Returns:
      An image's own weight at each pixel, 0 or 1, float32 [height, width], and its label's, float32 [].
    """
    share_key, row_key, column_key = jax.random.split(key, 3)
    side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha, dtype=jnp.float32))

    def inside(key: jax.Array, length: int) -> jax.Array:
        centre = jax.random.randint(key, (), 0, length)
        half = (side * length).astype(jnp.int32) // 2
        position = jnp.arange(length)
        return (position >= centre - half) & (position < centre + half)

    box = inside(row_key, height)[:, None] & inside(column_key, width)[None, :]  # [height, width]
    pasted = jnp.sum(box, dtype=jnp.float32)
    return 1 - box.astype(jnp.float32), 1 - pasted / (height * width)
