"""Convolutions: plain, grouped, depthwise, and with standardised weights; and depthwise ones for CPUs."""

from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.models.base import Layer
from jaxformer.models.dense import Initializer, product
from jaxformer.models.placement import platform

# Variance 2 / fan_out, as in PyTorch's ResNets (He et al. 2015).
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# Variance 2 / fan_in, which of a depthwise kernel is its fan out, too.
he_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
truncated_normal = nn.initializers.truncated_normal(0.02)  # as in timm's and the authors' Transformers
PaddingName: TypeAlias = Literal["even", "same"]
StandardizationName: TypeAlias = Literal["bit", "vit_jax", "timm"]


# How a kernel is standardised: a small number, and what it is added to: the "variance", below the root, or the
# standard "deviation".
STANDARDIZATIONS: dict[StandardizationName, tuple[float, Literal["variance", "deviation"]]] = {
    "bit": (1e-10, "variance"),  # google-research/big_transfer, bit_jax/models.py
    "vit_jax": (1e-5, "deviation"),  # google-research/vision_transformer, models_resnet.py
    "timm": (1e-8, "variance"),  # timm's BiT and hybrid ViTs
}


def standardized(kernel: jax.Array, kind: StandardizationName) -> jax.Array:
    """The kernel [h, w, C, features] with a mean of 0 and a variance of 1 for each of the features; float32.

    As in Weight Standardization (Qiao et al. 2019, equation 7).
    """
    epsilon, added_to = STANDARDIZATIONS[kind]
    kernel = kernel.astype(jnp.float32)
    centred = kernel - jnp.mean(kernel, axis=(0, 1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=(0, 1, 2), keepdims=True)
    if added_to == "variance":
        return centred * jax.lax.rsqrt(variance + epsilon)
    return centred / (jnp.sqrt(variance) + epsilon)


class Conv(Layer):
    """A convolution, NHWC.

    On CPUs a 1x1 is a product and a depthwise convolution a sum of shifted products, which is several times quicker
    there (`depthwise_by_shifts`). XLA has the others: as patches and a product they were no quicker.
    """

    features: int
    """Number of output channels."""
    kernel_size: int | tuple[int, int] = 3
    """Height and width of the kernel, or one number for both."""
    stride: int = 1
    """Stride of both directions."""
    use_bias: bool = False
    """Whether there is a bias."""
    groups: int = 1
    """Number of groups of channels, each with kernels of its own."""
    depthwise: bool = False
    """Whether every channel is a group."""
    padding: PaddingName | int = "even"
    """ "even" pads both sides by half the kernel's size, rounded down, as PyTorch's models do; "same" as
    little as TensorFlow does, and more at the end; a number pads all sides by that much."""
    standardize: StandardizationName | None = None
    """How the kernel is standardised, a key of STANDARDIZATIONS; None: it is not."""
    kernel_init: Initializer = he_fan_out
    """Initializer of the kernel [h, w, C / groups, features]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]; even kernels need "same"."""
        channels = x.shape[-1]
        groups = channels if self.depthwise else self.groups
        size = (self.kernel_size,) * 2 if isinstance(self.kernel_size, int) else self.kernel_size
        shape = (*size, channels // groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        if self.standardize is not None:
            kernel = standardized(kernel, self.standardize)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        if size == (1, 1) and groups == 1:
            return product(x[:, :: self.stride, :: self.stride], kernel[0, 0], bias, self.dtype)
        x, kernel, strides = x.astype(self.dtype), kernel.astype(self.dtype), (self.stride, self.stride)
        if self.padding == "same":
            pads = jax.lax.padtype_to_pads(x.shape[1:3], size, strides, "SAME")
        else:
            fixed = self.padding if isinstance(self.padding, int) else None
            pads = [(n // 2, n // 2) if fixed is None else (fixed, fixed) for n in size]
        if groups == channels == self.features and groups > 1 and platform() == "cpu":
            y = depthwise_by_shifts(jnp.pad(x, ((0, 0), *pads, (0, 0))), kernel[:, :, 0], self.stride)
        else:
            layout: dict[str, Any] = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
            y = jax.lax.conv_general_dilated(x, kernel, strides, pads, feature_group_count=groups, **layout)
        return y if bias is None else y + jnp.broadcast_to(bias.astype(self.dtype), y.shape)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_by_shifts(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves each channel with its kernel, as a sum of shifted products, added up in float32.

    On CPUs the convolution of XLA took 5 to 20 times as long, forwards and backwards, for kernels of 3x3 and 7x7.

    Args:
      x: [B, H, W, C], padded.
      kernel: [h, w, C].
      stride: of both directions.

    Returns:
      [B, (H - h) // stride + 1, (W - w) // stride + 1, C] in the dtype of `x`.
    """
    return shifted_products(x, kernel, stride)


@partial(jax.jit, static_argnums=2)
def shifted_products(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The result of `depthwise_by_shifts`; under jit for its name, by which `flops.py` counts it as a convolution."""
    h, w, channels = kernel.shape
    height, width = (x.shape[1] - h) // stride + 1, (x.shape[2] - w) // stride + 1
    x32, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    y = jnp.zeros((x.shape[0], height, width, channels), jnp.float32)
    for i, j in np.ndindex(h, w):
        seen = x32[:, i::stride, j::stride][:, :height, :width]
        y = y + seen * jnp.broadcast_to(kernel[i, j], y.shape)
    return y.astype(x.dtype)


def depthwise_forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, Any]:
    """The result, and what the backward pass needs."""
    return shifted_products(x, kernel, stride), (x, kernel)


def depthwise_backward(stride: int, saved: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gradients of x and kernel from the result's."""
    x, kernel = saved
    (h, w, _), (_, height, width, _) = kernel.shape, gradient.shape
    # Of x: the gradients, apart by the stride, under the kernel turned round.
    rest = [x.shape[1] - (height - 1) * stride - 1, x.shape[2] - (width - 1) * stride - 1]
    spread = ((0, 0, 0), (h - 1, rest[0], stride - 1), (w - 1, rest[1], stride - 1), (0, 0, 0))
    padded = jax.lax.pad(gradient, jnp.zeros((), gradient.dtype), spread)
    of_x = shifted_products(padded, kernel[::-1, ::-1], 1)

    # Of the kernel: row by row, so that what is read h w times stays in the cache.
    def with_row(row: jax.Array, total: jax.Array) -> jax.Array:
        of_row = jax.lax.dynamic_slice_in_dim(gradient, row, 1, 1).astype(jnp.float32)  # [B, 1, width, C]
        seen = jax.lax.dynamic_slice_in_dim(x, row * stride, h, 1).astype(jnp.float32)  # [B, h, W, C]
        columns = []
        for j in range(w):
            here = seen[:, :, j::stride][:, :, :width]  # [B, h, width, C]
            columns.append(jnp.sum(here * jnp.broadcast_to(of_row, here.shape), axis=(0, 2)))
        return total + jnp.stack(columns, 1)

    of_kernel = jax.lax.fori_loop(0, height, with_row, jnp.zeros(kernel.shape, jnp.float32))
    return of_x.astype(x.dtype), of_kernel.astype(kernel.dtype)


depthwise_by_shifts.defvjp(depthwise_forward, depthwise_backward)
