"""One step of a run, done again: from the nearest checkpoint before it, with the very batches, keys and rates."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.checkpoints import Checkpoints
from jaxformer.debugging.finite import Place, first_not_finite
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.launching import attempts
from jaxformer.runs import Run
from jaxformer.state import TrainState, from_items, to_items
from jaxformer.teacher import load_teacher

MEASURED = "train/examples_per_second"  # is of the machine, not of the step
ROUNDING = 1e-5  # of a metric, which devices change that add in another order


@dataclass(frozen=True)
class Replay:
    """A step that was done again."""

    start: int
    """The step of the checkpoint that it was rebuilt from; 0 for a fresh state."""
    metrics: dict[str, float]
    """The step's metrics now."""
    logged: dict[str, float]
    """Those that the run wrote then; none if it wrote none at this step."""
    place: Place | None
    """Where the first number that is not finite comes from; None if all are finite."""
    layout: tuple[int, int]
    """How many devices and processes do the step now."""
    trained: tuple[int, int]
    """How many did it then; zeros where the run does not say."""

    @property
    def differences(self) -> dict[str, tuple[float, float]]:
        """Metric -> its value then and now, where these are not the same to the bit."""
        pairs = {name: (then, self.metrics.get(name, math.nan)) for name, then in self.logged.items()}
        return {name: pair for name, pair in pairs.items() if not np.array_equal(*pair, equal_nan=True)}

    @property
    def largest(self) -> float:
        """The largest of the differences, as a share of the metric's value then."""
        ratios = (now / then if then else math.inf for then, now in self.differences.values())
        return max((abs(r - 1) if math.isfinite(r) else math.inf for r in ratios), default=0.0)

    @property
    def equal(self) -> bool:
        """Whether it is the run's step: to the bit, or to rounding where other devices or processes did it then."""
        elsewhere = all(self.trained) and self.trained != self.layout
        return not self.differences or (elsewhere and self.largest < ROUNDING)


def replay(folder: str | Path, step: int) -> Replay:
    """Does a step of a run again, and says where a number that is not finite comes from.

    Args:
      folder: a run's folder; nothing in it is changed.
      step: the step, counted from 1, as the log counts them.

    Raises:
      UserError: the folder is no run's, or the run has no such step, or its data is not there.
    """
    run = Run.open(folder)
    experiment = Experiment(run.read_config())
    experiment.check()
    if not 1 <= step <= experiment.total_steps:
        raise UserError(f"step={step}: the training has the steps 1 to {experiment.total_steps}")
    teacher = load_teacher(experiment)
    fixed = () if teacher is None else (teacher.variables,)
    train_step = experiment.train_step(teacher)
    state = nearest_state(experiment, run, step - 1)
    start, metrics, arguments = int(state.step), dict[str, jax.Array](), tuple[Any, ...]()
    for number, batch in enumerate(experiment.train_batches(state, stop=step), start + 1):
        if number == step:
            arguments = jax.tree.map(jnp.copy, (state, batch, *fixed))  # the state that goes in is given away
        state, metrics = train_step(state, batch, *fixed)
    now = {f"train/{name}": float(value) for name, value in jax.device_get(metrics).items()}
    bad = not np.isfinite(list(now.values())).all()
    place = first_not_finite(train_step, *arguments) if bad else None
    layout = jax.device_count(), jax.process_count()
    return Replay(start, now, logged(run, step), place, layout, trained(run, step))


def trained(run: Run, step: int) -> tuple[int, int]:
    """How many devices and processes did a step of a run; zeros where its ledger does not say."""
    made = attempts.read(run.attempts_file)
    did = (each for each in reversed(made) if each.first is not None and each.first < step)
    last = next(did, None)
    return (last.devices, last.processes) if last else (0, 0)


def nearest_state(experiment: Experiment, run: Run, step: int) -> TrainState:
    """The state of the last whole checkpoint up to a step; a fresh one where there is none."""
    with Checkpoints(run.checkpoints, read_only=True) as checkpoints:
        for saved in reversed([saved for saved in checkpoints.steps() if saved <= step]):
            try:
                restored = checkpoints.restore(to_items(experiment.state_shapes), saved)
            except UserError:  # it is damaged, and said so in the log
                continue
            if restored is not None:
                return from_items(restored.items)
    return experiment.init_state()


def logged(run: Run, step: int) -> dict[str, float]:
    """The metrics of a train step that a run wrote; {} where it wrote none."""
    return {
        name: float(values[steps == step][0])
        for name, (steps, values) in run.curves.items()
        if name.startswith("train/") and name != MEASURED and step in steps
    }
