"""The inverted residual block, and the base of the models that are made of it: CoAtNet and MaxViT."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.config.fields import Constraint, PositiveFloat, PositiveInt
from jaxformer.models.base import Layer, Stages
from jaxformer.models.cnn_attention import gated, squeezed
from jaxformer.models.conv import Conv, PaddingName, he_fan_in
from jaxformer.models.dense import Dense
from jaxformer.models.dropout import ResidualLayer
from jaxformer.models.mlp import ACTIVATIONS, GATED, ActivationName, Mlp
from jaxformer.models.norms import image_norm
from jaxformer.models.outputs import ImageOutputs, classified
from jaxformer.models.resampling import PoolName, halved, mean_of
from jaxformer.models.staged import StagedTransformer

UNGATED = Constraint('one without a gate, such as "silu"', lambda value: value not in GATED)


@dataclass(frozen=True)
class MBConvSettings:
    """What MBConv blocks have in common; the default is that of Dai et al. 2021 (CoAtNet) as timm reads it."""

    expansion: PositiveFloat = 4.0
    """Number of hidden channels over the block's."""
    expand: Literal["out", "in"] = "out"
    """The block's channels that are meant: those that come "out" of it, or those that go "in"."""
    stride_at: Literal["depthwise", "pool"] = "depthwise"
    """Where the block halves its feature map: in the "depthwise" convolution, or by a "pool" before the first
    one."""
    pool: PoolName = "mean"
    """How feature maps are halved beside a convolution: the "mean" of each 2x2 or its "max"."""
    activation: Annotated[ActivationName, UNGATED] = "gelu_erf"
    """Activation after the norms of the hidden channels."""
    first_activation: bool = False
    """Whether one follows the block's first norm, too."""
    squeeze: PositiveFloat = 0.25
    """Width of the squeeze over the block's channels that `expand` means (over hidden ones where that is
    "in")."""
    squeeze_activation: Annotated[ActivationName, UNGATED] = "silu"
    """Activation in the squeeze."""
    squeeze_early: bool = False
    """Whether it stands before the norm that follows the depthwise convolution, not after it."""
    use_bias: bool = True
    """Whether the last convolution and the shortcut's have biases."""
    padding: PaddingName = "even"
    """Padding of strided convolutions: "same" as TensorFlow pads, more at the end, or "even" on both sides alike."""
    norm_epsilon: PositiveFloat = 1e-5
    """Epsilon of BatchNorm."""

    def widths(self, channels_in: int, channels_out: int) -> tuple[int, int]:
        """The numbers of hidden channels and of those of the squeeze in a block."""
        hidden = round(self.expansion * (channels_out if self.expand == "out" else channels_in))
        return hidden, max(1, int(self.squeeze * (channels_out if self.expand == "out" else hidden)))

    def norm(self, layer: Layer, deterministic: bool) -> Callable[..., nn.Module]:
        """Makes BatchNorm from its linen keyword arguments."""
        return image_norm(layer, "batch", self.norm_epsilon, deterministic)


class StridedBlock(ResidualLayer):
    """A block that can halve its feature map, around a residual."""

    channels: int
    """Number of channels that come out."""
    stride: int
    """1, or 2 to halve the feature map; then, if channels change, the shortcut is a pool and a 1x1."""

    def shortcut(self, x: jax.Array, pool: PoolName, use_bias: bool) -> jax.Array:
        """What the branch is added to, by the sub-module "conv_shortcut" if channels change."""
        x = halved(x, pool) if self.stride == 2 else x
        if x.shape[-1] == self.channels:
            return x
        return Conv(self.channels, 1, use_bias=use_bias, **self.dtypes, name="conv_shortcut")(x)


class MBConv(StridedBlock):
    """A 1x1 that widens, a 3x3 for each channel, a squeeze and a 1x1 that narrows, around a residual.

    As in MobileNetV2 (Sandler et al. 2018), with the norm in front and a squeeze (Dai et al. 2021, section 2.3).
    """

    settings: MBConvSettings
    """What is alike in all of a model's blocks."""

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), channels]."""
        settings = self.settings
        norm, activation = settings.norm(self, deterministic), ACTIVATIONS[settings.activation]
        hidden, squeeze = settings.widths(x.shape[-1], self.channels)
        mlp = Mlp(squeeze, settings.squeeze_activation, **self.dtypes, name="mlp_squeeze")
        halves = self.stride == 2 and settings.stride_at == "pool"

        def weighed(y: jax.Array) -> jax.Array:
            """Channels weighed by the mean over all places (Hu et al. 2018, section 3)."""
            return gated(y, mlp(squeezed(y, (1, 2), self.dtype)))

        shortcut = self.shortcut(x, settings.pool, settings.use_bias)
        y = norm(name="norm_in")(x)
        y = activation(y) if settings.first_activation else y
        y = halved(y, settings.pool) if halves else y
        y = activation(norm(name="norm_1")(Conv(hidden, 1, **self.dtypes, name="conv_1")(y)))
        depthwise = {"depthwise": True, "padding": settings.padding, "kernel_init": he_fan_in, **self.dtypes}
        y = Conv(hidden, 3, 1 if halves else self.stride, **depthwise, name="conv_2")(y)
        y = weighed(y) if settings.squeeze_early else y
        y = activation(norm(name="norm_2")(y))
        y = y if settings.squeeze_early else weighed(y)
        y = Conv(self.channels, 1, use_bias=settings.use_bias, **self.dtypes, name="conv_3")(y)
        return shortcut + self.branch(y, deterministic)


class ConvAttentionModel(StagedTransformer):
    """A classifier of images by stages of convolutions and attention; a family says what its blocks are."""

    stage_sizes: Stages = (2, 3, 5, 2)
    """Number of blocks in each stage; every stage halves the feature map, and the stem the image."""
    widths: tuple[PositiveInt, ...] = (96, 192, 384, 768)
    """Number of channels of each stage."""
    stem_widths: tuple[PositiveInt, PositiveInt] = (64, 64)
    """Number of channels of the stem's two convolutions."""
    stem_bias: bool = False
    """Whether the stem's convolutions have biases."""
    representation: PositiveInt | None = 768
    """Width of a tanh layer between pooling and head; None: no layer, and the norm stands before the
    pooling."""
    mbconv: MBConvSettings = MBConvSettings()
    """The convolutional blocks."""
    head_dim: PositiveInt = 32
    """Size of the attention heads; must divide the widths."""
    norm_epsilon: PositiveFloat = 1e-6
    """Epsilon of LayerNorms."""

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs is the last feature map."""
        stem = {"use_bias": self.stem_bias, "padding": self.mbconv.padding, **self.dtypes}
        x = Conv(self.stem_widths[0], 3, 2, **stem, name="conv_stem_1")(image)
        x = ACTIVATIONS[self.mbconv.activation](self.mbconv.norm(self, deterministic)(name="norm_stem")(x))
        x = Conv(self.stem_widths[1], 3, **stem, name="conv_stem_2")(x)  # [B, h, w, C]
        maps = self.staged(x, self.block, deterministic)
        if self.representation is None:
            features = mean_of(self.normed(maps[-1], "norm"))  # [B, C]
        else:
            layer = Dense(self.representation, **self.dtypes, name="representation")
            features = jnp.tanh(layer(self.normed(mean_of(maps[-1]), "norm")))  # [B, representation]
        return classified(self, maps[-1], maps, features)

    def block(self, stage: int, i: int, **common: Any) -> nn.Module:
        """Block number `i` of a stage; see `Staged.staged`."""
        raise NotImplementedError
