"""The convolutional stem of ViT_C (Xiao et al. 2021, Early Convolutions Help Transformers See Better).

As the backbone of a `ViT` with patch_size=1, whose patch embedding is the stem's last, 1x1 convolution. The paper
leaves out one block of the Transformer for it, so that both cost the same.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.conv import Conv
from jaxformer.models.head import logits_of
from jaxformer.models.norms import image_norm
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.problems import classes, epsilons

Dtype = Any


class ConvStem(nn.Module):
    """3x3 convolutions, each with BatchNorm and a ReLU behind it."""

    channels: tuple[int, ...] = (48, 96, 192, 384)
    """Of the convolutions; usually doubled where the map is halved."""
    strides: tuple[int, ...] = (2,)
    """Of the convolutions; one for each, or one for all."""
    num_classes: int = 0
    """K of a linear head on the map's mean; 0 has none."""
    norm_epsilon: float = 1e-5
    """Added to variances."""
    axis_name: str | None = None
    """Pmap's axis, over which batch statistics are averaged."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        """Yields a line for every impossible combination of fields."""
        if not self.channels or min(self.channels) < 1:
            yield f"channels={list(self.channels)}: expected at least one convolution of at least one channel"
        if not self.strides or min(self.strides) < 1:
            yield f"strides={list(self.strides)}: expected strides of at least 1, such as [2]"
        elif len(self.strides) not in (1, len(self.channels)):
            yield f"strides={list(self.strides)}: expected one, or one for each of {len(self.channels)} channels"
        yield from classes(self)
        yield from epsilons(self)

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Maps images, float [B, H, W, C]; the outputs' `maps` are the last convolution's alone."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = image_norm(
            "batch",
            train=not deterministic,
            axis_name=self.axis_name,
            groups=1,
            epsilon=self.norm_epsilon,
            **dtypes,
        )
        count = len(self.channels)
        strides = self.strides if len(self.strides) == count else self.strides * count
        x = image
        for i, (channels, stride) in enumerate(zip(self.channels, strides), 1):
            x = Conv(channels, 3, stride, **dtypes, name=f"conv_stem_{i}")(x)
            x = nn.relu(norm(name=f"norm_stem_{i}")(x))
        features = jnp.mean(x, axis=(1, 2), dtype=jnp.float32).astype(self.dtype)  # [B, C]
        return ImageOutputs(logits_of(features, self.num_classes, self.param_dtype), features, x, (x,))
