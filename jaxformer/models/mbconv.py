"""The inverted residual block of CoAtNet and MaxViT, the stem and the head that both have, and pooling by two."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.config.fields import Constraint, PositiveFloat
from jaxformer.models.base import Layer
from jaxformer.models.cnn_attention.gates import gated, squeezed
from jaxformer.models.conv import Conv, PaddingName
from jaxformer.models.dense import Dense
from jaxformer.models.dropout import ResidualLayer
from jaxformer.models.mlp import ACTIVATIONS, GATED, ActivationName, Mlp
from jaxformer.models.norms import LayerNorm, image_norm

Dtype = Any
Norm: TypeAlias = Callable[..., nn.Module]
Ungated: TypeAlias = Annotated[
    ActivationName, Constraint('one without a gate, such as "silu"', lambda value: value not in GATED)
]
PoolName: TypeAlias = Literal["mean", "max"]
he_fan_in = nn.initializers.variance_scaling(
    2.0, "fan_in", "normal"
)  # of a depthwise kernel its fan out, too


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
    activation: Ungated = "gelu_erf"
    """Activation after the norms of the hidden channels."""
    first_activation: bool = False
    """Whether one follows the block's first norm, too."""
    squeeze: PositiveFloat = 0.25
    """Width of the squeeze over the block's channels that `expand` means (over hidden ones where that is
    "in")."""
    squeeze_activation: Ungated = "silu"
    """Activation in the squeeze."""
    squeeze_early: bool = False
    """Whether it stands before the norm that follows the depthwise convolution, not after it."""
    use_bias: bool = True
    """Whether the last convolution and the shortcut's have biases."""
    padding: PaddingName = "even"
    """Padding of strided convolutions: "same" as TensorFlow pads, more at the end, or "even" on both sides alike."""
    norm_epsilon: PositiveFloat = 1e-5
    """Epsilon of BatchNorm."""

    def hidden(self, channels_in: int, channels_out: int) -> int:
        """Hidden channels of a block."""
        return round(self.expansion * (channels_out if self.expand == "out" else channels_in))

    def squeezed(self, channels_in: int, channels_out: int) -> int:
        """The squeeze's width in a block."""
        of = channels_out if self.expand == "out" else self.hidden(channels_in, channels_out)
        return max(1, int(self.squeeze * of))

    def norm(self, layer: Layer, deterministic: bool) -> Norm:
        """Makes BatchNorm from its linen keyword arguments."""
        return image_norm(layer, "batch", self.norm_epsilon, deterministic)


class MBConv(ResidualLayer):
    """A 1x1 that widens, a 3x3 for each channel, a squeeze and a 1x1 that narrows, around a residual.

    As in MobileNetV2 (Sandler et al. 2018), with the norm in front and a squeeze (Dai et al. 2021, section 2.3).
    """

    channels: int
    """Number of channels that come out."""
    stride: int
    """1, or 2 to halve the feature map; then, if channels change, the shortcut is a pool and a 1x1."""
    settings: MBConvSettings
    """What is alike in all of a model's blocks."""

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), channels]."""
        settings = self.settings
        norm = settings.norm(self, deterministic)
        activation = ACTIVATIONS[settings.activation]
        channels = x.shape[-1]
        hidden = settings.hidden(channels, self.channels)
        squeeze = settings.squeezed(channels, self.channels)
        mlp = Mlp(squeeze, settings.squeeze_activation, **self.dtypes, name="mlp_squeeze")
        pools = settings.stride_at == "pool"

        def weighed(y: jax.Array) -> jax.Array:
            """Channels weighed by what all places have on average (Hu et al. 2018, section 3)."""
            return gated(y, mlp(squeezed(y, (1, 2), self.dtype)))

        shortcut = shortcut_of(x, self.channels, self.stride, settings.pool, settings.use_bias, **self.dtypes)
        y = norm(name="norm_in")(x)
        y = activation(y) if settings.first_activation else y
        y = halved(y, settings.pool) if pools and self.stride == 2 else y
        y = activation(norm(name="norm_1")(Conv(hidden, 1, **self.dtypes, name="conv_1")(y)))
        stride = 1 if pools else self.stride
        depthwise = Conv(
            hidden,
            3,
            stride,
            depthwise=True,
            padding=settings.padding,
            kernel_init=he_fan_in,
            **self.dtypes,
            name="conv_2",
        )
        y = depthwise(y)
        y = weighed(y) if settings.squeeze_early else y
        y = activation(norm(name="norm_2")(y))
        y = y if settings.squeeze_early else weighed(y)
        y = Conv(self.channels, 1, use_bias=settings.use_bias, **self.dtypes, name="conv_3")(y)
        return shortcut + self.branch(y, deterministic)


def shortcut_of(
    x: jax.Array, channels: int, stride: int, pool: PoolName, use_bias: bool, **dtypes: Dtype
) -> jax.Array:
    """What a block's branch is added to, by the sub-module "conv_shortcut" of the caller if channels change."""
    x = halved(x, pool) if stride == 2 else x
    if x.shape[-1] == channels:
        return x
    return Conv(channels, 1, use_bias=use_bias, **dtypes, name="conv_shortcut")(x)


def halved(x: jax.Array, pool: PoolName) -> jax.Array:
    """The mean or the maximum of each 2x2 of [B, H, W, C]: [B, ceil(H / 2), ceil(W / 2), C]; borders repeat."""
    batch, height, width, channels = x.shape
    if height % 2 or width % 2:
        x = jnp.pad(x, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)], mode="edge")
    fours = x.reshape(batch, x.shape[1] // 2, 2, x.shape[2] // 2, 2, channels)
    if pool == "max":
        # By order, not by equality with the maximum: XLA may compute x twice, by instructions that round differently,
        # and a gradient that is shared among the equals is 0 / 0 where there are none.
        pairs = jnp.where(fours[:, :, 0] < fours[:, :, 1], fours[:, :, 1], fours[:, :, 0])
        return jnp.where(pairs[:, :, :, 0] < pairs[:, :, :, 1], pairs[:, :, :, 1], pairs[:, :, :, 0])
    return jnp.mean(fours, axis=(2, 4), dtype=jnp.float32).astype(x.dtype)


def stem(
    image: jax.Array,
    widths: tuple[int, int],
    use_bias: bool,
    settings: MBConvSettings,
    norm: Norm,
    **dtypes: Dtype,
) -> jax.Array:
    """Two 3x3 of stride 2 and 1 with a norm between: [B, H, W, 3] to [B, ceil(H / 2), ceil(W / 2), widths[1]]."""
    common = {"use_bias": use_bias, "padding": settings.padding, **dtypes}
    x = norm(name="norm_stem")(Conv(widths[0], 3, 2, **common, name="conv_stem_1")(image))
    x = ACTIVATIONS[settings.activation](x)
    return Conv(widths[1], 3, **common, name="conv_stem_2")(x)


def summary(x: jax.Array, representation: int | None, epsilon: float, **dtypes: Dtype) -> jax.Array:
    """What a head sees of [B, H, W, C], by the sub-modules "norm" and "representation" of the caller.

    Without a `representation` each place is normed and all are averaged, [B, C]; with one the average is normed, and
    a tanh layer follows, [B, representation].
    """
    norm = LayerNorm(epsilon, **dtypes, name="norm")
    if representation is None:
        return mean_of(norm(x))
    layer = Dense(representation, **dtypes, name="representation")
    return jnp.tanh(layer(norm(mean_of(x))))


def mean_of(x: jax.Array) -> jax.Array:
    """The mean over places of [B, H, W, C], [B, C]."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32).astype(x.dtype)
