"""Attention on TPUs by JAX's splash kernel: a Pallas kernel that computes only what a mask lets through."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxformer.models.masks import Mask

LANES = 128  # of a TPU's vector registers: texts and heads come in multiples of it


def splash_problems(query: Array, key: Array, bias: Array | None, mask: Mask) -> list[str]:
    """Why the kernel cannot be taken, as words for the log.

    Args:
      query: [B, H, T, Dh].
      key: [B, Hkv, S, Dh].
      bias: what would be added to the logits.
      mask: which keys each query sees.
    """
    queries, keys, head_dim = query.shape[2], key.shape[2], query.shape[3]
    by_place = mask.causal or mask.segments is not None
    reasons = {
        "a bias": bias is not None,
        "the mask of a cache": mask.allowed is not None,
        f"{queries} queries and {keys} keys, not multiples of {LANES}": queries % LANES or keys % LANES,
        f"head size {head_dim}, not a multiple of {LANES}": head_dim % LANES,
        "a causal mask or segments between texts of different lengths": by_place and queries != keys,
    }
    return [reason for reason, holds in reasons.items() if holds]


def splash_attention(
    query: Array,
    key: Array,
    value: Array,
    bias: Array | None,
    mask: Mask,
    scale: float,
    interpret: bool = False,
) -> Array:
    """Attention; see `attention.attention`.

    Args:
      query: [B, H, T, Dh].
      key: [B, Hkv, S, Dh].
      value: [B, Hkv, S, Dh].
      bias: none is taken.
      mask: causal, windowed, with segments or with padded keys.
      scale: of the logits.
      interpret: whether the kernel is interpreted, on any platform and slowly.

    Returns:
      [B, H, T, Dh] in the dtype of `value`.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    batch, heads, queries, _ = query.shape
    shape = (queries, key.shape[2])
    if not mask.causal:
        one: Any = masks.FullMask(shape)
    elif mask.window is None:
        one = masks.CausalMask(shape)
    else:
        one = masks.LocalMask(shape, (mask.window - 1, 0), 0)
    attend = kernels.make_splash_mha(
        masks.MultiHeadMask([one] * heads), head_shards=1, q_seq_shards=1, interpret=interpret
    )
    segments = kernels.SegmentIds(*segment_numbers(mask, batch, *shape))
    scaled = query * jnp.asarray(scale, query.dtype)
    of_texts = jax.vmap(lambda q, k, v, ids: attend(q, k, v, segment_ids=ids))
    return of_texts(scaled, key, value, segments).astype(value.dtype)


def segment_numbers(mask: Mask, batch: int, queries: int, keys: int) -> tuple[Array, Array]:
    """Numbers int32 [B, T] and [B, S] that are equal where a query may see a key; padded keys have -1."""
    if mask.segments is None:
        own, theirs = jnp.zeros((batch, queries), jnp.int32), jnp.zeros((batch, keys), jnp.int32)
    else:
        own = theirs = mask.segments.astype(jnp.int32)
    return own, theirs if mask.keys is None else jnp.where(mask.keys, theirs, -1)
