"""Model soups: the mean of the parameters of several runs, or of several checkpoints of one, as a run of its own.

A mean costs nothing when it predicts, which an ensemble does. It is worth something where the parameters lie in one
basin: runs that were fine-tuned from the same weights (Wortsman et al. 2022, Model soups), or late checkpoints of one
training (Vaswani et al. 2017, section 6.1; Izmailov et al. 2018).
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxformer.checkpoints import Checkpoints
from jaxformer.config import schema
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.inference.loaded import LoadedRun
from jaxformer.inference.untrained import write_run
from jaxformer.runs import Run, differences

logger = logging.getLogger("jaxformer")
Tree = Any


@dataclass(frozen=True)
class Ingredient:
    """A checkpoint."""

    folder: Path
    step: int
    variables: Tree
    """On the host."""

    def __str__(self) -> str:
        return f"{self.folder} at step {self.step}"


def make_soup(
    folders: Sequence[str | Path],
    output: Path,
    *,
    last: int | None = None,
    greedy: bool = False,
    split: str | None = None,
) -> dict[str, Any]:
    """Writes a run whose parameters are a mean.

    Args:
      folders: runs with the same model.
      output: the folder of the soup; nothing may be there yet.
      last: takes the last checkpoints of each run, so many; None: the best one of each.
      greedy: goes from the best checkpoint to the worst, and keeps each with which the mean is no worse than before
        (Wortsman et al. 2022, recipe 1); else all are taken.
      split: what `greedy` measures on; None: the first run's `eval.split`. It should not be the test split.

    Returns:
      "ingredients", the checkpoints that are in it, and of a greedy soup the metric, before ("best") and after.

    Raises:
      UserError: a folder is not a run's, there are not two checkpoints, the models differ, or `output` holds
        something.
    """
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{output}: is not empty; name another folder")
    found: list[Ingredient] = []
    first: Any = None
    for folder in map(Path, folders):
        for loaded in checkpoints_of(folder, last):
            first = first or loaded
            check_alike(first, loaded)
            found.append(Ingredient(folder, loaded.step, jax.device_get(loaded.variables)))
    if len(found) < 2:
        one = ", ".join(map(str, folders))
        remedy = "name more runs, or take the last checkpoints of each"
        raise UserError(f"{one}: a soup is a mean of two checkpoints or more; {remedy}")
    said: dict[str, Any] = {}
    if greedy:
        found, said = chosen(found, first, split)
    variables = mean([one.variables for one in found])
    run = Run(output)
    of_first = first.experiment
    config = run.check(replace(of_first.config, adapter=None))  # what it adds is in the parameters
    experiment = Experiment(config, train_data=of_first.train_data, eval_data=of_first.eval_data)
    with run.lock() as run:
        state = experiment.init_state()
        params = jax.tree.map(placed, variables.pop("params"), state.params)
        state = replace(state, params=params, model_state=jax.tree.map(placed, variables, state.model_state))
        if state.average is not None:
            state = replace(state, average=params)
        write_run(run, experiment, state)
    return {"run": str(output), "ingredients": [str(one) for one in found], **said}


def checkpoints_of(folder: Path, last: int | None) -> Iterator[LoadedRun]:
    """Yields a run with each checkpoint that is asked for, the oldest first."""
    if last is None:
        yield LoadedRun(folder)
        return
    with Checkpoints(Run.open(folder).checkpoints, read_only=True) as checkpoints:
        steps = checkpoints.steps()
    if len(steps) < last:
        there = ", ".join(map(str, steps)) or "none"
        remedy = "a training keeps as many as checkpoint.keep says"
        raise UserError(f"{folder}: has fewer than {last} checkpoints (steps: {there}); {remedy}")
    for step in steps[-last:]:
        yield LoadedRun(folder, step)


def check_alike(first: LoadedRun, other: LoadedRun) -> None:
    """Raises UserError if two runs' parameters do not mean the same."""
    models = [schema.to_dict(run.experiment.config)["model"] for run in (first, other)]
    changed = {path: pair for path, pair in differences(models).items() if path != "pretrained"}
    shapes = [jax.tree.map(np.shape, run.variables) for run in (first, other)]
    if shapes[0] != shapes[1] or changed:
        what = ", ".join(f"model.{path} {old!r} and {new!r}" for path, (old, new) in changed.items())
        raise UserError(
            f"{other.run.folder}: its model is not that of {first.run.folder} ({what or 'other shapes'})",
            "their predictions can be averaged all the same: see evaluate",
        )


def chosen(
    found: Sequence[Ingredient], first: LoadedRun, split: str | None
) -> tuple[list[Ingredient], dict[str, Any]]:
    """The ingredients of a greedy soup, and what was measured."""
    metric = first.config.eval.monitor
    sign = 1 if first.task.direction(metric) == "max" else -1

    def measured(some: Sequence[Ingredient]) -> float:
        run = copy.copy(first)
        run.variables = jax.device_put(mean([one.variables for one in some]), run.layout.replicated)
        value = run.evaluate(split).ranked.get(metric, float("nan"))
        logger.info("%s: %s %.6g", " + ".join(map(str, some)), metric, value)
        return value

    alone = sorted(((measured([one]), one) for one in found), key=lambda pair: -sign * pair[0])
    best, kept = alone[0][0], [alone[0][1]]
    value = best
    for _, one in alone[1:]:
        together = measured([*kept, one])
        if sign * (together - value) >= 0:
            kept, value = [*kept, one], together
    return kept, {"metric": metric, "best": best, "soup": value}


def mean(trees: Sequence[Tree]) -> dict[str, Tree]:
    """The mean of trees of arrays, made in float64; integers are the first tree's."""

    def of(*leaves: Any) -> np.ndarray:
        arrays = [np.asarray(leaf) for leaf in leaves]
        if arrays[0].dtype.kind in "iub":
            return arrays[0]
        return np.mean([array.astype(np.float64) for array in arrays], axis=0).astype(arrays[0].dtype)

    return dict(jax.tree.map(of, *trees))


def placed(value: np.ndarray, like: jax.Array) -> jax.Array:
    """An array where and as another one is."""
    return jax.device_put(value.astype(like.dtype), like.sharding)
