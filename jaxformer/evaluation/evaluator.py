"""Evaluates variables on a split, and remembers which evaluation was the best.

Sums are made on the devices, and added up in float64 on the host.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxformer.config.schema import did_you_mean
from jaxformer.parallel.compile import Layout
from jaxformer.tasks.base import Direction, Evaluation, Task

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
    found = Found(task, batches, layout)
    for step, of_batch in evaluated(lambda batch: eval_step(variables, batch), batches, layout, give_up):
        found.add(step, *of_batch)
    return found.evaluation()


def evaluated(
    step_of: Callable[[Tree], Any],
    batches: "Batches",
    layout: Layout,
    give_up: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, Any]]:
    """Yields what a step gives for every batch of a split, on the host: (number of the batch, arrays).

    Args:
      step_of: a batch on the devices -> arrays.
      batches: evaluation batches.
      layout: where batches go.
      give_up: asked before every batch.

    Raises:
      GivenUp: `give_up` said so.
    """
    running: deque[Any] = deque()
    with batches.read(0, *layout.reader, stop=len(batches)) as reader:
        for step, batch in enumerate(reader):
            if give_up():
                raise GivenUp
            running.append((step, step_of(layout.shard_batch(batch))))
            if len(running) >= AHEAD:
                yield jax.device_get(running.popleft())
    yield from map(jax.device_get, running)


@dataclass(frozen=True)
class Found:
    """What the batches of a split have given so far."""

    task: Task
    """What is learnt."""
    batches: "Batches"
    """The split."""
    layout: Layout
    """Where its batches were."""
    sums: list[Tree] = field(default_factory=list)
    """Of each batch."""
    rows: list[Mapping[str, np.ndarray]] = field(default_factory=list)
    """What the task keeps of each batch's examples."""

    def add(self, step: int, sums: Tree, rows: Mapping[str, np.ndarray]) -> None:
        """Adds what an eval step gave for a batch, on the host."""
        numbers = self.batches.numbers(step)
        index = np.zeros(len(rows["example_mask"]), np.int32)
        index[: len(numbers)] = numbers
        index = index[self.layout.rows(len(index))]
        self.sums.append(sums)
        self.rows.append(self.task.kept(real_rows([{"index": index, **rows}]), self.batches))

    def evaluation(self) -> Evaluation:
        """Metrics and tables of the whole."""
        return self.task.summarize(added(self.sums), joined(self.rows), self.batches)


def added(parts: Sequence[Tree]) -> Tree:
    """Trees of arrays added up, in float64; arrays by position are as long as the longest."""

    def total(*arrays: Any) -> np.ndarray:
        return np.sum(widened([np.asarray(array, np.float64) for array in arrays], 0), axis=0)

    return jax.tree.map(total, *parts)


def real_rows(parts: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Batches of arrays joined: name -> [N, ...], without the rows that "example_mask" calls padding."""
    masks = [np.asarray(part["example_mask"]) for part in parts]
    names = [name for name in (parts or [{}])[0] if name != "example_mask"]
    return joined(
        [{name: np.asarray(part[name])[mask] for name in names} for part, mask in zip(parts, masks)]
    )


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Rows of several batches as one: name -> [N, ...]."""
    return {name: np.concatenate(widened([part[name] for part in parts], 1)) for name in (parts or [{}])[0]}


def widened(arrays: Sequence[np.ndarray], first: int) -> list[np.ndarray]:
    """Arrays whose axes from `first` on are padded to the longest: integers with -1, others with 0."""
    shapes = {array.shape[first:] for array in arrays}
    longest = [max(lengths) for lengths in zip(*shapes)]

    def pad(array: np.ndarray) -> np.ndarray:
        widths = [(0, 0)] * first + [(0, n - m) for n, m in zip(longest, array.shape[first:])]
        return np.pad(array, widths, constant_values=-1 if np.issubdtype(array.dtype, np.integer) else 0)

    return list(arrays) if len(shapes) == 1 else [pad(array) for array in arrays]


@dataclass(frozen=True)
class Monitor:
    """What evaluations have shown so far."""

    mode: Direction
    """Whether more of the metric is better ("max") or less ("min")."""
    min_delta: float = 0.0
    """How much better than `reference` counts as an improvement."""
    best: float | None = None
    """The best value so far; None before the first evaluation."""
    best_step: int | None = None
    """The step it was measured at."""
    reference: float | None = None
    """The value of the last improvement: of small gains, only their sum counts."""
    waited: int = 0
    """Evaluations since then."""

    def seen(self, step: int, value: float) -> "Monitor":
        """The monitor after an evaluation. NaN is never the best, and never improves."""
        after = replace(self, waited=self.waited + 1)
        if self.gain(value, self.best) > 0:
            after = replace(after, best=value, best_step=step)
        if self.gain(value, self.reference) > self.min_delta:
            after = replace(after, reference=value, waited=0)
        return after

    def gain(self, value: float, over: float | None) -> float:
        """How much better `value` is than another; than none at all, infinitely. NaN for NaN."""
        if over is None:
            return math.inf if value == value else math.nan
        return value - over if self.mode == "max" else over - value

    def to_json(self) -> dict[str, Any]:
        """What evaluations have shown, for a checkpoint's `progress`."""
        return {name: getattr(self, name) for name in ("best", "best_step", "reference", "waited")}


def monitor_problems(config: Any, task: Task, model: Any, batches: Any) -> Iterator[str]:
    """Yields a line if what a config's section `eval` watches is no metric, or not one of these batches."""
    watched, mode, direction = config.monitor, config.mode, task.direction(config.monitor)
    absent = task.absent_metrics(model, batches)
    if watched not in task.metric_names:
        yield f"eval.monitor={watched!r}: not a metric; {did_you_mean(watched, task.metric_names)}"
    elif watched in absent:
        given = ", ".join(name for name in task.metric_names if name not in absent)
        yield f"eval.monitor={watched!r}: {absent[watched]}; choose one of: {given}"
    elif mode not in (None, direction):
        better = f"of {watched} {'more' if direction == 'max' else 'less'} is better"
        yield f"eval.mode={mode!r}: {better}; remove it, or choose {direction!r}"
