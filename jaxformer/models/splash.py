"""Attention on TPUs by JAX's splash kernel: a Pallas kernel that computes only what a mask lets through."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from jaxformer.models.masks import Mask

LANES = 128  # of a TPU's vector registers: what the kernel reads at once is a multiple of it
FEWEST = 64  # queries: fewer would be padded to LANES, and cost more than XLA's form
WHOLE = 1024  # the longest text that is one block
BLOCK = 512  # of longer ones
NOWHERE = -1  # the segment of keys that no query sees


def splash_problems(query: Array, key: Array, bias: Array | None, mask: Mask) -> list[str]:
    """Why the kernel is not taken, as words for the log.

    Args:
      query: [B, H, T, Dh].
      key: [B, Hkv, S, Dh].
      bias: what would be added to the logits.
      mask: which keys each query sees.
    """
    queries, keys = query.shape[2], key.shape[2]
    reasons = {
        "a bias": bias is not None,
        "the mask of a cache": mask.allowed is not None,
        f"{queries} queries, fewer than {FEWEST}": queries < FEWEST,
        f"operands {query.dtype}": query.dtype == "float16",
        "a window between texts of different lengths": mask.window is not None
        and queries * mask.parts != keys,
        f"{queries} queries of a text's part, not whole blocks": is_cut(mask) and blocks(queries)[1],
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
    """Attention; see `attention.attention`. Texts are padded to whole blocks, and heads need no padding.

    Args:
      query: [B, H, T, Dh].
      key: [B, Hkv, S, Dh]; keys are not repeated for the query heads that share them.
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

    heads, queries, keys = query.shape[1], query.shape[2], key.shape[2]
    (block_q, more_q), (block_kv, more_kv) = blocks(queries), blocks(keys)
    parts = mask.parts if is_cut(mask) else 1
    shape = (parts * queries + more_q, keys + more_kv)
    if mask.window is not None:
        one: Any = masks.LocalMask(shape, (mask.window - 1, 0 if mask.causal else mask.window - 1), 0)
    else:
        one = masks.CausalMask(shape) if mask.causal else masks.FullMask(shape)
    fused = shape[1] == block_kv  # one kernel for all gradients; with more blocks it would leave sums to XLA
    sizes = kernels.BlockSizes(
        block_q=block_q,
        block_kv=block_kv,
        block_q_dkv=block_q,
        block_kv_dkv=block_kv,
        block_q_dq=None if fused else block_q,
        block_kv_dq=None if fused else block_kv,
        use_fused_bwd_kernel=fused,
    )
    attend = kernels.make_splash_mha(
        masks.MultiHeadMask([one] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=parts,
        interpret=interpret,
    )
    if parts > 1:
        attend = of_part(attend, mask)
    numbers = segment_numbers(mask, (queries, more_q), (keys, more_kv))
    segments = None if numbers is None else kernels.SegmentIds(*numbers)
    varying = jax.tree.map(lambda ids: 0 if ids.ndim == 2 else None, segments)
    scaled = padded(query * jnp.asarray(scale, query.dtype), more_q, 2)
    of_texts = jax.vmap(attend, in_axes=(0, 0, 0, varying))
    result = of_texts(scaled, padded(key, more_kv, 2), padded(value, more_kv, 2), segments)
    return result[:, :, :queries].astype(value.dtype)


def is_cut(mask: Mask) -> bool:
    """Whether it matters to the mask of blocks which part of a text the queries are."""
    return (mask.causal or mask.window is not None) and mask.parts > 1


def of_part(kernel: Any, mask: Mask) -> Any:
    """A kernel for all parts of a text as that of one part: what it knows of the blocks is cut along the queries."""
    mesh = AbstractMesh((mask.parts,), ("part",))
    specs = kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, "part")))

    def own(x: Array, spec: PartitionSpec) -> Array:
        if "part" not in spec:
            return x
        axis = tuple(spec).index("part")
        size = x.shape[axis] // mask.parts
        return jax.lax.dynamic_slice_in_dim(x, mask.part * size, size, axis)

    return jax.tree.map(own, kernel, specs)


def blocks(length: int) -> tuple[int, int]:
    """The size of a block of a text, and by how much the text is padded to whole ones.

    Counted in bundles of the TPU's compiler (its schedule of the kernels for v5e, forwards and backwards, a head of
    64): a causal text of 1,024 takes 53,800 with the kernel's own default, blocks of 128, 28,400 with 256, 19,000 with
    512 and 17,000 as one block, where one kernel gives all gradients. MaxText's default is 512 too (configs/base.yml,
    sa_block_q and the others).
    """
    count = 1 if length <= WHOLE else -(-length // BLOCK)
    block = -(-length // (count * LANES)) * LANES
    return block, count * block - length


def padded(x: Array, more: int, axis: int) -> Array:
    """`x` with `more` zeros behind it."""
    return jnp.pad(x, [(0, more if i == axis else 0) for i in range(x.ndim)]) if more else x


def segment_numbers(
    mask: Mask, queries: tuple[int, int], keys: tuple[int, int]
) -> tuple[Array, Array] | None:
    """Numbers that are equal where a query may see a key: int32 [B, T] and [B, S], or [T] and [S] if they are the same
    for all rows. None where the kernel needs none.

    Args:
      mask: which keys each query sees.
      queries: how many, and how many more pad them.
      keys: the same of keys; those that pad are seen by none.
    """
    seen = mask.causal and queries[0] <= keys[0]  # the keys that pad are behind all queries
    if mask.segments is None and mask.keys is None and (seen or not keys[1]):
        return None
    own, theirs = jnp.zeros(queries[0], jnp.int32), jnp.zeros(keys[0], jnp.int32)
    if mask.segments is not None:
        own, theirs = mask.own_segments(queries[0]).astype(jnp.int32), mask.segments.astype(jnp.int32)
    if mask.keys is not None:
        theirs = jnp.where(mask.keys, jnp.broadcast_to(theirs, mask.keys.shape), NOWHERE)
    behind = [(0, 0)] * (theirs.ndim - 1) + [(0, keys[1])]
    return padded(own, queries[1], own.ndim - 1), jnp.pad(theirs, behind, constant_values=NOWHERE)
