"""Attention: one function and one module for every model.

What later models need goes in without touching callers: a causal or windowed mask and segment ids are a `mask`,
relative positions a `bias`; rotary positions turn `query` and `key` in the module, a key-value cache hands it
its `context`, and fewer key heads than query heads are repeated below the function.
"""

import logging
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.dense import HeadsIn, HeadsOut
from jaxformer.models.norms import RMSNorm

logger = logging.getLogger("jaxformer")
Dtype = Any
ATTENTION_MAPS = "attention_maps"
# Instead of -inf where a mask is False: a row that is masked all over then gets equal weights, not NaN.
MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)


def attention_weights(
    query: jax.Array, key: jax.Array, *, bias: jax.Array | None = None, mask: jax.Array | None = None
) -> jax.Array:
    """softmax(query key^T / sqrt(head_dim) + bias), in float32 (Vaswani et al. 2017, equation 1).

    Args:
      query: [B, H, T, Dh].
      key: [B, H, S, Dh].
      bias: what is added before the softmax, broadcast to [B, H, T, S].
      mask: bool, broadcast to [B, H, T, S]; where False, the weight is 0.

    Returns:
      float32 [B, H, T, S]; rows sum to 1.
    """
    scaled = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    logits = head_product(scaled, key, 3, 3)
    if bias is not None:
        logits = logits + jnp.broadcast_to(bias, logits.shape).astype(jnp.float32)
    if mask is not None:
        logits = jnp.where(jnp.broadcast_to(mask, logits.shape), logits, MASKED)
    return jax.nn.softmax(logits, axis=-1)


def attend(weights: jax.Array, value: jax.Array) -> jax.Array:
    """The values [B, H, S, Dh], averaged by weights [B, H, T, S]: [B, H, T, Dh]."""
    return head_product(weights.astype(value.dtype), value, 3, 2).astype(value.dtype)


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Scaled dot-product attention, by the implementation that suits the platform and the arguments.

    Args:
      query: [B, H, T, Dh].
      key: [B, H, S, Dh].
      value: [B, H, S, Dh].
      bias: as in `attention_weights`.
      mask: as in `attention_weights`.

    Returns:
      [B, H, T, Dh] in the dtype of `value`.
    """
    plain = bias is None and mask is None
    if implementation(jax.default_backend(), str(query.dtype), query.shape[-1], plain) == "cudnn":
        tokens_first = (x.swapaxes(1, 2) for x in (query, key, value))  # [B, T, H, Dh]
        return jax.nn.dot_product_attention(*tokens_first, implementation="cudnn").swapaxes(1, 2)
    if jax.default_backend() == "cpu":  # XLA's batched products are in float32 there, whatever comes in
        operands = (x.astype(jnp.float32) for x in (query, key, value))
        return plain_attention(*operands, bias, mask).astype(value.dtype)
    return plain_attention(query, key, value, bias, mask)


@jax.custom_vjp
def plain_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None, mask: jax.Array | None
) -> jax.Array:
    """Attention as two batched products around a softmax, with its backward pass written out.

    As autodiff has it, the softmax's backward pass reads and writes [B, H, T, S] once more: the weights' sum in it
    is that of result times gradient over the head's Dh (Dao et al. 2022, FlashAttention, appendix B.2).
    """
    return plain_attention_forward(query, key, value, bias, mask)[0]


def plain_attention_forward(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None, mask: jax.Array | None
) -> tuple[jax.Array, Any]:
    """The result, and what the backward pass needs."""
    weights = attention_weights(query, key, bias=bias, mask=mask).astype(value.dtype)
    result = attend(weights, value)
    return result, (query, key, value, bias, weights, result)


def plain_attention_backward(saved: Any, gradient: jax.Array) -> tuple[jax.Array | None, ...]:
    """The gradients of query, key, value and bias from the result's; the mask has none."""
    query, key, value, bias, weights, result = saved
    of_weights = head_product(gradient, value, 3, 3)  # [B, H, T, S]
    shared = jnp.sum(gradient.astype(jnp.float32) * result.astype(jnp.float32), axis=-1, keepdims=True)
    of_logits = (of_weights - shared) * weights.astype(jnp.float32)
    scaled = (of_logits * query.shape[-1] ** -0.5).astype(query.dtype)
    of_query = head_product(scaled, key, 3, 2).astype(query.dtype)
    of_key = head_product(scaled, query, 2, 2).astype(key.dtype)
    of_value = head_product(weights, gradient, 2, 2).astype(value.dtype)
    of_bias = None if bias is None else summed_to(of_logits, bias.shape).astype(bias.dtype)
    return of_query, of_key, of_value, of_bias, None


plain_attention.defvjp(plain_attention_forward, plain_attention_backward)


def head_product(x: jax.Array, y: jax.Array, x_axis: int, y_axis: int) -> jax.Array:
    """For each example and head, the product that sums over one axis of each; float32."""
    dimensions = (((x_axis,), (y_axis,)), ((0, 1), (0, 1)))
    return jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)


def summed_to(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`x` added up over the axes along which an array of `shape` was broadcast to it."""
    padded = (1,) * (x.ndim - len(shape)) + shape
    axes = tuple(i for i, (n, p) in enumerate(zip(x.shape, padded)) if p == 1 and n > 1)
    return jnp.sum(x, axis=axes, keepdims=True).reshape(shape)


@cache
def implementation(backend: str, dtype: str, head_dim: int, plain: bool) -> str:
    """Which implementation `attention` takes, "cudnn" or "xla"; the log says so, once for each case.

    cuDNN's fused kernel wants a GPU from Ampere on, 16-bit operands and a head size of at most 128 that is a
    multiple of 8; with a bias it has no backward pass for odd lengths. XLA's form is two batched products, in
    the order [B, H, T, Dh], the quickest that was measured on CPUs.
    """
    reasons = {
        f"backend {backend}": backend != "gpu",
        f"operands {dtype}": dtype not in ("bfloat16", "float16"),
        f"head size {head_dim}": head_dim % 8 != 0 or head_dim > 128,
        "a bias or mask": not plain,
        "a GPU before Ampere": backend == "gpu" and compute_capability() < (8, 0),
    }
    against = [reason for reason, holds in reasons.items() if holds]
    chosen = "xla" if against else "cudnn"
    logger.info("attention: %s (%s)", chosen, ", ".join(against) or f"{dtype}, head size {head_dim}")
    return chosen


def compute_capability() -> tuple[int, ...]:
    """That of the first NVIDIA GPU, such as (9, 0); (0,) for GPUs of others."""
    text = getattr(jax.devices()[0], "compute_capability", "")
    return tuple(int(part) for part in text.split(".") if part.isdigit()) or (0,)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2).

    Attributes:
      num_heads: heads; the width must be a multiple.
      qk_norm: normalises queries and keys (Dehghani et al. 2023, ViT-22B, section 2.1), with RMSNorm.
      dropout: of the attention weights.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    num_heads: int
    qk_norm: bool = False
    dropout: float = 0.0
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        *,
        bias: jax.Array | None = None,
        mask: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Attends from `x` [B, T, D] to `context` [B, S, D] (to `x` itself if None); returns [B, T, D].

        If the collection "attention_maps" is mutable, the weights [B, H, T, S] are sown into it, as "weights".
        """
        head_dim = x.shape[-1] // self.num_heads
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        context = x if context is None else context
        query = HeadsIn(self.num_heads, head_dim, **dtypes, name="query")(x)  # [B, H, T, Dh]
        key = HeadsIn(self.num_heads, head_dim, **dtypes, name="key")(context)  # [B, H, S, Dh]
        value = HeadsIn(self.num_heads, head_dim, **dtypes, name="value")(context)
        if self.qk_norm:
            query = RMSNorm(**dtypes, name="query_norm")(query)
            key = RMSNorm(**dtypes, name="key_norm")(key)
        drops = self.dropout > 0 and not deterministic
        asked_for = self.is_mutable_collection(ATTENTION_MAPS) and not self.is_initializing()
        if drops or asked_for:
            weights = attention_weights(query, key, bias=bias, mask=mask)
            if asked_for:
                self.put_variable(ATTENTION_MAPS, "weights", weights)
            attended = attend(nn.Dropout(self.dropout)(weights, deterministic=deterministic), value)
        else:
            attended = attention(query, key, value, bias=bias, mask=mask)
        return HeadsOut(x.shape[-1], **dtypes, name="out")(attended)
