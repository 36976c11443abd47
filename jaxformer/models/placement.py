"""Which devices the program being traced is for: asked of JAX's mesh, never of the machine that compiles.

`parallel.Layout` traces every step under its mesh; `jax.pmap` does so by itself. So a program that is compiled on a
laptop for TPUs that are not there takes what TPUs take.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from math import prod
from typing import TypeAlias

import jax
from jax import Array
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding, PartitionSpec

BATCH_AXES = ("data", "fsdp")
SEQUENCE_AXIS = "sequence"
HEAD_AXIS = "tensor"
Shardings: TypeAlias = tuple[NamedSharding, ...]
# By a parameter's path, the shardings that its gradient takes, one after the other.
GRADIENTS: ContextVar[Mapping[str, Shardings]] = ContextVar("gradients")


def platform() -> str:
    """JAX's name of the platform of these devices: "cpu", "gpu" or "tpu"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return jax.default_backend()
    return "gpu" if device.platform in ("cuda", "rocm") else device.platform


def automatic_mesh() -> AbstractMesh | None:
    """The mesh over which XLA splits what is traced here by itself; None where what is traced is one device's work.

    Without a mesh, several devices of the backend count as one that is not known: see `is_one_device`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if mesh.size > 1 and AxisType.Auto in mesh.axis_types else None


def is_one_device() -> bool:
    """Whether what is traced here certainly runs on one device, or is one device's part (under pmap, `shard_map`)."""
    mesh = jax.sharding.get_abstract_mesh()
    return automatic_mesh() is None and (not mesh.empty or jax.device_count() == 1)


def rows_and_tokens(mesh: AbstractMesh, shape: tuple[int, ...]) -> PartitionSpec:
    """How [B, T, ...] lies on a mesh: rows over the batch axes, tokens over "sequence", each where it divides them."""
    rows = prod(mesh.shape[axis] for axis in BATCH_AXES)
    batch = None if shape[0] % rows else BATCH_AXES
    tokens = mesh.shape[SEQUENCE_AXIS]
    return PartitionSpec(batch) if tokens == 1 or shape[1] % tokens else PartitionSpec(batch, SEQUENCE_AXIS)


def split_by_rows(x: Array) -> Array:
    """`x` [B, T, ...], its rows split over the batch axes of the mesh, its tokens over "sequence", and nothing else of
    it.

    Where nothing says so, XLA may lay activations out as "fsdp" splits the parameters, along the width: then every
    product of a layer is summed over that axis, which moves more bytes than the parameters have.
    """
    mesh = automatic_mesh()
    if mesh is None or not any(spec := rows_and_tokens(mesh, x.shape)):
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def splits_tokens() -> bool:
    """Whether the mesh splits texts along their tokens."""
    mesh = automatic_mesh()
    return mesh is not None and mesh.shape[SEQUENCE_AXIS] > 1


@contextmanager
def gradients_lie(shardings: Mapping[str, Shardings]) -> Iterator[None]:
    """A context in which the gradients of parameters are laid out by path (`parallel/gradients.py`)."""
    token = GRADIENTS.set(shardings)
    try:
        yield
    finally:
        GRADIENTS.reset(token)


def with_gradient_laid_out(parameter: Array, path: str) -> Array:
    """A parameter as a layer uses it; its gradient is laid out as the context says."""
    shardings = GRADIENTS.get({}).get(path, ())
    return gradient_through(parameter, shardings) if shardings and automatic_mesh() else parameter


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def gradient_through(x: Array, shardings: Shardings) -> Array:
    """`x`; its gradient takes these shardings, those of their axes that are the last of `x`, one after the other."""
    return x


def laid_out(shardings: Shardings, _: None, gradient: Array) -> tuple[Array]:
    """The gradient, laid out."""
    for sharding in shardings:
        spec = PartitionSpec(*sharding.spec[len(sharding.spec) - gradient.ndim :])
        gradient = jax.lax.with_sharding_constraint(gradient, NamedSharding(sharding.mesh, spec))
    return (gradient,)


gradient_through.defvjp(lambda x, shardings: (x, None), laid_out)


def without_kernels() -> AbstractContextManager[None]:
    """A context whose programs are for one CPU, so that a jaxpr shows every product and no kernel hides one."""
    device = AbstractDevice("cpu", None, "cpu")
    cpu = AbstractMesh((1,), BATCH_AXES[:1], (AxisType.Auto,), abstract_device=device)
    return jax.sharding.use_abstract_mesh(cpu)
