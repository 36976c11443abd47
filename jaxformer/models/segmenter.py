"""Semantic segmentation: any backbone, and a decoder that gives every pixel the logits of its class."""

from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.config.fields import PositiveInt
from jaxformer.config.schema import choice
from jaxformer.models.base import Kind
from jaxformer.models.outputs import SegmentationOutputs
from jaxformer.models.patches import UNFIT, Backboned, Levels, backbone_outputs
from jaxformer.models.segmentation_decoders import DECODERS

Size = tuple[PositiveInt, PositiveInt]  # height and width
USUAL_SIZE = 224  # of images, for what has to be known of a backbone that takes images of any size


class Segmenter(Backboned):
    """A backbone and a decoder."""

    kind: ClassVar[Kind] = "segmenter"

    decoder: Any = choice(DECODERS)
    """What makes logits of the maps: "mask_transformer" (Strudel et al. 2021), "linear", "pup" (Zheng et al.
    2021), or of several maps "mlp" (Xie et al. 2021) and "fpn"."""
    levels: Levels | None = None
    """Which of the backbone's maps the decoder gets, as indices, the finest first; None: all."""
    num_classes: PositiveInt | None = None
    """Number of classes K; None: as many as the data have."""
    window: Size | None = None
    """Height and width of windows that are laid over larger images in evaluations; their logits are averaged
    where they overlap. None: images are seen as a whole."""
    stride: Size | None = None
    """From one window to the next, down and across; the last ones end with the image. None: 2/3 of the
    window."""

    def problems(self) -> Iterator[str]:
        yield from self.window_problems()
        yield from super().problems()
        try:
            count = len(backbone_outputs(self.backbone, self.image_size or USUAL_SIZE).maps)
        except UNFIT as error:
            yield f"backbone: gives no feature maps ({error})"
            return
        if odd := [level for level in self.levels or () if not -count <= level < count]:
            yield f"levels: there is no {odd[0]}; this backbone has {count} maps, 0 to {count - 1}"
        count = len(self.levels or range(count))
        if count < self.decoder.least_maps:
            name = type(self.decoder).__name__
            remedy = 'a backbone with stages, such as "resnet", or the decoder "mask_transformer", "pup" or "linear"'
            yield f"decoder: {name} joins maps of several sizes, and gets {count}; take {remedy}"
        level = self.decoder.level
        if not -count <= level < count:
            yield f"decoder.level={level}: the decoder gets {count} maps, 0 to {count - 1}; -1 is the last"

    @nn.nowrap
    def window_problems(self) -> Iterator[str]:
        """Yields a line for windows that cannot be."""
        if self.window is None:
            if self.stride is not None:
                yield f"stride={list(self.stride)}: there is no window; set window, too, or leave it out"
            return
        size = self.image_size
        if size is not None and self.window != (size, size):
            yield f"window={list(self.window)}: the backbone takes images of {size}x{size}; set it to [{size}, {size}]"
        if self.stride is not None and not all(0 < s <= w for s, w in zip(self.stride, self.window)):
            yield f"stride={list(self.stride)}: expected 1 to {list(self.window)} pixels, or windows leave gaps"

    def seeing_whole(self, height: int, width: int) -> "Segmenter | None":
        if self.window is None:
            return self
        fits = self.image_size is None or (height, width) == (self.image_size,) * 2
        return self.clone(window=None, stride=None) if fits else None

    def __call__(self, image: jax.Array, deterministic: bool = True) -> SegmentationOutputs:
        """Segments images, float [B, H, W, C]."""
        size = image.shape[1], image.shape[2]
        if self.window is None or not deterministic:
            return self.whole(image, deterministic)
        h, w = min(self.window[0], size[0]), min(self.window[1], size[1])
        places = window_places(size, (h, w), self.stride or (max(1, 2 * h // 3), max(1, 2 * w // 3)))
        if len(places) == 1:
            return self.whole(image, deterministic)
        windows = [image[:, top : top + h, left : left + w] for top, left in places]
        logits = self.whole(jnp.concatenate(windows), deterministic).at((h, w))
        total = jnp.zeros((*image.shape[:3], logits.shape[-1]), logits.dtype)
        count = np.zeros((1, *size, 1), np.float32)
        for part, (top, left) in zip(jnp.split(logits, len(places)), places):
            total = total.at[:, top : top + h, left : left + w].add(part)
            count[:, top : top + h, left : left + w] += 1
        return SegmentationOutputs(total * jnp.broadcast_to(jnp.asarray(1 / count, total.dtype), total.shape))

    def whole(self, image: jax.Array, deterministic: bool) -> SegmentationOutputs:
        """Segments images, each seen as a whole."""
        maps = self.backbone(image, deterministic).maps
        seen = maps if self.levels is None else tuple(maps[level] for level in self.levels)
        return SegmentationOutputs(self.decoder(seen, self.known("num_classes"), deterministic), maps)


def window_places(size: Size, window: Size, stride: Size) -> list[tuple[int, int]]:
    """(top, left) of the windows that cover an image of `size`, row by row; the last ones end with it."""
    rows, columns = (
        [*range(0, whole - part, step), whole - part] for whole, part, step in zip(size, window, stride)
    )
    return [(top, left) for top in rows for left in columns]
