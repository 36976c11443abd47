"""Products with parameters: dense layers, with and without a head axis in their kernels, and tables of vectors."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.experimental.layout import Layout, with_layout_constraint

from jaxformer.models.base import Layer
from jaxformer.models.placement import platform, splits_tokens
from jaxformer.models.remat import PRODUCT, named

Dtype = Any
Shape = tuple[int, ...]
Initializer = Callable[..., Array]
xavier = nn.initializers.xavier_uniform()  # as in google-research/vision_transformer


class Projection(Layer, kw_only=True):
    """The base of layers that are one product."""

    use_bias: bool = True
    """Whether there is a bias."""
    kernel_init: Initializer = xavier
    """Initial values of the kernel, as a matrix [in, out]."""

    @nn.nowrap
    def projected(
        self, x: Array, inputs: Shape, outputs: Shape, bias_init: Initializer = nn.initializers.zeros
    ) -> Array:
        """x [..., in] times the kernel [*inputs, *outputs], plus the bias, both made here: [..., out]."""
        shape = (*inputs, *outputs)
        kernel = self.param("kernel", flat(self.kernel_init, len(inputs)), shape, self.param_dtype)
        bias = self.param("bias", bias_init, outputs, self.param_dtype).reshape(-1) if self.use_bias else None
        return product(x, kernel.reshape(x.shape[-1], -1), bias, self.dtype)


class Dense(Projection):
    """x @ kernel + bias."""

    features: int
    """The size of the last axis of the result."""
    bias_init: Initializer = nn.initializers.zeros
    """Initial values of the bias [features]."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., in] to [..., features]."""
        return self.projected(x, x.shape[-1:], (self.features,), self.bias_init)


class HeadsIn(Projection):
    """From the width to heads: kernel [D, H, Dh], bias [H, Dh]."""

    num_heads: int
    """H."""
    head_dim: int
    """Dh."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, T, D] to [B, H, T, Dh]."""
        heads = (self.num_heads, self.head_dim)
        y = apart(self.projected(x, x.shape[-1:], heads))  # [B, T, H Dh]
        return y.reshape(*x.shape[:-1], *heads).swapaxes(1, 2)


class HeadsOut(Projection):
    """From heads to the width: kernel [H, Dh, D], bias [D]."""

    features: int
    """D."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, T, Dh] to [B, T, D]."""
        batch, heads, tokens, head_dim = x.shape
        joined = x.swapaxes(1, 2).reshape(batch, tokens, heads * head_dim)
        return self.projected(apart(joined), (heads, head_dim), (self.features,))


class Embedding(Layer):
    """A vector for each number, and the way back from vectors to numbers (Press and Wolf 2017)."""

    rows: int
    """How many numbers V."""
    features: int
    """D."""
    table_init: Initializer = nn.initializers.normal(0.02)
    """Initial values of the table [V, D]."""

    def setup(self) -> None:
        """The table."""
        shape = (self.rows, self.features)
        self.embedding = self.param("embedding", self.table_init, shape, self.param_dtype)

    def __call__(self, ids: Array) -> Array:
        """The vectors [..., D] of `ids` int [...]; what is out of range takes the nearest row."""
        return jnp.take(self.embedding, ids, axis=0, mode="clip").astype(self.dtype)

    def logits(self, x: Array) -> Array:
        """The products of x [..., D] with every row, float32 [..., V]."""
        return unembed(x.astype(self.dtype), self.embedding)


def product(x: Array, kernel: Array, bias: Array | None, dtype: Dtype) -> Array:
    """x @ kernel + bias, computed in `dtype`: x [..., in], kernel [in, out], bias [out] or None."""
    return named(affine(x.astype(dtype), kernel, bias), PRODUCT)


@jax.custom_vjp
def affine(x: Array, kernel: Array, bias: Array | None) -> Array:
    """x @ kernel + bias in the dtype of `x`, accumulated in float32.

    The backward pass is written out. Autodiff takes the kernel's gradient transposed, for which XLA's CPU backend
    first transposes what flows back, strided and fused with all that led to it: a ViT-Ti step took a quarter longer.
    The gradients of kernel and bias stay as they were accumulated, in float32.
    """
    return affine_forward(x, kernel, bias)[0]


def affine_forward(x: Array, kernel: Array, bias: Array | None) -> tuple[Array, Any]:
    """The result, and what `affine_backward` needs."""
    y = accumulated(x, kernel.astype(x.dtype), x.ndim - 1, 0).astype(x.dtype)
    if bias is not None:
        y = y + jnp.broadcast_to(bias.astype(x.dtype), y.shape)
    return y, (x, kernel, bias)


def affine_backward(saved: Any, gradient: Array) -> tuple[Array, Array, Array | None]:
    """The gradients of x, kernel and bias from the result's."""
    x, kernel, bias = saved
    of_x = accumulated(gradient, kernel.astype(x.dtype), gradient.ndim - 1, 1).astype(x.dtype)
    of_kernel = over_rows(x, gradient).astype(kernel.dtype)
    return of_x, of_kernel, None if bias is None else sum_of_rows(gradient).astype(bias.dtype)


def accumulated(x: Array, y: Array, x_axis: int, y_axis: int) -> Array:
    """The product that sums over one axis of each, in float32."""
    dimensions = (((x_axis,), (y_axis,)), ((), ()))
    return jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)


def apart(x: Array) -> Array:
    """`x`, across which XLA moves nothing on TPUs: there the axes of heads cancel between a product and a kernel of
    attention, and would else be moved into the products of the backward pass, as copies of all tokens."""
    return jax.lax.optimization_barrier(x) if platform() == "tpu" else x


def over_rows(x: Array, y: Array) -> Array:
    """x^T y of all vectors: [..., n] and [..., m] to [n, m], in float32.

    On CPUs the axes in front are joined, and bfloat16 is moved: XLA's product of it wants the summed axis last in
    memory there, and where it is not, converts both operands to float32, which takes more than twice as long. Elsewhere
    all axes are summed over as they lie: on TPUs joining them copies texts of no multiple of 8 tokens, as 197 patches.
    So they are where a mesh splits two of them: to join them, XLA would gather the arrays.
    """
    if platform() != "cpu" or splits_tokens():
        axes = tuple(range(x.ndim - 1))
        return jax.lax.dot_general(x, y, ((axes, axes), ((), ())), preferred_element_type=jnp.float32)
    rows = x.reshape(-1, x.shape[-1]).swapaxes(0, 1)
    if x.dtype == jnp.bfloat16:
        rows = with_layout_constraint(rows, Layout((0, 1)))
    return accumulated(rows, y.reshape(-1, y.shape[-1]), 1, 0)


def sum_of_rows(x: Array) -> Array:
    """[..., n] added up to float32 [n], as a product with ones: a sum of bfloat16 is slow on CPUs, and on TPUs takes up
    to 25 times as many cycles. There XLA makes a sum of a product with one row, and none of one with 8."""
    ones = jnp.ones((*x.shape[:-1], 8 if platform() == "tpu" else 1), x.dtype)
    return over_rows(ones, x)[0]


affine.defvjp(affine_forward, affine_backward)


def flat(init: Initializer, inputs: int) -> Initializer:
    """An initializer of a kernel whose first `inputs` axes go in; it sees a matrix, so that fans come out right."""

    def initialize(key: Array, shape: Shape, dtype: Dtype) -> Array:
        matrix = (math.prod(shape[:inputs]), math.prod(shape[inputs:]))
        return init(key, matrix, dtype).reshape(shape)

    return initialize


@jax.custom_vjp
def unembed(x: Array, table: Array) -> Array:
    """x table^T, float32 [..., V], from x [..., D] and a table [V, D]; computed in the dtype of `x`.

    The backward pass is written out, as in `affine`: products of operands in that dtype, added up in float32.
    """
    return unembed_forward(x, table)[0]


def unembed_forward(x: Array, table: Array) -> tuple[Array, Any]:
    """The result, and what `unembed_backward` needs."""
    return accumulated(x, table.astype(x.dtype), x.ndim - 1, 1), (x, table)


def unembed_backward(saved: Any, gradient: Array) -> tuple[Array, Array]:
    """The gradients of x and table from the result's."""
    x, table = saved
    gradient = gradient.astype(x.dtype)
    of_x = accumulated(gradient, table.astype(x.dtype), gradient.ndim - 1, 0).astype(x.dtype)
    return of_x, over_rows(gradient, x).astype(table.dtype)


unembed.defvjp(unembed_forward, unembed_backward)
