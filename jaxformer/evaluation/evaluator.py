"""Evaluates variables on a split: sums on the devices, added up in float64 on the host."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxformer.data import Batches
from jaxformer.parallel.compile import Layout
from jaxformer.tasks.base import Evaluation, Task

Tree = Any
AHEAD = 8  # batches that the device may be behind: their sums are small, the batches themselves are not


class GivenUp(Exception):
    """An evaluation was not ended, because it was asked not to."""


def evaluate(
    eval_step: Callable,
    variables: Tree,
    task: Task,
    batches: Batches,
    layout: Layout,
    give_up: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Metrics and tables of a whole split; every example counts once on any number of devices.

    Args:
      eval_step: compiled (variables, batch) -> sums, see `make_eval_step`.
      variables: {"params": ..., **collections}, on the devices.
      batches: evaluation batches, the last one padded and masked.
      give_up: asked before every batch.

    Raises:
      GivenUp: `give_up` said so.
    """
    sums: list[Tree] = []
    with batches.read(0, jax.process_index(), jax.process_count(), stop=len(batches)) as reader:
        for batch in reader:
            if give_up():
                raise GivenUp
            sums.append(eval_step(variables, layout.put(batch)))
            if len(sums) >= AHEAD:
                jax.block_until_ready(sums[-AHEAD])
    totals = jax.tree.map(lambda *parts: np.sum(np.asarray(parts, np.float64), axis=0), *jax.device_get(sums))
    return task.summarize(totals, batches.class_names)
