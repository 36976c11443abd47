"""Fused attention: which kernel a platform has, why it is not taken, and how it is split over a mesh.

A kernel is one device's work. XLA does not split it by itself, so it runs under `jax.shard_map`: rows over the batch
axes of the mesh, heads over "tensor", the queries of a text over "sequence" (`context_parallel`).
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import jax
from jax import Array
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from jaxformer.models import cudnn, short_attention, splash
from jaxformer.models.context_parallel import attend_to_whole_texts
from jaxformer.models.masks import Mask
from jaxformer.models.placement import (
    BATCH_AXES,
    HEAD_AXIS,
    SEQUENCE_AXIS,
    automatic_mesh,
    is_one_device,
    platform,
)

logger = logging.getLogger("jaxformer")
collected: ContextVar[set[str] | None] = ContextVar("collected", default=None)
MaybeArray: TypeAlias = Array | None
Attend: TypeAlias = Callable[[Array, Array, Array, MaybeArray, Mask, float], Array]


@dataclass(frozen=True)
class Kernel:
    """A fused kernel."""

    name: str
    """What the log calls it."""
    problems: Callable[[Any, Any, Any, Mask], Iterable[str]]
    """(query, key, bias, mask) -> why it cannot be taken, in words; the first three are shapes of one device's part."""
    attend: Attend
    """(query, key, value, bias, mask, scale) -> the result, as of `attention.attention`."""
    skips: bool = False
    """Whether it takes no time for what a causal mask hides, so that a text's last queries take the most."""


KERNELS = {
    "tpu": (
        Kernel("short", short_attention.short_problems, short_attention.short_attention),
        Kernel("splash", splash.splash_problems, splash.splash_attention, skips=True),
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
    why = ""
    for kernel in kernels:
        split = Split(automatic_mesh(), kernel, query.shape, mask)
        if not (against := split.problems(query, key, bias)):
            say(f"{kernel.name} ({why})" if why else kernel.name)
            return split.attend(query, key, value, bias, scale)
        why += f"{'; ' if why else ''}not {kernel.name}: {', '.join(against)}"
    say(f"xla ({why})")
    return None


def in_parts(
    attend: Attend, query: Array, key: Array, value: Array, bias: MaybeArray, mask: Mask, scale: float
) -> Array:
    """XLA's form, which XLA splits over a mesh by itself; but where a mesh splits texts, each device has its part of
    the queries, as with a kernel."""
    split = Split(automatic_mesh(), Kernel("xla", lambda *shapes: (), attend), query.shape, mask)
    if split.devices == 1 or mask.allowed is not None or mesh_problems(query.shape, key.shape):
        return attend(query, key, value, bias, mask, scale)
    return split.attend(query, key, value, bias, scale)


@contextmanager
def choices() -> Iterator[set[str]]:
    """A context that yields which attention is taken by what is traced in it, and why no better one, as lines of the
    log; none on platforms without kernels."""
    lines: set[str] = set()
    before = collected.set(lines)
    try:
        yield lines
    finally:
        collected.reset(before)


def say(line: str) -> None:
    """Tells which attention is taken, and why: the log, once, and `choices`."""
    if (lines := collected.get()) is not None:
        lines.add(line)
    log(line)


@cache
def log(line: str) -> None:
    """Logs a line, once a process: layers are many, and alike."""
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


@dataclass(frozen=True)
class Split:
    """How a mesh splits an attention."""

    mesh: AbstractMesh | None
    """The mesh; None: everything is one device's."""
    kernel: Kernel
    """The implementation."""
    query: tuple[int, ...]
    """The shape of all queries, [B, H, T, Dh]."""
    mask: Mask
    """The mask of whole texts."""

    @property
    def devices(self) -> int:
        """How many devices share a text."""
        count = 1 if self.mesh is None else self.mesh.shape[SEQUENCE_AXIS]
        return 1 if self.query[2] % count else count

    @property
    def parts(self) -> int:
        """Into how many parts the queries of a text are cut: twice as many as devices where those are to share work."""
        uneven = self.kernel.skips and self.mask.causal and self.mask.window is None
        halved = uneven and self.devices > 1 and self.query[2] % (2 * self.devices) == 0
        return 2 * self.devices if halved else self.devices

    def spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        """How an array that is broadcast to [B, H, T or S, .] lies on the mesh: split where it has rows, heads and
        tokens."""
        batch, heads, tokens, _ = (1,) * (4 - len(shape)) + shape
        split = (
            BATCH_AXES if batch == self.query[0] > 1 else None,
            HEAD_AXIS if heads > 1 else None,
            SEQUENCE_AXIS if self.devices > 1 and tokens % self.devices == 0 else None,
        )
        return PartitionSpec(*split[4 - len(shape) :])

    def seen_by_a_kernel(self, x: Array, tokens: int) -> jax.ShapeDtypeStruct:
        """The shape of what a kernel takes of an array that is broadcast to [B, H, ., .], with so many tokens."""
        shape: tuple[int, ...] = x.shape
        if self.mesh is not None:
            shape = NamedSharding(self.mesh, self.spec(shape)).shard_shape(shape)
        return jax.ShapeDtypeStruct((*shape[:-2], tokens, shape[-1]), x.dtype)

    def problems(self, query: Array, key: Array, bias: MaybeArray) -> list[str]:
        """Why the kernel is not taken, in words."""
        own = query.shape[2] // self.parts
        of_bias = None if bias is None else self.seen_by_a_kernel(bias, min(bias.shape[-2], own))
        shapes = self.seen_by_a_kernel(query, own), self.seen_by_a_kernel(key, key.shape[2]), of_bias
        return list(self.kernel.problems(*shapes, replace(self.mask, parts=self.parts)))

    def attend(self, query: Array, key: Array, value: Array, bias: MaybeArray, scale: float) -> Array:
        """The kernel on every device's rows, heads and queries."""

        def part(query: Array, key: Array, value: Array, bias: MaybeArray, mask: Any) -> Array:
            return self.kernel.attend(query, key, value, bias, mask, scale)

        if self.mesh is None:
            return part(query, key, value, bias, self.mask)
        own, theirs = self.spec(query.shape), self.spec(key.shape)
        if self.devices > 1:
            part = attend_to_whole_texts(part, self.devices, self.parts, SEQUENCE_AXIS in theirs)
        split = jax.shard_map(
            part,
            mesh=self.mesh,
            in_specs=(
                *(own, theirs, theirs),
                None if bias is None else self.spec(bias.shape),
                jax.tree.map(lambda x: PartitionSpec(BATCH_AXES), self.mask),
            ),
            out_specs=own,
            check_vma=False,  # a Pallas kernel's results say nothing of the axes over which they vary
        )
        return split(query, key, value, bias, self.mask)
