"""A worker: takes the next trial that is due and free, trains it, writes its result, until nothing is left."""

import gc
import logging
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from jaxformer.errors import UserError, counted
from jaxformer.experiment import Experiment
from jaxformer.files import write_json
from jaxformer.observe.terminal import process_log
from jaxformer.observe.text import duration, number
from jaxformer.shared import Kept
from jaxformer.sweeps.halving import Task, rung_steps
from jaxformer.sweeps.leases import Leases
from jaxformer.sweeps.study import LEASES, LOGS, Study
from jaxformer.train import train

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger("jaxformer")
PATIENCE = 0.5  # seconds between two looks for something to do


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
    while due := study.due():
        if not any(take(study, task, leases, kept, console) for task in due):
            time.sleep(PATIENCE)  # all is in the hands of others
    return study.finish()


def check_place(study: Study) -> None:
    """Makes sure that this machine can train what is due, so that its own faults are not taken for those of trials.

    Raises:
      UserError: the data is not there, or the devices do not fit.
    """
    for task in study.due()[:1]:
        Experiment(study.config(task)).check()


def take(study: Study, task: Task, leases: Leases, kept: Kept, console: "Console | None" = None) -> bool:
    """Does a task, if nobody else does; returns whether there is something new."""
    with leases.claimed(task.run) as mine:
        if not mine:
            return False
        if task in study.results():  # another worker was done with it just before
            return True
        began = time.monotonic()
        result = result_of(study, task, kept, console)
        if result is None:
            return False
        spent = time.monotonic() - began
        write_json(study.result_file(task), {**result, "seconds": round(spent, 3)})
        seconds = duration(spent)
    said = result.get("line") or f"{study.metric} {number(float(result['value']))}"
    steps = f"after {counted(result['step'], 'step')}, " if result["step"] else ""
    logger.info(
        "trial %d, seed %d: %s: %s (%s%s)", task.trial, task.seed, result["status"], said, steps, seconds
    )
    return True


def result_of(
    study: Study, task: Task, kept: Kept, console: "Console | None" = None
) -> dict[str, Any] | None:
    """Trains a trial to its rung; None if the folder of its run is still in another process's hands.

    A trial that diverges, needs too much memory, or fails otherwise is a result, too.

    Raises:
      UserError: a file cannot be written or read: that is no fault of the trial's.
    """
    log = study.folder / LOGS / f"{task.run}.log"
    try:
        with process_log(log, alone=True) if console is None else nullcontext():
            found = trained(study, task, kept, console)
    except Exception as error:
        cause = error.__cause__ if isinstance(error, UserError) else error
        if isinstance(cause, BlockingIOError):
            return None
        if isinstance(cause, OSError):
            raise
        lines = error.lines if isinstance(error, UserError) else (f"{type(error).__name__}: {error}",)
        return {"status": "failed", "step": None, "value": None, "line": lines[0].splitlines()[0]}
    metrics = found["final"]
    return {
        "status": found["status"],
        "step": found["step"],
        "value": metrics[study.metric],
        "metrics": metrics,
    }


def trained(study: Study, task: Task, kept: Kept, console: "Console | None" = None) -> dict[str, Any]:
    """The result of `train`, up to a task's rung."""
    config = study.config(task)
    experiment = Experiment(config, shared=kept.of(config))
    ends = rung_steps(study.rules.shares, experiment.total_steps)
    pause_after = None if task.rung == len(ends) - 1 else ends[task.rung]
    result = train(experiment, study.run(task), pause_after=pause_after, console=console)
    del experiment
    gc.collect()  # its arrays make place for those of the next trial
    if not gc.get_freeze_count():
        gc.freeze()  # what the first trial leaves is kept, and not looked through again after every other one
    return result
