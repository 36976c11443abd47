"""The convolutional stem of ViT_C (Xiao et al. 2021, Early Convolutions Help Transformers See Better).

It is the backbone of a `ViT` with patch_size=1, whose patch embedding is the last, 1x1 convolution of the stem. The
paper leaves out one block of the Transformer for it, so that both cost the same.
"""

from collections.abc import Iterator
from typing import Annotated

import jax
from flax import linen as nn

from jaxformer.config.fields import PositiveFloat, PositiveInt, not_empty
from jaxformer.models.base import Classes, ImageModel
from jaxformer.models.conv import Conv
from jaxformer.models.norms import image_norm
from jaxformer.models.outputs import ImageOutputs, classified


class ConvStem(ImageModel):
    """3x3 convolutions, each with BatchNorm and a ReLU behind it."""

    channels: Annotated[tuple[PositiveInt, ...], not_empty("at least one convolution")] = (48, 96, 192, 384)
    """Number of channels of each convolution; usually doubled where the map is halved."""
    strides: tuple[PositiveInt, ...] = (2,)
    """Stride of each convolution; one for each, or one for all."""
    num_classes: Classes | None = 0
    """Number of classes K of a linear head on the map's mean; 0 has none. None: the data's."""
    norm_epsilon: PositiveFloat = 1e-5
    """Added to variances."""

    def problems(self) -> Iterator[str]:
        if len(self.strides) not in (1, len(self.channels)):
            yield f"strides={list(self.strides)}: expected one, or one for each of {len(self.channels)} channels"

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Maps images, float [B, H, W, C]; the outputs' `maps` are the last convolution's alone."""
        norm = image_norm(self, "batch", self.norm_epsilon, deterministic)
        strides = self.strides * len(self.channels) if len(self.strides) == 1 else self.strides
        x = image
        for i, (channels, stride) in enumerate(zip(self.channels, strides), 1):
            x = Conv(channels, 3, stride, **self.dtypes, name=f"conv_stem_{i}")(x)
            x = nn.relu(norm(name=f"norm_stem_{i}")(x))  # [B, h, w, C]
        return classified(self, x, (x,))
