"""Fused attention: which kernel a platform has, why it is not taken, and how it is split over a mesh.

A kernel is one device's work. XLA does not split it by itself, so it runs under `jax.shard_map`: rows over the batch
axes of the mesh, heads over "tensor".
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
from jax import Array
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from jaxformer.models import cudnn, short_attention, splash
from jaxformer.models.masks import Mask
from jaxformer.models.placement import BATCH_AXES, HEAD_AXIS, automatic_mesh, is_one_device, platform

logger = logging.getLogger("jaxformer")
said: set[str] = set()  # which lines of the log there were, so that none is repeated
MaybeArray: TypeAlias = Array | None


@dataclass(frozen=True)
class Kernel:
    """A fused kernel."""

    name: str
    """What the log calls it."""
    problems: Callable[[Any, Any, Any, Mask], Iterable[str]]
    """(query, key, bias, mask) -> why it cannot be taken, in words; the first three are shapes of one device's part."""
    attend: Callable[[Array, Array, Array, MaybeArray, Mask, float], Array]
    """(query, key, value, bias, mask, scale) -> the result, as of `attention.attention`."""


KERNELS = {
    "tpu": (
        Kernel("short", short_attention.short_problems, short_attention.short_attention),
        Kernel("splash", splash.splash_problems, splash.splash_attention),
    ),
    "gpu": (Kernel("cudnn", cudnn.cudnn_problems, cudnn.cudnn_attention),),
}  # the best first


def fused_attention(
    query: Array, key: Array, value: Array, bias: MaybeArray, mask: Mask, scale: float
) -> MaybeArray:
    """Attention by the platform's first kernel that can be taken; None without one. Where there are kernels, the log
    says which is taken, and why none before it."""
    if not (kernels := KERNELS.get(platform())):
        return None
    against = mesh_problems(query.shape, key.shape)
    if against:
        say(f"xla ({', '.join(against)})")
        return None
    one_query, one_key, one_bias = (
        x if x is None else of_one_device(x, query.shape) for x in (query, key, bias)
    )
    why = ""
    for kernel in kernels:
        if not (against := list(kernel.problems(one_query, one_key, one_bias, mask))):
            say(f"{kernel.name} ({why})" if why else kernel.name)
            return on_each_device(kernel, query, key, value, bias, mask, scale)
        why += f"{'; ' if why else ''}not {kernel.name}: {', '.join(against)}"
    say(f"xla ({why})")
    return None


def say(line: str) -> None:
    """Logs which attention is taken, and why; once."""
    if line not in said:
        said.add(line)
        logger.info("attention: %s", line)


def mesh_problems(query: tuple[int, ...], key: tuple[int, ...]) -> list[str]:
    """Why a mesh does not split attention of these shapes, [B, H, T, Dh] and [B, Hkv, S, Dh]."""
    mesh = automatic_mesh()
    if mesh is None:
        return [] if is_one_device() else [f"{jax.device_count()} devices without a mesh"]
    rows, heads = mesh.shape[BATCH_AXES[0]] * mesh.shape[BATCH_AXES[1]], mesh.shape[HEAD_AXIS]
    reasons = {
        f"{query[0]} rows on {rows} parts of the mesh": query[0] % rows,
        f"{query[1]} heads on tensor={heads}": query[1] % heads,
        f"{key[1]} key heads on tensor={heads}": key[1] > 1 and key[1] % heads,
    }
    return [reason for reason, holds in reasons.items() if holds]


def on_each_device(
    kernel: Kernel, query: Array, key: Array, value: Array, bias: MaybeArray, mask: Mask, scale: float
) -> Array:
    """The kernel on every device's rows and heads."""
    mesh = automatic_mesh()
    if mesh is None:
        return kernel.attend(query, key, value, bias, mask, scale)
    own, theirs = (spec(mesh, x.shape, query.shape) for x in (query, key))
    of_bias = None if bias is None else spec(mesh, bias.shape, query.shape)
    of_mask = jax.tree.map(lambda x: PartitionSpec(BATCH_AXES), mask)

    def part(query: Array, key: Array, value: Array, bias: MaybeArray, mask: Any) -> Array:
        return kernel.attend(query, key, value, bias, mask, scale)

    split = jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(own, theirs, theirs, of_bias, of_mask),
        out_specs=own,
        check_vma=False,  # a Pallas kernel's results say nothing of the axes over which they vary
    )
    return split(query, key, value, bias, mask)


def of_one_device(x: Array, query: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """The shape of one device's part of an array that is broadcast to [B, H, ., .]."""
    mesh = automatic_mesh()
    sharding = None if mesh is None else NamedSharding(mesh, spec(mesh, x.shape, query))
    return jax.ShapeDtypeStruct(sharding.shard_shape(x.shape) if sharding else x.shape, x.dtype)


def spec(mesh: AbstractMesh, shape: tuple[int, ...], query: tuple[int, ...]) -> PartitionSpec:
    """How an array that is broadcast to [B, H, ., .] lies on a mesh: rows and heads are split where it has them."""
    batch, heads = ((1,) * (4 - len(shape)) + shape)[:2]
    split = (BATCH_AXES if batch == query[0] > 1 else None, HEAD_AXIS if heads > 1 else None)
    return PartitionSpec(*split[4 - len(shape) :]) if len(shape) < 4 else PartitionSpec(*split)
