"""A worker: takes the next trial that is due and free, trains it, writes its result, until nothing is left."""

import gc
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import jax

from jaxformer.checkpoints import Checkpoints
from jaxformer.errors import UserError, counted
from jaxformer.experiment import Experiment
from jaxformer.files import write_json
from jaxformer.observe.terminal import process_log
from jaxformer.observe.text import duration, number
from jaxformer.runs import Run
from jaxformer.sweeps.halving import Task, rung_steps
from jaxformer.sweeps.kept import Kept, program_key
from jaxformer.sweeps.leases import Leases
from jaxformer.sweeps.population import StepsDiffer, train_together
from jaxformer.sweeps.study import LEASES, LOGS, Study
from jaxformer.sweeps.together import Together
from jaxformer.train import train

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger("jaxformer")
PATIENCE = 0.02, 0.5  # seconds between two looks for something to do, the first ones and the later ones


def work(study: Study, console: "Console | None" = None) -> dict[str, Any]:
    """Does what is left of a sweep, beside other workers; returns what study.json holds.

    Args:
      study: the sweep.
      console: where the progress of trainings is shown; None logs lines.

    Raises:
      Preempted, KeyboardInterrupt: a signal came; the trial is saved, and whoever takes it goes on from there.
      UserError: the folder cannot be written any more.
    """
    leases, kept = Leases(study.folder / LEASES), Kept()
    check_population(study, kept)
    kinds: dict[Task, str] = {}
    pause, longest = PATIENCE
    while due := study.due():
        if any(take(study, tasks, leases, kept, console) for tasks in groups(study, due, kinds)):
            pause, _ = PATIENCE
        else:  # all is in the hands of others
            time.sleep(pause)
            pause = min(2 * pause, longest)
    return study.finish()


def groups(study: Study, due: Sequence[Task], kinds: dict[Task, str]) -> Iterator[list[Task]]:
    """Yields tasks that are trained at once: of one program, and at the same step; without populations one by one.

    Args:
      study: the sweep.
      due: what can be done now.
      kinds: the programs of tasks, as far as they are known; they are added.
    """
    if study.sweep.population == 1:
        yield from ([task] for task in due)
        return
    found: dict[Any, list[Task]] = defaultdict(list)
    for task in due:
        if task not in kinds:
            kinds[task] = program_key(study.config(task))
        run = Run(study.run(task))
        alone = task if run.finished() else None
        found[
            kinds[task], Checkpoints(run.checkpoints, read_only=True).latest_step(), task.rung, alone
        ].append(task)
    for tasks in found.values():
        size = study.sweep.population
        yield from (tasks[first : first + size] for first in range(0, len(tasks), size))


def check_population(study: Study, kept: Kept) -> None:
    """Makes sure that this machine can train as many at once as the sweep says.

    Raises:
      UserError: their memory is too small, or a part of the model cannot be trained so.
    """
    largest = max(groups(study, study.due(), {}), key=len, default=[])
    if len(largest) > 1:
        Together([experiment_of(study, task, kept) for task in largest]).check_memory()


def check_place(study: Study) -> None:
    """Makes sure that this machine can train what is due, so that its own faults are not taken for those of trials.

    Raises:
      UserError: the data is not there, or the devices do not fit.
    """
    for task in study.due()[:1]:
        Experiment(study.config(task)).check()


def take(
    study: Study, tasks: Sequence[Task], leases: Leases, kept: Kept, console: "Console | None" = None
) -> bool:
    """Does tasks at once, those of them that nobody else does; returns whether there is something new."""
    with ExitStack() as held:
        if not held.enter_context(leases.claimed(tasks[0].run)):
            return False
        mine = [task for task in tasks[1:] if held.enter_context(leases.claimed(task.run))]
        done = study.results()  # another worker was done with one just before
        mine = [task for task in (tasks[0], *mine) if task not in done]
        began = time.monotonic()
        results = results_of(study, mine, kept, console) if mine else []
        spent = time.monotonic() - began
        for task, result in zip(mine, results, strict=True):
            if result is not None:
                write_json(study.result_file(task), {**result, "seconds": round(spent / len(mine), 3)})
        seconds = duration(spent)
    for task, result in zip(mine, results, strict=True):
        if result is None:
            continue
        said = result.get("line") or f"{study.metric} {number(float(result['value']))}"
        steps = f"after {counted(result['step'], 'step')}, " if result["step"] else ""
        together = f" with {len(mine) - 1} more" if len(mine) > 1 else ""
        logger.info(
            "trial %d, seed %d: %s: %s (%s%s%s)", *task[:2], result["status"], said, steps, seconds, together
        )
    return not mine or any(result is not None for result in results)


def results_of(
    study: Study, tasks: Sequence[Task], kept: Kept, console: "Console | None" = None
) -> list[dict[str, Any] | None]:
    """Trains trials to their rung; None if the folder of a run is still in another process's hands.

    A trial that diverges, needs too much memory, or fails otherwise is a result, too.

    Raises:
      UserError: a file cannot be written or read: that is no fault of the trial's.
    """
    log = study.folder / LOGS / f"{tasks[0].run}.log"
    found: Sequence[dict[str, Any] | Exception]
    try:
        with process_log(log, alone=True) if console is None else nullcontext():
            found = (
                [trained(study, tasks[0], kept, console)]
                if len(tasks) == 1
                else trained_together(study, tasks, kept)
            )
    except StepsDiffer:
        return [None for _ in tasks]  # what is damaged stands apart now
    except Exception as error:
        if len(tasks) > 1 and not from_system(error):
            logger.warning(
                "%s fail together, and are trained one by one: %s", counted(len(tasks), "trial"), error
            )
            return [each for task in tasks for each in results_of(study, [task], kept, console)]
        found = [error for _ in tasks]
    return [as_result(study, each) for each in found]


def from_system(error: Exception) -> OSError | None:
    """What a file or a folder has refused, where that is the cause."""
    cause = error.__cause__ if isinstance(error, UserError) else error
    return cause if isinstance(cause, OSError) else None


def as_result(study: Study, found: dict[str, Any] | Exception) -> dict[str, Any] | None:
    """What is written of a training: see `results_of`."""
    if isinstance(found, Exception):
        if (refused := from_system(found)) is not None:
            if isinstance(refused, BlockingIOError):
                return None
            raise found
        lines = found.lines if isinstance(found, UserError) else (f"{type(found).__name__}: {found}",)
        return {"status": "failed", "step": None, "value": None, "line": lines[0].splitlines()[0]}
    metrics = found["final"]
    return {
        "status": found["status"],
        "step": found["step"],
        "value": metrics[study.metric],
        "metrics": metrics,
    }


def experiment_of(study: Study, task: Task, kept: Kept) -> Experiment:
    """The experiment of a task; in a sweep with populations it has one device."""
    config = study.config(task)
    devices = jax.local_devices()[:1] if study.sweep.population > 1 else None
    return Experiment(config, devices, shared=kept.of(config))


def trained(study: Study, task: Task, kept: Kept, console: "Console | None" = None) -> dict[str, Any]:
    """What `train` gives for a task, up to its rung."""
    experiment = experiment_of(study, task, kept)
    ends = pause_after(study, task, experiment)
    found = train(experiment, study.run(task), pause_after=ends, console=console)
    del experiment
    clear_memory()
    return found


def trained_together(study: Study, tasks: Sequence[Task], kept: Kept) -> Sequence[dict[str, Any] | Exception]:
    """What `train` gives for each task of a group, or its error."""
    experiments = [experiment_of(study, task, kept) for task in tasks]
    ends = pause_after(study, tasks[0], experiments[0])
    found = train_together(experiments, [study.run(task) for task in tasks], ends)
    del experiments
    clear_memory()
    return found


def pause_after(study: Study, task: Task, experiment: Experiment) -> int | None:
    """The step at which a task's rung ends; None: the end of the training."""
    ends = rung_steps(study.rules.shares, experiment.total_steps)
    return None if task.rung == len(ends) - 1 else ends[task.rung]


def clear_memory() -> None:
    """Makes place for the arrays of the next trials."""
    gc.collect()
    freeze()


@cache
def freeze() -> None:
    """What the first trials of this process leave is kept, and not looked through again after all others."""
    gc.freeze()
