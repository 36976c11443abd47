"""Attention: one function and one module for every model.

`attention` is the function: it takes queries, keys and values in heads and picks an implementation. `Attention` is
the module around it: self-attention or cross-attention, with as many key heads as query heads or fewer (Ainslie et
al. 2023), rotary positions, and a cache that comes in and goes out as a value. Masks are `masks.Mask`, relative
positions a `bias`.
"""

from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxformer.config.fields import left_out
from jaxformer.models.base import Layer
from jaxformer.models.dense import HeadsIn, HeadsOut, Initializer, xavier
from jaxformer.models.dropout import Dropout
from jaxformer.models.fused import KERNELS, fused_attention, in_parts, say
from jaxformer.models.masks import KeyValues, Mask, written
from jaxformer.models.norms import RMSNorm
from jaxformer.models.placement import platform
from jaxformer.models.remat import ATTENTION, named
from jaxformer.models.rotary import apply_rotary

MaybeArray: TypeAlias = Array | None
ATTENTION_MAPS = "attention_maps"
# Instead of -inf where a mask is False: a row that is masked all over then gets equal weights, not NaN.
MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)
SEES_ALL = Mask()


def attention_weights(
    query: Array, key: Array, *, bias: MaybeArray = None, mask: MaybeArray = None, scale: float
) -> Array:
    """softmax(scale query key^T + bias), in float32 (Vaswani et al. 2017, equation 1).

    Args:
      query: [B, H, T, Dh].
      key: [B, Hkv, S, Dh]; Hkv divides H, and consecutive query heads share a key head.
      bias: what is added before the softmax, broadcast to [B, H, T, S].
      mask: bool, broadcast to [B, H, T, S]; where False, the weight is 0.
      scale: of the logits, 1 / sqrt(Dh) as published.

    Returns:
      float32 [B, H, T, S]; rows sum to 1.
    """
    scaled = query if scale == 1 else query * jnp.asarray(scale, query.dtype)
    logits = head_product(scaled, key, 3)
    if bias is not None:
        logits = logits + jnp.broadcast_to(bias, logits.shape).astype(jnp.float32)
    if mask is not None:
        logits = jnp.where(jnp.broadcast_to(mask, logits.shape), logits, MASKED)
    return jax.nn.softmax(logits, axis=-1)


def attend(weights: Array, value: Array) -> Array:
    """The values [B, Hkv, S, Dh], averaged by weights [B, H, T, S]: [B, H, T, Dh]."""
    return head_product(weights.astype(value.dtype), value, 2).astype(value.dtype)


def attention(
    query: Array, key: Array, value: Array, *, bias: MaybeArray = None, mask: Mask = SEES_ALL, scale: float
) -> Array:
    """Scaled dot-product attention, by the implementation that suits the platform and the arguments.

    Args:
      query: [B, H, T, Dh].
      key: [B, Hkv, S, Dh].
      value: [B, Hkv, S, Dh].
      bias: as in `attention_weights`.
      mask: which keys each query sees.
      scale: of the logits.

    Returns:
      [B, H, T, Dh] in the dtype of `value`.
    """
    fused = fused_attention(query, key, value, bias, mask, scale)
    return in_parts(xla_attention, query, key, value, bias, mask, scale) if fused is None else fused


def xla_attention(
    query: Array, key: Array, value: Array, bias: MaybeArray, mask: Mask, scale: float
) -> Array:
    """Attention as XLA has it; see `attention`."""
    allowed = mask.array(query.shape[2], key.shape[2])
    if platform() == "cpu":  # XLA's batched products are in float32 there, whatever comes in
        operands = (x.astype(jnp.float32) for x in (query, key, value))
        return plain_attention(*operands, bias, allowed, scale).astype(value.dtype)
    return plain_attention(query, key, value, bias, allowed, scale)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def plain_attention(
    query: Array, key: Array, value: Array, bias: MaybeArray, mask: MaybeArray, scale: float
) -> Array:
    """Attention as two batched products around a softmax, with its backward pass written out.

    As autodiff has it, the softmax's backward pass reads and writes [B, H, T, S] once more: the weights' sum in it
    is that of result times gradient over the head's Dh (Dao et al. 2022, FlashAttention, appendix B.2).
    """
    return plain_attention_forward(query, key, value, bias, mask, scale)[0]


def plain_attention_forward(
    query: Array, key: Array, value: Array, bias: MaybeArray, mask: MaybeArray, scale: float
) -> tuple[Array, Any]:
    """The result, and what the backward pass needs."""
    weights = attention_weights(query, key, bias=bias, mask=mask, scale=scale).astype(value.dtype)
    weights = named(weights, ATTENTION)
    result = named(attend(weights, value), ATTENTION)
    return result, (query, key, value, bias, weights, result)


def plain_attention_backward(scale: float, saved: Any, gradient: Array) -> tuple[MaybeArray, ...]:
    """The gradients of query, key, value and bias from the result's; the mask has none."""
    query, key, value, bias, weights, result = saved
    of_weights = head_product(gradient, value, 3)  # [B, H, T, S]
    shared = jnp.sum(gradient.astype(jnp.float32) * result.astype(jnp.float32), axis=-1, keepdims=True)
    of_logits = (of_weights - shared) * weights.astype(jnp.float32)
    scaled = (of_logits * scale).astype(query.dtype)
    of_query = head_product(scaled, key, 2).astype(query.dtype)
    of_key = summed_over_queries(scaled, query, key.shape[1]).astype(key.dtype)
    of_value = summed_over_queries(weights, gradient, value.shape[1]).astype(value.dtype)
    of_bias = None if bias is None else summed_to(of_logits, bias.shape).astype(bias.dtype)
    return of_query, of_key, of_value, of_bias, None


plain_attention.defvjp(plain_attention_forward, plain_attention_backward)


def head_product(x: Array, y: Array, y_axis: int) -> Array:
    """The product of x [B, H, T, n] with each head's own y [B, Hkv, ., .] over the last axis and `y_axis`; float32.

    Query heads that share a key head are its rows, so that no key is repeated in memory.
    """
    heads = x.shape[1]
    dimensions = (((3,), (y_axis,)), ((0, 1), (0, 1)))
    z = jax.lax.dot_general(grouped(x, y.shape[1]), y, dimensions, preferred_element_type=jnp.float32)
    return z.reshape(z.shape[0], heads, -1, z.shape[-1])


def summed_over_queries(x: Array, y: Array, kv_heads: int) -> Array:
    """x^T y of each key head, summed over its queries: x [B, H, T, S], y [B, H, T, Dh], [B, Hkv, S, Dh]; float32."""
    dimensions = (((2,), (2,)), ((0, 1), (0, 1)))
    x, y = grouped(x, kv_heads), grouped(y, kv_heads)
    return jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)


def grouped(x: Array, kv_heads: int) -> Array:
    """[B, H, T, n] as [B, Hkv, H / Hkv T, n]: the queries of all heads that share a key head, one after the other."""
    batch, heads, tokens, n = x.shape
    return x if heads == kv_heads else x.reshape(batch, kv_heads, heads // kv_heads * tokens, n)


def summed_to(x: Array, shape: tuple[int, ...]) -> Array:
    """`x` added up over the axes along which an array of `shape` was broadcast to it."""
    padded = (1,) * (x.ndim - len(shape)) + shape
    axes = tuple(i for i, (n, p) in enumerate(zip(x.shape, padded)) if p == 1 and n > 1)
    return jnp.sum(x, axis=axes, keepdims=True).reshape(shape)


class Attention(Layer):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2)."""

    num_heads: int
    """Query heads H."""
    num_kv_heads: int | None = None
    """Heads of keys and values, each shared by as many query heads: 1 is multi-query attention (Shazeer
    2019), fewer than H grouped-query (Ainslie et al. 2023). None: H."""
    head_dim: int | None = None
    """Dh; None: the width over H."""
    qkv_bias: bool = True
    """Whether query, key and value have biases."""
    out_bias: bool = True
    """Whether the output has one."""
    scale: float | None = None
    """The factor of the logits; None: 1 / sqrt(Dh). With 1, as T5 has it, the query's kernel starts smaller."""
    qk_norm: bool = False
    """Normalises queries and keys (Dehghani et al. 2023, ViT-22B, section 2.1), with RMSNorm."""
    norm_epsilon: float = 1e-6
    """Added to the mean square in these norms."""
    dropout: float = 0.0
    """Rate of dropout of the attention weights."""
    kernel_init: Initializer = xavier
    """Initial values of the kernels of query, key and value."""
    out_init: Initializer = xavier
    """Initial values of the output's kernel."""
    prefix: int = 0
    """Learned keys and values behind those of the tokens, without positions, which every query sees (Li and Liang 2021,
    section 4); 0: there are none."""
    out_features: int | None = None
    """Width of the output; None: that of the tokens that ask."""

    @nn.compact
    def __call__(
        self,
        x: Array,
        context: MaybeArray = None,
        *,
        mask: Mask = SEES_ALL,
        bias: MaybeArray = None,
        rotary: tuple[Array, Array] | None = None,
        positions: tuple[Array, Array] | None = None,
        cache: KeyValues | None = None,
        slot: MaybeArray = None,
        deterministic: bool = True,
    ) -> tuple[Array, KeyValues]:
        """Attends from `x` [B, T, D] to `context` [B, S, D], to `x` itself if None, or to a cache.

        If the collection "attention_maps" is mutable, the weights [B, H, T, S] are sown into it, as "weights".

        Args:
          x: what asks.
          context: what is asked, in cross-attention.
          mask: which keys each query sees.
          bias: as in `attention_weights`.
          rotary: `Rotary.tables` of the positions of `x`, in self-attention.
          positions: what is added to what asks and to what is asked for queries and keys, but not for values (Carion et
            al. 2020, appendix A.3), [B, T, D] and [B, S, D].
          cache: keys and values from before; with `slot` those of `x` are written into it, without it they are
            all that there is.
          slot: int32 [], where in the cache's S places the first token of `x` goes.
          deterministic: whether there is no dropout.

        Returns:
          [B, T, D], and the keys and values that were attended to.
        """
        head_dim = self.head_dim or x.shape[-1] // self.num_heads
        kv_heads = self.num_kv_heads or self.num_heads
        scale = head_dim**-0.5 if self.scale is None else self.scale

        def project(name: str, heads: int, y: Array, init: Initializer) -> Array:
            fields = {"use_bias": self.qkv_bias, "kernel_init": init, **self.dtypes}
            return HeadsIn(heads, head_dim, **fields, name=name)(y)  # [B, H, T, Dh]

        def prepared(name: str, y: Array) -> Array:
            if self.qk_norm:
                y = RMSNorm(self.norm_epsilon, **self.dtypes, name=f"{name}_norm")(y)
            return y if rotary is None else apply_rotary(y, rotary)

        smaller = head_dim**-0.5 / scale
        query_init = self.kernel_init if smaller == 1 else lambda *args: smaller * self.kernel_init(*args)
        asks = x if positions is None else x + positions[0]
        query = prepared("query", project("query", self.num_heads, asks, query_init))
        if cache is None or slot is not None:
            source = x if context is None else context
            asked = source if positions is None else source + positions[1]
            key = prepared("key", project("key", kv_heads, asked, self.kernel_init))
            value = project("value", kv_heads, source, self.kernel_init)
            if cache is not None and slot is not None:
                key, value = written(cache.key, key, slot, 2), written(cache.value, value, slot, 2)
        else:
            key, value = cache.key, cache.value
        kept = KeyValues(key, value)
        if self.prefix:
            if (allowed := mask.array(query.shape[2], key.shape[2])) is not None:
                more = ((0, 0), (0, 0), (0, 0), (0, self.prefix))
                mask = Mask(allowed=jnp.pad(allowed, more, constant_values=True))
            bias = bias if bias is None else jnp.pad(bias, ((0, 0), (0, 0), (0, 0), (0, self.prefix)))
            key, value = self.with_prefix("key", key), self.with_prefix("value", value)
        choices: dict[str, Any] = {"bias": bias, "mask": mask, "scale": scale, "dropout": self.dropout}
        attended = sown_attention(self, query, key, value, **choices, deterministic=deterministic)
        features, biased = self.out_features or x.shape[-1], self.out_bias
        out = HeadsOut(features, use_bias=biased, kernel_init=self.out_init, **self.dtypes, name="out")
        return out(attended), kept

    def with_prefix(self, name: str, x: Array) -> Array:
        """Keys or values [B, Hkv, S, Dh] and the learned ones behind them, [B, Hkv, S + prefix, Dh]."""
        batch, heads, _, size = x.shape
        init = nn.initializers.normal(0.02)
        learned = self.param(f"prefix_{name}", init, (heads, self.prefix, size), self.param_dtype)
        learned = jnp.broadcast_to(learned.astype(x.dtype), (batch, heads, self.prefix, size))
        return jnp.concatenate([x, learned], axis=2)


def sown_attention(
    layer: Layer,
    query: Array,
    key: Array,
    value: Array,
    *,
    bias: MaybeArray = None,
    mask: Mask = SEES_ALL,
    scale: float,
    dropout: float = 0.0,
    deterministic: bool = True,
) -> Array:
    """`attention` in a layer, with dropout of the weights.

    If the collection "attention_maps" is mutable, the weights [B, H, T, S] are sown into it, as "weights".
    """
    asked_for = layer.is_mutable_collection(ATTENTION_MAPS) and not layer.is_initializing()
    if not asked_for and (left_out(dropout) or deterministic):
        return attention(query, key, value, bias=bias, mask=mask, scale=scale)
    if not asked_for and platform() in KERNELS:
        say("xla (dropout of the attention weights, whose bits no kernel draws)")
    allowed = mask.array(query.shape[2], key.shape[2])
    weights = named(attention_weights(query, key, bias=bias, mask=allowed, scale=scale), ATTENTION)
    if asked_for:
        layer.put_variable(ATTENTION_MAPS, "weights", weights)
    return named(attend(Dropout(dropout)(weights, deterministic=deterministic), value), ATTENTION)
