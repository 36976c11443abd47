"""EfficientNet-Lite: inverted residuals by ReLU6, without a squeeze (Tan and Le 2019; lite of tensorflow/tpu)."""

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.config.fields import PositiveFloat, PositiveInt
from jaxformer.models.base import Staged, Stages
from jaxformer.models.conv import Conv, PaddingName, he_fan_in
from jaxformer.models.dropout import ResidualLayer
from jaxformer.models.norms import image_norm
from jaxformer.models.outputs import ImageOutputs, classified
from jaxformer.models.resampling import mean_of

NormName: TypeAlias = Literal["batch", "frozen"]


def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6) (Krizhevsky 2010)."""
    return jnp.clip(x, 0, 6)


class InvertedResidual(ResidualLayer):
    """A 1x1 that widens, a convolution of each channel and a 1x1 that narrows (Sandler et al. 2018, MobileNetV2)."""

    channels: int
    """Number of channels that come out."""
    kernel_size: int
    """Height and width of the kernel of each channel."""
    stride: int
    """1, or 2 to halve the feature map."""
    expansion: int
    """Hidden channels over those that go in; 1: no first 1x1."""
    padding: PaddingName
    """Padding of the convolutions."""
    norm: NormName
    """ "batch" or "frozen"; see `norms.image_norm`."""
    norm_epsilon: float
    """Epsilon of BatchNorm."""

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), channels]."""
        norm = image_norm(self, self.norm, self.norm_epsilon, deterministic)
        hidden, y = self.expansion * x.shape[-1], x
        if self.expansion > 1:
            y = relu6(norm(name="norm_1")(Conv(hidden, 1, **self.dtypes, name="conv_1")(y)))
        own: dict[str, Any] = {"padding": self.padding, "kernel_init": he_fan_in, **self.dtypes}
        y = Conv(hidden, self.kernel_size, self.stride, depthwise=True, **own, name="conv_2")(y)
        y = relu6(norm(name="norm_2")(y))
        y = norm(name="norm_3")(Conv(self.channels, 1, **self.dtypes, name="conv_3")(y))
        return x + self.branch(y, deterministic) if y.shape == x.shape else y


class EfficientNet(Staged):
    """An EfficientNet-Lite that classifies images. The default is Lite0."""

    stage_sizes: Stages = (1, 2, 2, 3, 3, 4, 1)
    """Number of blocks in each stage."""
    widths: tuple[PositiveInt, ...] = (16, 24, 40, 80, 112, 192, 320)
    """Number of channels of each stage."""
    kernel_sizes: tuple[PositiveInt, ...] = (3, 3, 5, 3, 5, 5, 3)
    """Size of each stage's kernels."""
    strides: tuple[PositiveInt, ...] = (1, 2, 2, 2, 1, 2, 1)
    """Stride of each stage's first block; the stem halves the image."""
    expansions: tuple[PositiveInt, ...] = (1, 6, 6, 6, 6, 6, 6)
    """Hidden channels of each stage's blocks over those that go in."""
    stem_width: PositiveInt = 32
    """Number of channels of the stem."""
    head_width: PositiveInt = 1280
    """Number of channels that are pooled for the head."""
    padding: PaddingName = "same"
    """Padding of strided convolutions: "same" as TensorFlow pads, or "even" on both sides alike."""
    norm: NormName = "batch"
    """ "batch", whose running statistics are the collection "batch_stats"; or "frozen", which uses these in training,
    too, and leaves them as they are."""
    norm_epsilon: PositiveFloat = 1e-3
    """Epsilon of BatchNorm; 1e-3 in TensorFlow's, 1e-5 in those that PyTorch trained."""

    def problems(self) -> Iterator[str]:
        yield from self.one_a_stage("widths", "kernel_sizes", "strides", "expansions")

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs is what is pooled, [B, h, w, head_width].

        "maps" has the feature maps of the stages that are the last of their size.
        """
        norm = image_norm(self, self.norm, self.norm_epsilon, deterministic)
        x = Conv(self.stem_width, 3, 2, padding=self.padding, **self.dtypes, name="conv_stem")(image)
        x = relu6(norm(name="norm_stem")(x))

        def block(stage: int, i: int, **common: Any) -> nn.Module:
            kernel, stride = self.kernel_sizes[stage - 1], 1 if i else self.strides[stage - 1]
            fields = {
                "padding": self.padding,
                "norm": self.norm,
                "norm_epsilon": self.norm_epsilon,
                "axis_name": self.axis_name,
            }
            shape = self.widths[stage - 1], kernel, stride, self.expansions[stage - 1]
            return InvertedResidual(*shape, **fields | common)

        maps = self.staged(x, block, deterministic)
        x = Conv(self.head_width, 1, **self.dtypes, name="conv_head")(maps[-1])
        x = relu6(norm(name="norm_head")(x))
        following = (*self.strides[1:], 2)
        return classified(self, x, tuple(y for y, stride in zip(maps, following) if stride > 1), mean_of(x))
