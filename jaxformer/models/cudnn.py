"""Attention on NVIDIA GPUs by cuDNN's fused kernel."""

from dataclasses import replace

import jax
from jax import Array

from jaxformer.models.masks import Mask


def cudnn_problems(query: Array, key: Array, bias: Array | None, mask: Mask) -> list[str]:
    """Why the kernel cannot be taken, as words for the log.

    It wants a GPU from Ampere on, 16-bit operands and a head size of at most 128 that is a multiple of 8. Masks of
    padding and segments are added to the logits, with which it has no backward pass for odd lengths.
    """
    queries, keys, head_dim = query.shape[2], key.shape[2], query.shape[3]
    reasons = {
        f"operands {query.dtype}": query.dtype not in ("bfloat16", "float16"),
        f"head size {head_dim}": head_dim % 8 != 0 or head_dim > 128,
        "a bias": bias is not None,
        f"a mask of padding, segments or a cache with odd lengths, {queries} and {keys}": not mask.is_structural
        and (queries % 2 != 0 or keys % 2 != 0),
        "a GPU before Ampere": compute_capability() < (8, 0),
    }
    return [reason for reason, holds in reasons.items() if holds]


def cudnn_attention(
    query: Array, key: Array, value: Array, bias: Array | None, mask: Mask, scale: float
) -> Array:
    """Attention; see `attention.attention`.

    The kernel takes [B, T, H, Dh] and knows causal masks of whole texts, windowed or not. Other masks are an array
    [B, 1, T, S], the same for all heads. (It also takes lengths and documents' offsets, which nobody knows here, as
    padding may be on the left.)
    """
    knows = mask.causal and mask.parts == 1
    known = Mask(mask.causal, mask.window) if knows else Mask()
    others = replace(mask, causal=False, window=None) if knows else mask
    result = jax.nn.dot_product_attention(
        query.swapaxes(1, 2),
        key.swapaxes(1, 2),
        value.swapaxes(1, 2),
        mask=others.array(query.shape[2], key.shape[2]),
        scale=scale,
        is_causal=known.causal,
        local_window_size=None if known.window is None else (known.window - 1, 0),
        implementation="cudnn",
    )
    return result.swapaxes(1, 2)


def compute_capability() -> tuple[int, ...]:
    """That of the first NVIDIA GPU, such as (9, 0); (0,) for GPUs of others."""
    text = getattr(jax.devices()[0], "compute_capability", "")
    return tuple(int(part) for part in text.split(".") if part.isdigit()) or (0,)
