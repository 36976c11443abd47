"""Puts the step functions onto devices: the same ones under `jax.jit` over a mesh and under `jax.pmap`."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, wraps
from math import prod
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxformer.errors import UserError
from jaxformer.parallel.rules import gathered_at_once, state_shardings

Tree = Any
BATCH_AXES = ("data", "fsdp")
PMAP_AXIS = "data"


@dataclass(frozen=True)
class Layout:
    """The placement of arrays on devices, for one mode and one mesh."""

    mode: str
    """ "jit" or "pmap"."""
    mesh: Mesh
    """The devices. Under pmap all of them are on its "data" axis."""
    compiler_options: Mapping[str, Any] = field(default_factory=dict)
    """XLA's options for the train step."""

    @property
    def axis(self) -> str | None:
        """The axis that the step itself sums over: pmap's; None under jit, where XLA sums."""
        return PMAP_AXIS if self.mode == "pmap" else None

    @property
    def batch_shards(self) -> int:
        """The number of parts that a batch is split into."""
        return prod(self.mesh.shape[name] for name in BATCH_AXES)

    @cached_property
    def batch_sharding(self) -> NamedSharding:
        """Rows over the data and fsdp axes."""
        return NamedSharding(self.mesh, PartitionSpec(BATCH_AXES))

    @cached_property
    def shares(self) -> dict[tuple[int, ...], set[int]]:
        """Which parts of a batch, of `batch_shards`, are read together, and by which processes; in the order of these.

        Raises:
          UserError: what the processes hold overlaps.
        """
        held: dict[int, set[int]] = defaultdict(set)
        parts: Mapping[Any, Any] = self.batch_sharding.devices_indices_map((self.batch_shards,))
        for device, (part,) in parts.items():
            held[device.process_index].add(part.start or 0)
        shares: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for process in sorted(held):
            shares[tuple(sorted(held[process]))].add(process)
        if sum(map(len, shares)) != self.batch_shards or len(set(map(len, shares))) > 1:
            split = "the devices of a process hold a piece of a row's copy of the model, and of another's"
            raise UserError(
                f"parallel.mesh: {split}; let sequence x tensor divide the devices of a process, or be a multiple"
            )
        return shares

    @cached_property
    def reader(self) -> tuple[int, int]:
        """Which share of every batch this process reads, and how many there are: those of `Batches.read`.

        Processes whose devices hold the same rows, as those do that share a copy of the model, read the same.
        """
        this = jax.process_index()
        number = next(n for n, processes in enumerate(self.shares.values()) if this in processes)
        return number, len(self.shares)

    def rows(self, batch_size: int) -> np.ndarray:
        """int64 [B]: the row of a batch that each row of the arrays on the devices is.

        They are in order where the devices of a process are neighbours in the mesh; on a TPU pod they need not be.
        """
        places = [place for share in self.shares for place in share]
        return np.arange(batch_size).reshape(self.batch_shards, -1)[np.argsort(places)].reshape(-1)

    @cached_property
    def replicated(self) -> NamedSharding:
        """The same on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def shardings(self, state: Tree) -> Tree:
        """A sharding for every leaf of a train state (arrays or shapes)."""
        if self.mode == "pmap":
            return jax.tree.map(lambda _: self.replicated, state)
        return state_shardings(state, self.mesh)

    def abstract(self, state: Tree) -> Tree:
        """A state's shapes with their shardings: what a checkpoint is restored into."""
        return jax.tree.map(
            lambda leaf, sharding: leaf.update(sharding=sharding), state, self.shardings(state)
        )

    def init_sharded(self, init: Callable[..., Tree], shapes: Tree) -> Callable[..., Tree]:
        """`init`, compiled: its result is laid out from the start as `shapes` are; no device ever holds it whole."""
        return jax.jit(init, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, shapes))

    def shard_batch(self, local_batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """This process's rows of a batch, as arrays over all devices."""
        place = jax.make_array_from_process_local_data
        return {
            name: place(self.batch_sharding, rows, (len(rows) * len(self.shares), *rows.shape[1:]))
            for name, rows in local_batch.items()
        }

    def batch_shapes(self, spec: Mapping[str, tuple[tuple[int, ...], np.dtype]], batch_size: int) -> Tree:
        """The shapes of a global batch, for compiling ahead of time."""
        return {
            name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=self.batch_sharding)
            for name, (shape, dtype) in spec.items()
        }

    def train_step(self, step: Callable, state: Tree, others: int = 0) -> Any:
        """`step(state, batch, ...) -> (state, metrics)`, compiled; the state that goes in is donated.

        Args:
          step: the result of `make_train_step(..., axis=layout.axis)`.
          state: a train state that is laid out: arrays, or the shapes that `abstract` gives.
          others: how many arguments come behind the batch, which are the same on every device.
        """
        if self.mode == "pmap":
            return self.pmapped(step, donate=(0,), fixed=others)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        given = (shardings, self.batch_sharding, *[self.replicated] * others)
        made = (shardings, self.replicated)
        options: Any = dict(self.compiler_options) or None
        return jax.jit(
            self.on_mesh(gathered_at_once(step, state)),
            in_shardings=given,
            out_shardings=made,
            donate_argnums=0,
            compiler_options=options,
        )

    def eval_step(self, step: Callable, others: int = 0) -> Callable:
        """`step(variables, batch, ...) -> (sums, collected)`, compiled; see `make_eval_step`.

        Args:
          step: its result.
          others: how many arguments come behind the batch, which are the same on every device.
        """
        if self.mode == "pmap":
            return self.pmapped(step, donate=(), fixed=others)
        return jax.jit(self.on_mesh(step), out_shardings=self.replicated)

    def same_everywhere(self, function: Callable) -> Callable:
        """A function compiled under jit in both modes; every device has the whole of its result."""
        return jax.jit(function, out_shardings=self.replicated)

    def on_mesh(self, step: Callable) -> Callable:
        """`step`, traced with the mesh as JAX's context, of which models ask what the devices are."""

        @wraps(step)
        def on_mesh(*arguments: Any) -> Any:
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return step(*arguments)

        return on_mesh

    def pmapped(self, step: Callable, donate: tuple[int, ...], fixed: int = 0) -> Callable:
        """`step` on every device's rows; all arguments but the batch, and its results, are the same everywhere."""
        devices = list(self.mesh.devices.flat)
        axes = (None, 0, *[None] * fixed)
        mapped = jax.pmap(
            step, PMAP_AXIS, in_axes=axes, out_axes=None, devices=devices, donate_argnums=donate
        )

        def split(batch: Tree) -> Tree:
            return jax.tree.map(lambda x: x.reshape(len(devices), -1, *x.shape[1:]), batch)

        def of_all(array: jax.Array) -> jax.Array:
            parts = [shard.data for shard in array.addressable_shards]
            return jax.make_array_from_single_device_arrays(array.shape, self.replicated, parts)

        split_batch = jax.jit(split, out_shardings=self.batch_sharding)
        if len(self.shares) == 1:
            return lambda tree, batch, *others: mapped(tree, split_batch(batch), *others)
        # What pmap makes is of this process's devices alone.
        return lambda tree, batch, *others: jax.tree.map(of_all, mapped(tree, split_batch(batch), *others))


@dataclass(frozen=True)
class NumberedStep:
    """A compiled step that also takes the numbers of a config, and these: `step(state, batch)` for its users."""

    program: Any
    """(state, batch, numbers, ...) -> what the step gives: the result of `Layout.train_step` or `eval_step`."""
    numbers: Tree
    """Numbers of the host."""
    sharding: NamedSharding
    """The same on every device."""

    @cached_property
    def on_devices(self) -> Tree:
        """The numbers as arrays; a Python float takes the dtype of what it meets, as in Python."""
        # Where there are several processes, `device_put` takes no float that float32 rounds.
        return placing(self.sharding)(self.numbers)

    def __call__(self, state: Tree, batch: Tree, *others: Tree) -> Any:
        return self.program(state, batch, self.on_devices, *others)

    def trace(self, state: Tree, batch: Tree, *others: Tree) -> Any:
        """The program for arrays of these shapes, as `jax.jit`'s `trace` gives it; nothing is put on devices."""
        return self.program.trace(state, batch, self.numbers, *others)

    def lower(self, state: Tree, batch: Tree, *others: Tree) -> Any:
        """As `trace`, lowered."""
        return self.trace(state, batch, *others).lower()


@dataclass(frozen=True)
class Shared:
    """The part of an experiment that others may use, too."""

    programs: dict[str, Any] = field(default_factory=dict)
    """Of experiments whose configs differ in numbers alone (`numbers.py`): shapes and compiled programs, by name."""
    sources: dict[tuple[str, bool], Any] = field(default_factory=dict)
    """Of experiments with the same `data`: what is open, by split and whether it is trained on."""


@cache
def placing(sharding: NamedSharding) -> Callable[[Tree], Tree]:
    """Puts numbers of the host onto devices."""
    return jax.jit(lambda numbers: numbers, out_shardings=sharding)


def compiled(lowered: Any, mesh: Mesh) -> Any:
    """A lowered program, compiled for a mesh. One for devices that are not here stays out of JAX's cache, which could
    write it and could not read it."""
    if mesh.devices.flat[0].client.runtime_type != "compile_only_runtime":
        return lowered.compile()
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, float("inf"))
    try:
        return lowered.compile()
    finally:
        jax.config.update(name, before)


def bytes_a_device(tree: Tree) -> int:
    """Bytes of one device's share of a tree of sharded shapes."""
    leaves = jax.tree.leaves(tree)
    return sum(prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
