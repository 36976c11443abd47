"""Devices as a mesh with named axes: data, fsdp, sequence, tensor."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import jax
from jax.sharding import AxisType, Mesh

from jaxformer.config.fields import PositiveInt, at_least, largest_divisor
from jaxformer.errors import UserError

if TYPE_CHECKING:
    from jaxformer.data.batches import Batches
    from jaxformer.data.config import DataConfig

AXES = ("data", "fsdp", "sequence", "tensor")


@dataclass(frozen=True)
class Timeouts:
    """How long the processes of one run wait for each other, in seconds."""

    start: PositiveInt = 900
    """Until all are there. On a pod the slowest machine's start counts, and after a fault its restart."""
    heartbeat: Annotated[int, at_least(5, "5 or more seconds")] = 100
    """Until a process from which nothing is heard counts as dead, and ends the others."""
    shutdown: PositiveInt = 300
    """At the end, until all have come to it."""


@dataclass(frozen=True)
class ParallelConfig:
    """How the devices work together."""

    mode: Literal["jit", "pmap"] = "jit"
    """ "jit" lays one program out over a mesh; "pmap" is data parallelism, a copy of the state a device."""
    mesh: Mapping[str, int] = field(default_factory=lambda: {"data": -1})
    """Axis -> size; one may be -1: the rest. "data" splits the batch; "fsdp" splits the batch and every large
    parameter with its optimizer state; "sequence" splits texts along their tokens, for texts too long for one device;
    "tensor" splits heads and MLP columns. pmap has "data" alone."""
    timeouts: Timeouts = Timeouts()
    """How long several processes wait for each other."""
    compiler_options: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """XLA's options for the train step, by name, as "xla_tpu_scoped_vmem_limit_kib"; each platform has its own. They
    hold for devices that are here and for those of a topology."""

    def problems(self) -> Iterator[str]:
        """Yields a line for every impossible combination."""
        for name, size in self.mesh.items():
            if name not in AXES:
                yield f"mesh.{name}: there is no such axis; there are: {', '.join(AXES)}"
            if size < 1 and size != -1:
                yield f"mesh.{name}={size}: expected a positive size, or -1 for the rest of the devices"
        if list(self.mesh.values()).count(-1) > 1:
            yield "mesh: only one axis may be -1 (the rest of the devices)"
        if self.mode == "pmap" and self.compiler_options:
            yield 'compiler_options: pmap takes none; use mode="jit"'
        if self.mode == "pmap" and set(self.mesh) - {"data"}:
            yield 'mesh: pmap is data parallelism alone; use mode="jit" for other axes, or mesh=dict(data=-1)'


def mesh_shape(axes: Mapping[str, int], device_count: int) -> dict[str, int]:
    """The size of every axis, with -1 filled in.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    sizes = {name: axes[name] for name in AXES if name in axes} or {"data": -1}
    known = math.prod(size for size in sizes.values() if size != -1)
    if -1 in sizes.values() and device_count % known == 0:
        sizes = {name: device_count // known if size == -1 else size for name, size in sizes.items()}
    if math.prod(sizes.values()) != device_count:
        given = ", ".join(f"{name}={size}" for name, size in sizes.items())
        what = f"parallel.mesh: {given} does not make up the {device_count} devices"
        raise UserError(f"{what}; make the sizes multiply to it, or give one axis as -1")
    return {name: sizes.get(name, 1) for name in AXES}


def make_mesh(axes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with all of AXES (those not named have size 1), over `devices` or all there are."""
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(axes, len(devices))
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(shape.values()), tuple(shape), axis_types=types, devices=devices)


def undivided_heads(heads: Any, mesh: Mesh) -> Iterator[str]:
    """Yields a line if the mesh's "tensor" does not divide a model's number of heads, where it is one."""
    tensor = mesh.shape["tensor"]
    if isinstance(heads, int) and heads % tensor:
        problem = f"parallel.mesh.tensor={tensor} does not divide model.num_heads={heads}"
        fitting = largest_divisor(math.gcd(heads, mesh.size), tensor)  # of the devices, too
        yield f"{problem}: use one that does, such as {fitting}"


def undivided_tokens(
    model: Any, batches: "Batches", data: "DataConfig", mesh: Mapping[str, int]
) -> Iterator[str]:
    """Yields a line for each number of tokens that the mesh's "sequence" cannot split into equal parts."""
    if (parts := mesh["sequence"]) == 1:
        return
    counts = [("data.buckets", length) for length in data.buckets]
    if "tokens" in batches.element_spec:
        counts.append(("data.examples.length", batches.element_spec["tokens"][0][0]))
    elif model.grid is not None:
        counts.append(("the number of an image's tokens", math.prod(model.grid) + model.tokens_before_grid))
    else:
        yield f"parallel.mesh.sequence={parts}: {type(model).__name__} has no tokens to split; use another axis"
    all_divide = largest_divisor(math.gcd(math.prod(mesh.values()), *(count for _, count in counts)), parts)
    fitting = f"use one that does, such as {all_divide}" if all_divide > 1 else "use 1, or other lengths"
    for what, count in counts:
        if count % parts:
            yield f"parallel.mesh.sequence={parts} does not divide {what}, {count}: {fitting}"
