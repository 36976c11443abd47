"""Attention on NVIDIA GPUs by cuDNN's fused kernel."""

import jax
from jax import Array

from jaxformer.models.masks import Mask


def cudnn_problems(query: Array, key: Array, bias: Array | None, mask: Mask) -> list[str]:
    """Why the kernel cannot be taken, as words for the log.

    It wants a GPU from Ampere on, 16-bit operands and a head size of at most 128 that is a multiple of 8; with a bias
    it has no backward pass for odd lengths.
    """
    head_dim = query.shape[-1]
    reasons = {
        f"operands {query.dtype}": query.dtype not in ("bfloat16", "float16"),
        f"head size {head_dim}": head_dim % 8 != 0 or head_dim > 128,
        "a bias": bias is not None,
        "a mask of padding, segments or a cache": not mask.is_structural,
        "a GPU before Ampere": compute_capability() < (8, 0),
    }
    return [reason for reason, holds in reasons.items() if holds]


def cudnn_attention(
    query: Array, key: Array, value: Array, bias: Array | None, mask: Mask, scale: float
) -> Array:
    """Attention; see `attention.attention`. The kernel takes [B, T, H, Dh] and knows causal and windowed masks."""
    tokens_first = (x.swapaxes(1, 2) for x in (query, key, value))
    window = None if mask.window is None else (mask.window - 1, 0)
    result = jax.nn.dot_product_attention(
        *tokens_first, scale=scale, is_causal=mask.causal, local_window_size=window, implementation="cudnn"
    )
    return result.swapaxes(1, 2)


def compute_capability() -> tuple[int, ...]:
    """That of the first NVIDIA GPU, such as (9, 0); (0,) for GPUs of others."""
    text = getattr(jax.devices()[0], "compute_capability", "")
    return tuple(int(part) for part in text.split(".") if part.isdigit()) or (0,)
