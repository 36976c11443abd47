"""Dense layers, with and without a head axis in their kernels."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

Dtype = Any
Initializer = Callable[..., jax.Array]
xavier = nn.initializers.xavier_uniform()  # as in google-research/vision_transformer


class Dense(nn.Module):
    """x @ kernel + bias.

    Attributes:
      features: the size of the last axis of the result.
      kernel_init: of the kernel [in, features].
      bias_init: of the bias [features].
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    features: int
    kernel_init: Initializer = xavier
    bias_init: Initializer = nn.initializers.zeros
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., in] to [..., features]."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        return product(x, kernel, bias, self.dtype)


class HeadsIn(nn.Module):
    """From the width to heads: kernel [D, H, Dh], bias [H, Dh].

    Attributes:
      num_heads: H.
      head_dim: Dh.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    num_heads: int
    head_dim: int
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, D] to [B, H, T, Dh]."""
        heads = (self.num_heads, self.head_dim)
        kernel = self.param("kernel", flat(xavier, 1), (x.shape[-1], *heads), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, heads, self.param_dtype)
        projected = product(x, kernel.reshape(x.shape[-1], -1), bias.reshape(-1), self.dtype)  # [B, T, H Dh]
        return projected.reshape(*x.shape[:-1], *heads).swapaxes(1, 2)


class HeadsOut(nn.Module):
    """From heads to the width: kernel [H, Dh, D], bias [D].

    Attributes:
      features: D.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    features: int
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, T, Dh] to [B, T, D]."""
        batch, heads, tokens, head_dim = x.shape
        kernel = self.param("kernel", flat(xavier, 2), (heads, head_dim, self.features), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        joined = x.swapaxes(1, 2).reshape(batch, tokens, heads * head_dim)
        return product(joined, kernel.reshape(heads * head_dim, self.features), bias, self.dtype)


def product(x: jax.Array, kernel: jax.Array, bias: jax.Array, dtype: Dtype) -> jax.Array:
    """x @ kernel + bias, in `dtype`."""
    y = jnp.dot(x.astype(dtype), kernel.astype(dtype))
    return y + jnp.broadcast_to(bias.astype(dtype), y.shape)


def flat(init: Initializer, inputs: int) -> Initializer:
    """An initializer of a kernel whose first `inputs` axes go in; it sees a matrix, so that fans come out right."""

    def initialize(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
        matrix = (math.prod(shape[:inputs]), math.prod(shape[inputs:]))
        return init(key, matrix, dtype).reshape(shape)

    return initialize
