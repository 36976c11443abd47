"""Attention: one function and one module for every model."""

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


def attention_weights(query: jax.Array, key: jax.Array, *, bias: jax.Array | None = None) -> jax.Array:
    """softmax(query key^T / sqrt(head_dim) + bias), in float32 (Vaswani et al. 2017, equation 1).

    Args:
      query: [B, H, T, Dh].
      key: [B, H, S, Dh].
      bias: what is added before the softmax, broadcast to [B, H, T, S]; -inf leaves a position out.

    Returns:
      float32 [B, H, T, S]; rows sum to 1.
    """
    scaled = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    logits = jnp.einsum("bhtd,bhsd->bhts", scaled, key, preferred_element_type=jnp.float32)
    if bias is not None:
        logits = logits + jnp.broadcast_to(bias, logits.shape).astype(jnp.float32)
    return jax.nn.softmax(logits, axis=-1)


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, *, bias: jax.Array | None = None
) -> jax.Array:
    """Scaled dot-product attention, by the implementation that suits the platform and the arguments.

    Args:
      query: [B, H, T, Dh].
      key: [B, H, S, Dh].
      value: [B, H, S, Dh].
      bias: as in `attention_weights`.

    Returns:
      [B, H, T, Dh] in the dtype of `value`.
    """
    if implementation(jax.default_backend(), str(query.dtype), query.shape[-1], bias is not None) == "cudnn":
        heads_inside = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
        return jnp.swapaxes(jax.nn.dot_product_attention(*heads_inside, implementation="cudnn"), 1, 2)
    weights = attention_weights(query, key, bias=bias).astype(value.dtype)
    return jnp.einsum("bhts,bhsd->bhtd", weights, value)


@cache
def implementation(backend: str, dtype: str, head_dim: int, biased: bool) -> str:
    """Which implementation `attention` takes, "cudnn" or "xla"; says so in the log, once for each case.

    cuDNN's fused kernel takes 16-bit operands and head sizes up to 128 that are multiples of 8. XLA's form is two
    batched products; in [B, H, T, Dh] order it is the quickest that was measured on CPUs.
    """
    fits = dtype in ("bfloat16", "float16") and head_dim % 8 == 0 and head_dim <= 128 and not biased
    chosen = "cudnn" if backend == "gpu" and fits else "xla"
    logger.info("attention: %s (%s, %s, head size %d%s)", chosen, backend, dtype, head_dim, ", bias" * biased)
    return chosen


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
        self, x: jax.Array, context: jax.Array | None = None, *, deterministic: bool = True
    ) -> jax.Array:
        """Attends from `x` [B, T, D] to `context` [B, S, D] (to `x` itself if None); returns [B, T, D].

        If the collection "attention_maps" is mutable, the weights [B, H, T, S] are sown into it.
        """
        head_dim = x.shape[-1] // self.num_heads
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        context = x if context is None else context
        query = HeadsIn(self.num_heads, head_dim, **dtypes, name="query")(x)  # [B, H, T, Dh]
        key = HeadsIn(self.num_heads, head_dim, **dtypes, name="key")(context)
        value = HeadsIn(self.num_heads, head_dim, **dtypes, name="value")(context)
        if self.qk_norm:
            query = RMSNorm(**dtypes, name="query_norm")(query)
            key = RMSNorm(**dtypes, name="key_norm")(key)
        drops = self.dropout > 0 and not deterministic
        asked_for = self.is_mutable_collection(ATTENTION_MAPS) and not self.is_initializing()
        if drops or asked_for:
            weights = attention_weights(query, key)
            if asked_for:
                self.sow(
                    ATTENTION_MAPS, "weights", weights, reduce_fn=lambda _, new: new, init_fn=lambda: None
                )
            weights = nn.Dropout(self.dropout)(weights, deterministic=deterministic).astype(value.dtype)
            attended = jnp.einsum("bhts,bhsd->bhtd", weights, value)
        else:
            attended = attention(query, key, value)
        return HeadsOut(x.shape[-1], **dtypes, name="out")(attended)
