"""Convolutions: plain, grouped, depthwise, and with standardised weights."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.base import Layer
from jaxformer.models.dense import Initializer, product
from jaxformer.models.depthwise import depthwise_by_shifts

# Variance 2 / fan_out, as in PyTorch's ResNets (He et al. 2015).
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
DIMENSIONS = ("NHWC", "HWIO", "NHWC")
PaddingName: TypeAlias = Literal["even", "same"]
StandardizationName: TypeAlias = Literal["bit", "vit_jax", "timm"]


@dataclass(frozen=True)
class Standardization:
    """How a kernel is standardised (Qiao et al. 2019, Weight Standardization, equation 7)."""

    epsilon: float
    """A small number."""
    added_to: Literal["variance", "deviation"]
    """What it is added to: the "variance", below the root, or the standard "deviation"."""

    def __call__(self, kernel: jax.Array) -> jax.Array:
        """The kernel [h, w, C, features] with a mean of 0 and a variance of 1 for each of the features; float32."""
        kernel = kernel.astype(jnp.float32)
        centred = kernel - jnp.mean(kernel, axis=(0, 1, 2), keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=(0, 1, 2), keepdims=True)
        if self.added_to == "variance":
            return centred * jax.lax.rsqrt(variance + self.epsilon)
        return centred / (jnp.sqrt(variance) + self.epsilon)


STANDARDIZATIONS: dict[StandardizationName, Standardization] = {
    "bit": Standardization(1e-10, "variance"),  # google-research/big_transfer, bit_jax/models.py
    "vit_jax": Standardization(1e-5, "deviation"),  # google-research/vision_transformer, models_resnet.py
    "timm": Standardization(1e-8, "variance"),  # timm's BiT and hybrid ViTs
}


class Conv(Layer):
    """A convolution, NHWC.

    On CPUs a 1x1 is a product and a depthwise convolution a sum of shifted products, which is several times quicker
    there (`models/depthwise.py`). XLA has the others: as patches and a product they were no quicker.
    """

    features: int
    """Output channels."""
    kernel_size: int | tuple[int, int] = 3
    """Height and width of the kernel, or one number for both."""
    stride: int = 1
    """Of both directions."""
    use_bias: bool = False
    """Whether there is a bias."""
    groups: int = 1
    """Into which channels fall, each with kernels of its own."""
    depthwise: bool = False
    """Whether every channel is a group."""
    padding: PaddingName | int = "even"
    """ "even" pads both sides by half the kernel's size, rounded down, as PyTorch's models do; "same" as
    little as TensorFlow does, and more at the end; a number pads all sides by that much."""
    standardize: StandardizationName | None = None
    """How the kernel is standardised, a key of STANDARDIZATIONS; None: it is not."""
    kernel_init: Initializer = he_fan_out
    """Of the kernel [h, w, C / groups, features]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]; even kernels need "same"."""
        channels = x.shape[-1]
        groups = channels if self.depthwise else self.groups
        size = (self.kernel_size,) * 2 if isinstance(self.kernel_size, int) else self.kernel_size
        shape = (*size, channels // groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        if self.standardize is not None:
            kernel = STANDARDIZATIONS[self.standardize](kernel)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        if size == (1, 1) and groups == 1:
            return product(x[:, :: self.stride, :: self.stride], kernel[0, 0], bias, self.dtype)
        y = convolution(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, groups, self.padding)
        return y if bias is None else y + jnp.broadcast_to(bias.astype(self.dtype), y.shape)


def convolution(
    x: jax.Array, kernel: jax.Array, stride: int, groups: int, padding: PaddingName | int
) -> jax.Array:
    """[B, H, W, C] convolved with a kernel [h, w, C / groups, features] of its dtype; see `Conv`."""
    strides, size = (stride, stride), kernel.shape[:2]
    if padding == "same":
        pads = jax.lax.padtype_to_pads(x.shape[1:3], size, strides, "SAME")
    elif isinstance(padding, int):
        pads = [(padding, padding)] * 2
    else:
        pads = [(n // 2, n // 2) for n in size]
    if groups == x.shape[-1] == kernel.shape[-1] and groups > 1 and jax.default_backend() == "cpu":
        padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        return depthwise_by_shifts(padded, kernel[:, :, 0], stride)
    return jax.lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=DIMENSIONS, feature_group_count=groups
    )
