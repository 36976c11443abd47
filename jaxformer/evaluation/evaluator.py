"""Evaluates variables on a split: sums on the devices, added up in float64 on the host."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxformer.parallel.compile import Layout
from jaxformer.tasks.base import Evaluation, Task

if TYPE_CHECKING:
    from jaxformer.data.batches import Batches

Tree = Any
AHEAD = 8  # batches that the device may be behind: their sums are small, the batches themselves are not


class GivenUp(Exception):
    """An evaluation was not ended, because it was asked not to."""


def evaluate(
    eval_step: Callable,
    variables: Tree,
    task: Task,
    batches: "Batches",
    layout: Layout,
    give_up: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Metrics and tables of a whole split; every example counts once on any number of devices.

    Args:
      eval_step: compiled (variables, batch) -> (sums, collected), see `make_eval_step`.
      variables: {"params": ..., **collections}, on the devices.
      batches: evaluation batches, the last one padded and masked.
      give_up: asked before every batch.

    Raises:
      GivenUp: `give_up` said so.
    """
    sums: list[Tree] = []
    collected: list[dict[str, Any]] = []
    with batches.read(0, jax.process_index(), jax.process_count(), stop=len(batches)) as reader:
        for batch in reader:
            if give_up():
                raise GivenUp
            of_batch, of_examples = eval_step(variables, layout.shard_batch(batch))
            sums.append(of_batch)
            if of_examples:
                collected.append(of_examples)
            if len(sums) >= AHEAD:
                jax.block_until_ready(sums[-AHEAD])
    return task.summarize(added(jax.device_get(sums)), real_rows(jax.device_get(collected)), batches)


def added(parts: Sequence[Tree]) -> Tree:
    """Trees of arrays added up, in float64; arrays by position are as long as the longest."""

    def total(*arrays: Any) -> np.ndarray:
        return np.sum(widened([np.asarray(array, np.float64) for array in arrays], 0), axis=0)

    return jax.tree.map(total, *parts)


def real_rows(parts: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Batches of arrays joined: name -> [N, ...], without the rows that "example_mask" calls padding."""
    if not parts:
        return {}
    masks = [np.asarray(part["example_mask"]) for part in parts]
    joined = {}
    for name in parts[0]:
        if name != "example_mask":
            rows = [np.asarray(part[name])[mask] for part, mask in zip(parts, masks)]
            joined[name] = np.concatenate(widened(rows, 1))
    return joined


def widened(arrays: Sequence[np.ndarray], first: int) -> list[np.ndarray]:
    """Arrays whose axes from `first` on are padded to the longest: integers with -1, others with 0."""
    rank = arrays[0].ndim
    shape = [max(array.shape[axis] for array in arrays) for axis in range(first, rank)]

    def pad(array: np.ndarray) -> np.ndarray:
        widths = [(0, 0)] * first + [(0, n - m) for n, m in zip(shape, array.shape[first:])]
        fill = -1 if np.issubdtype(array.dtype, np.integer) else 0
        return np.pad(array, widths, constant_values=fill) if any(w for _, w in widths) else array

    return [pad(array) for array in arrays]
