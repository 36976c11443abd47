"""The programs of a population: what trains and evaluates several experiments at once, with `jax.vmap`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from math import gcd
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxformer.errors import UserError, data_size
from jaxformer.experiment import Experiment
from jaxformer.numbers import Numbers, numbers_of
from jaxformer.observe.device import memory_limit
from jaxformer.step import make_eval_step

Tree = Any
AXIS = "population"


class Together:
    """The programs of a population.

    Args:
      experiments: see `train_together`.
    """

    def __init__(self, experiments: Sequence[Experiment]):
        self.experiments, self.first, self.count = experiments, experiments[0], len(experiments)
        self.same_batch = len({experiment.config.seed for experiment in experiments}) == 1
        devices = np.array(jax.local_devices()[: gcd(self.count, jax.local_device_count())])
        mesh = Mesh(devices, (AXIS,))
        self.split = NamedSharding(mesh, PartitionSpec(AXIS))
        self.whole = NamedSharding(mesh, PartitionSpec())

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """As `Experiment.once`, for a population of this size."""
        return self.first.once(f"{name} of {self.count}", make)

    @property
    def train_step(self) -> Any:
        """(states, batch or batches, numbers) -> (states, metrics), all but one batch with an axis in front."""
        name = f"train_step, same_batch={self.same_batch}"
        return self.once(name, lambda: self.mapped(self.first.numbered_step(), self.same_batch, donate=(0,)))

    @property
    def eval_step(self) -> Any:
        """(variables, batch, numbers) -> (sums, collected), all but the batch with an axis in front."""

        def eval_step(variables: Tree, batch: Tree, numbers: Numbers) -> Any:
            experiment = self.first.with_numbers(numbers)
            return make_eval_step(experiment.model, experiment.task)(variables, batch)

        return self.once("eval_step", lambda: self.mapped(eval_step, same_batch=True))

    def mapped(self, step: Callable[..., Any], same_batch: bool, donate: tuple[int, ...] = ()) -> Any:
        """A step (tree, batch, numbers) for several trees and numbers, those of a device on that device."""
        batch, axis = (PartitionSpec(), None) if same_batch else (PartitionSpec(AXIS), 0)
        each = PartitionSpec(AXIS)
        over_devices = jax.shard_map(
            jax.vmap(step, (0, axis, 0)),
            mesh=self.split.mesh,
            in_specs=(each, batch, each),
            out_specs=each,
            check_vma=False,  # nothing is summed over devices
        )
        return jax.jit(over_devices, donate_argnums=donate)

    def stack(self, trees: Sequence[Tree]) -> Tree:
        """Trees of arrays as one with an axis in front; Python's floats stay of the dtype of what they meet."""
        stack = self.once("stack", lambda: jax.jit(lambda trees: jax.tree.map(stacked, *trees)))
        return jax.device_put(stack(list(trees)), self.split)

    def apart(self, states: Tree) -> list[Tree]:
        """What `stack` put together, each on the device of its experiment."""

        def each(tree: Tree) -> list[Tree]:
            return [at(tree, index) for index in range(self.count)]

        parts = self.once("apart", lambda: jax.jit(each, out_shardings=self.whole))(states)
        return [jax.device_put(part, self.first.layout.replicated) for part in parts]

    @cached_property
    def numbers(self) -> Numbers:
        """The numbers of all configs, each [N]."""
        return self.stack([numbers_of(experiment.config) for experiment in self.experiments])

    def batches(self, start: int, stop: int) -> Iterator[Tree]:
        """Yields the batches of steps, on the host: one for all where the seed is the same, else [N, B, ...]."""
        readers = self.experiments[: 1 if self.same_batch else self.count]
        with ExitStack() as held:
            streams = [held.enter_context(each.train_data.read(start, stop=stop)) for each in readers]
            for found in zip(*streams, strict=True):
                yield found[0] if self.same_batch else jax.tree.map(lambda *rows: np.stack(rows), *found)

    def on_devices(self, batch: Tree) -> Tree:
        """A batch of `batches`, on the devices."""
        return jax.device_put(batch, self.whole if self.same_batch else self.split)

    def check_memory(self) -> None:
        """Compiles the train step, and holds what it needs against a device's memory.

        Raises:
          UserError: it does not fit, or a part of the model cannot be trained several at a time.
        """
        shape = jax.ShapeDtypeStruct
        states = jax.tree.map(lambda x: shape((self.count, *x.shape), x.dtype), self.first.state_shapes)
        front = () if self.same_batch else (self.count,)
        batch = {
            name: shape((*front, *leaf.shape), leaf.dtype) for name, leaf in self.first.batch_shapes.items()
        }
        try:
            compiled = self.train_step.lower(states, batch, self.numbers).compile()
        except NotImplementedError as error:
            why = str(error).splitlines()[0]
            raise UserError(
                f"population={self.count}: a part of the model has no form for it ({why})"
            ) from error
        limit, found = memory_limit(), compiled.memory_analysis()
        if limit is None or found is None:
            return
        needed = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
        needed -= found.alias_size_in_bytes
        if needed > limit:
            fitting = max(1, self.count * limit // needed)
            has = f"a device has {data_size(limit)}"
            raise UserError(
                f"population={self.count}: needs {data_size(needed)} a device, and {has}; use {fitting}"
            )


def stacked(*leaves: Any) -> jax.Array:
    """Arrays or numbers as one array with an axis in front."""
    return jnp.stack(leaves)


def at(tree: Tree, index: int) -> Tree:
    """What one has of arrays with an axis in front."""
    return jax.tree.map(lambda leaf: leaf[index], tree)
