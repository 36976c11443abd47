"""Semantic segmentation: any backbone, and a decoder that gives every pixel the logits of its class."""

from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.config.fields import PositiveInt
from jaxformer.config.schema import choice
from jaxformer.models import BACKBONES, CONTRACT
from jaxformer.models.base import Kind, Model
from jaxformer.models.outputs import SegmentationOutputs
from jaxformer.models.patches import backbone_outputs
from jaxformer.models.resampling import size_of

Size = tuple[PositiveInt, PositiveInt]  # height and width
USUAL_SIZE = 224  # of images, for what has to be known of a backbone that takes images of any size

DECODERS = {
    "fpn": "jaxformer.models.segmentation_decoders:FPN",
    "linear": "jaxformer.models.segmentation_decoders:Linear",
    "mask_transformer": "jaxformer.models.mask_transformer:MaskTransformer",
    "mlp": "jaxformer.models.segmentation_decoders:AllMLP",
    "pup": "jaxformer.models.segmentation_decoders:PUP",
}


class Segmenter(Model):
    """A backbone and a decoder."""

    kind: ClassVar[Kind] = "segmenter"
    sizes: ClassVar[tuple[str, ...]] = ("num_classes",)

    backbone: Any = choice(BACKBONES, contract=CONTRACT)
    """What gives feature maps: any of BACKBONES, with num_classes=0. Its parameters are "backbone/...":
    `optimizer.freeze` freezes them. Those that need no `image_size` take images of any size."""
    decoder: Any = choice(DECODERS)
    """What makes logits of them: "mask_transformer" (Strudel et al. 2021), "linear", "pup" (Zheng et al.
    2021), or of several maps "mlp" (Xie et al. 2021) and "fpn"."""
    num_classes: PositiveInt | None = None
    """Number of classes K; None: as many as the data have."""
    window: Size | None = None
    """Height and width of windows that are laid over larger images in evaluations; their logits are averaged
    where they overlap. None: images are seen as a whole."""
    stride: Size | None = None
    """From one window to the next, down and across; the last ones end with the image. None: 2/3 of the
    window."""

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        yield from self.window_problems()
        if self.backbone.num_classes:
            remedy = "a backbone's own head is never read; set it to 0"
            yield f"backbone.num_classes={self.backbone.num_classes}: {remedy}"
            return
        try:
            count = len(backbone_outputs(self.backbone, self.image_size or USUAL_SIZE).maps)
        except (ArithmeticError, TypeError, ValueError) as error:
            yield f"backbone: gives no feature maps ({error})"
            return
        least = self.decoder.least_maps
        if count < least:
            yield (
                f"decoder: {type(self.decoder).__name__} joins maps of several sizes, and this backbone has {count}; "
                'take a backbone with stages, such as "resnet", or the decoder "mask_transformer", "pup" or "linear"'
            )
        level = self.decoder.level
        if not -count <= level < count:
            yield f"decoder.level={level}: this backbone has {count} maps, 0 to {count - 1}; -1 is the last"

    @nn.nowrap
    def window_problems(self) -> Iterator[str]:
        """Yields a line for windows that cannot be."""
        if self.window is None:
            if self.stride is not None:
                yield f"stride={list(self.stride)}: there is no window; set window, too, or leave it out"
            return
        if self.image_size is not None and self.window != (self.image_size,) * 2:
            size = self.image_size
            yield f"window={list(self.window)}: the backbone takes images of {size}x{size}; set it to [{size}, {size}]"
        if self.stride is not None and not all(0 < s <= w for s, w in zip(self.stride, self.window)):
            yield f"stride={list(self.stride)}: expected 1 to {list(self.window)} pixels, or windows leave gaps"

    @property
    def image_size(self) -> int | None:
        """Height and width of the images that the backbone takes; None: any."""
        return self.backbone.image_size

    @nn.nowrap
    def seeing_whole(self, height: int, width: int) -> "Segmenter | None":
        if self.window is None:
            return self
        fits = self.image_size is None or (height, width) == (self.image_size,) * 2
        return self.clone(window=None, stride=None) if fits else None

    def __call__(self, image: jax.Array, deterministic: bool = True) -> SegmentationOutputs:
        """Segments images, float [B, H, W, C]."""
        size = size_of(image)
        if self.window is None or not deterministic:
            return self.whole(image, deterministic)
        extent = (min(self.window[0], size[0]), min(self.window[1], size[1]))
        places = window_places(size, extent, self.stride or default_stride(extent))
        if len(places) == 1:
            return self.whole(image, deterministic)
        logits = self.whole(jnp.concatenate(windows_of(image, places, extent)), deterministic).at(extent)
        return SegmentationOutputs(averaged(jnp.split(logits, len(places)), places, size))

    def whole(self, image: jax.Array, deterministic: bool) -> SegmentationOutputs:
        """Segments images, each seen as a whole."""
        maps = self.backbone(image, deterministic).maps
        return SegmentationOutputs(self.decoder(maps, self.known("num_classes"), deterministic), maps)


def default_stride(window: Size) -> Size:
    """Two thirds of a window's height and width."""
    return max(1, 2 * window[0] // 3), max(1, 2 * window[1] // 3)


def window_places(size: Size, window: Size, stride: Size) -> list[tuple[int, int]]:
    """(top, left) of the windows that cover an image of `size`, row by row; the last ones end with it."""
    rows, columns = (
        [*range(0, whole - part, step), whole - part] for whole, part, step in zip(size, window, stride)
    )
    return [(top, left) for top in rows for left in columns]


def windows_of(image: jax.Array, places: list[tuple[int, int]], window: Size) -> list[jax.Array]:
    """The windows [B, h, w, C] of images [B, H, W, C] at some places."""
    return [image[:, top : top + window[0], left : left + window[1]] for top, left in places]


def averaged(windows: list[jax.Array], places: list[tuple[int, int]], size: Size) -> jax.Array:
    """Windows [B, h, w, K] put back at their places: [B, H, W, K], the mean where several lie."""
    batch, height, width, channels = windows[0].shape
    total = jnp.zeros((batch, *size, channels), windows[0].dtype)
    count = np.zeros((1, *size, 1), np.float32)
    for part, (top, left) in zip(windows, places):
        total = total.at[:, top : top + height, left : left + width].add(part)
        count[:, top : top + height, left : left + width] += 1
    return total * jnp.broadcast_to(jnp.asarray(1 / count, total.dtype), total.shape)
