"""The training loop, from top to bottom like a recipe."""

import logging
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from jaxformer.analysis.memory import memory_errors_explained
from jaxformer.checkpoints import Checkpoints
from jaxformer.errors import UserError
from jaxformer.evaluation.evaluator import GivenUp, Monitor, evaluate
from jaxformer.experiment import Experiment
from jaxformer.observe.clock import Clock
from jaxformer.observe.profile import Profile
from jaxformer.observe.progress import Progress
from jaxformer.observe.writers import MetricWriter
from jaxformer.preemption import Preemption
from jaxformer.reporting import announce, finish, write_result
from jaxformer.runs import Run
from jaxformer.state import TrainState, from_items, to_items
from jaxformer.tasks.base import Evaluation
from jaxformer.teacher import LoadedTeacher, load_teacher

if TYPE_CHECKING:
    from rich.console import Console

    from jaxformer.data.batches import Reader

logger = logging.getLogger("jaxformer")
Scalars = dict[str, jax.Array]


class NotFinite(UserError):
    """Too many updates in a row were skipped because a gradient was not finite."""


def train(
    experiment: Experiment,
    folder: str | Path,
    *,
    profile: str | None = None,
    console: "Console | None" = None,
) -> dict[str, Any]:
    """Trains from scratch, or from where the run in `folder` stopped, to the end.

    Args:
      experiment: what to train.
      folder: the run's folder; made if it is not there.
      profile: steps to trace, "FIRST:LAST".
      console: where the progress is shown; None logs lines.

    Returns:
      The run's result, as in result.json; its "status" is "completed", "stopped early" or "preempted".

    Raises:
      UserError: the config does not fit the data or the devices, or the folder holds another experiment or
        another training is in it; or the devices' memory does not suffice.
      NotFinite: gradients stayed infinite or NaN; the last good checkpoint is kept.
    """
    if not isinstance(experiment, Experiment):
        raise UserError(f"experiment={experiment!r}: expected what `jaxformer.experiment(...)` gives")
    clock, run = Clock(), Run(Path(folder))
    with clock.phase("startup"):
        experiment.check()
        tracer = Profile(profile, run.folder)
    with run.lock() if jax.process_index() == 0 else nullcontext():
        run.enter(experiment.config)
        if (result := run.finished()) is not None:
            logger.info(
                "%s is finished (%s at step %d): nothing to do", folder, result["status"], result["step"]
            )
            return result
        return train_in(run, experiment, clock, tracer, console)


def train_in(
    run: Run, experiment: Experiment, clock: Clock, tracer: Profile, console: "Console | None"
) -> dict[str, Any]:
    """Trains in a run's folder that is open; see `train`."""
    config, watched = experiment.config.checkpoint, experiment.config.eval
    first = jax.process_index() == 0
    with (
        memory_errors_explained(experiment),
        Checkpoints(run.checkpoints, config, watched.monitor, watched.mode) as checkpoints,
        Preemption() as preemption,
    ):
        with clock.phase("startup"):
            run.keep_tokenizer(experiment.train_data.tokenizer, write=first)
            if first:
                run.keep_data(experiment.train_data, experiment.eval_data)
            teacher = load_teacher(experiment)
            state, monitor, evaluation_due = restore_or_start(experiment, checkpoints, teacher)
            announce(experiment, run, int(state.step))
        start, total, batches = int(state.step), experiment.total_steps, experiment.train_data
        with (
            MetricWriter(run.folder, start, enabled=first) as writer,
            Progress(
                total,
                start,
                batches.batch_size,
                steps_per_epoch=batches.steps_per_epoch,
                console=console,
            ) as progress,
            tracer,
        ):
            loop = Loop(
                experiment, checkpoints, clock, monitor, writer, progress, tracer, preemption, teacher
            )
            state = loop.run(state, evaluation_due)
        if loop.status == "preempted":
            checkpoints.wait()
            logger.info("SIGTERM: saved at step %d; the same command goes on from there", loop.step)
            return write_result(experiment, run, clock, loop.status, loop.step, loop.monitor)
        return finish(experiment, run, checkpoints, clock, loop.status, state, loop.monitor, loop.evaluation)


def restore_or_start(
    experiment: Experiment, checkpoints: Checkpoints, teacher: LoadedTeacher | None = None
) -> tuple[TrainState, Monitor, bool]:
    """The state of the newest good checkpoint, or a fresh one, with what evaluations had shown until then.

    Returns:
      The state, the monitor, and whether the evaluation of this step is still due.

    Raises:
      UserError: the checkpoint is of a training split of another size, so its steps mean other examples; or the
        teacher's checkpoint is not the one of before.
    """
    config = experiment.config.eval
    monitor = Monitor(config.mode, config.min_delta)
    restored = checkpoints.restore(to_items(experiment.state_shapes))
    if restored is None:
        return experiment.init_state(), monitor, False
    items, progress = restored
    examples = experiment.train_data.num_examples
    if progress["epoch_examples"] != examples:
        raise UserError(
            f"data.train_split: the run was trained on {progress['epoch_examples']} examples, now there are {examples}",
            "prepare the same version of the dataset (data.version), or start a new run in another folder",
        )
    taught_by = progress.get("teacher")
    if teacher is not None and taught_by not in (None, teacher.step):
        raise UserError(
            f"task.distillation: the run was begun with the teacher at step {taught_by}, now it is at {teacher.step}",
            f"set task.distillation.checkpoint={str(taught_by)!r}, or start a new run in another folder",
        )
    logger.info("going on from step %d", progress["step"])
    return from_items(items), replace(monitor, **progress["monitor"]), progress["evaluation_due"]


class Loop:
    """Takes the train steps; evaluates, saves and writes when each is due.

    Args:
      experiment: what is trained.
      checkpoints: where states are saved.
      clock: counts the seconds of each phase.
      monitor: which evaluation was the best.
      writer: takes the metrics.
      progress: shows how far the training is.
      tracer: traces some of the steps.
      preemption: whether SIGTERM came.
      teacher: the teacher of a distillation; None if there is none.

    Attributes:
      status: "completed", "stopped early" or "preempted", once `run` has returned.
      step: train steps taken so far.
      evaluation: the latest evaluation if it is of the latest step, else None.
      evaluation_due: whether the latest step's evaluation was given up for a preemption.
    """

    def __init__(
        self,
        experiment: Experiment,
        checkpoints: Checkpoints,
        clock: Clock,
        monitor: Monitor,
        writer: MetricWriter,
        progress: Progress,
        tracer: Profile,
        preemption: Preemption,
        teacher: LoadedTeacher | None = None,
    ):
        self.experiment, self.checkpoints, self.clock, self.monitor = experiment, checkpoints, clock, monitor
        self.writer, self.progress, self.tracer = writer, progress, tracer
        self.preemption, self.teacher = preemption, teacher
        config = self.config = experiment.config
        self.total = experiment.total_steps
        self.eval_every = experiment.steps(config.eval.every)
        self.log_every = experiment.steps(config.train.log_every)
        self.save_every = (
            None if config.checkpoint.every is None else experiment.steps(config.checkpoint.every)
        )
        self.saved_at = time.monotonic()
        self.rated = (0, 0.0)
        self.unread: tuple[int, Scalars] | None = None
        self.step = 0
        self.status = "completed"
        self.evaluation: Evaluation | None = None
        self.evaluation_due = False

    def run(self, state: TrainState, evaluation_due: bool = False) -> TrainState:
        """Trains to the end, to an early stop or to a preemption; returns the last state.

        Args:
          state: where to begin.
          evaluation_due: whether this state's evaluation was given up for a preemption.
        """
        layout, start = self.experiment.layout, int(state.step)
        self.step, self.evaluation_due = start, evaluation_due
        train_step = self.experiment.train_step(self.teacher)
        fixed = () if self.teacher is None else (self.teacher.variables,)
        if evaluation_due:
            self.evaluation = self.evaluate(state)
            if self.evaluation is None:  # preempted again: it stays due
                self.status = "preempted"
                return state
        with self.batches(start) as batches:
            for self.step, batch in enumerate(batches, start + 1):
                first = self.step == start + 1
                evaluates = self.step % self.eval_every == 0 or self.step == self.total
                self.tracer.before(self.step)
                with self.clock.phase("compile" if first else "train"):
                    state, metrics = train_step(state, layout.shard_batch(batch), *fixed)
                    self.read()  # the step before this one, which runs meanwhile
                    self.unread = (self.step, metrics)
                    if first or evaluates:
                        self.read()
                self.tracer.after(self.step, metrics)

                self.evaluation = self.evaluate(state) if evaluates else None
                self.evaluation_due = evaluates and self.evaluation is None
                if self.save_is_due(self.preemption.requested):
                    self.save(state)
                if self.stopped_early() or self.preemption.requested:
                    break
            self.read()
        if self.step < self.total or self.evaluation_due:
            self.status = "stopped early" if self.stopped_early() else "preempted"
        return state

    def batches(self, start: int) -> "Reader":
        """This process's rows of the batches from step `start` on; none if training is over."""
        stop = start if self.stopped_early() else self.total
        return self.experiment.train_data.read(start, jax.process_index(), jax.process_count(), stop=stop)

    def read(self) -> None:
        """Waits for the latest step that is not read yet, if there is one; writes its metrics when they are due."""
        if self.unread is None:
            return
        (step, metrics), self.unread = self.unread, None
        stuck = int(metrics["skipped_in_a_row"]) >= self.config.train.stop_after_skipped
        self.progress.advance(step)
        if step % self.log_every == 0 or step == self.total or stuck:
            values = {f"train/{name}": float(value) for name, value in jax.device_get(metrics).items()}
            values["train/examples_per_second"] = self.examples_per_second()
            self.writer.write(step, values)
            self.progress.show(step, {"train/loss": values["train/loss"], **values})
        if stuck:
            raise self.not_finite(step)

    def not_finite(self, step: int) -> NotFinite:
        """What to say when no update has been finite for too long; the last save is waited for."""
        self.checkpoints.wait()
        last = self.checkpoints.latest_step()
        kept = "there is no checkpoint yet" if last is None else f"the last good checkpoint is of step {last}"
        count = self.config.train.stop_after_skipped
        updates = "update was" if count == 1 else f"{count} updates were"
        return NotFinite(
            f"step {step}: the last {updates} skipped, their gradients were not finite; {kept}",
            "lower optimizer.learning_rate, set optimizer.clip_norm, or use precision='float32'",
        )

    def examples_per_second(self) -> float:
        """Over the train steps since this was last asked; evaluation, saving and compiling are left out."""
        now = (self.clock.count("train"), self.clock.seconds_of("train"))
        (steps, seconds), self.rated = self.rated, now
        done = (now[0] - steps) * self.experiment.train_data.batch_size
        return done / (now[1] - seconds) if done else 0.0

    def evaluate(self, state: TrainState) -> Evaluation | None:
        """Evaluates and tells the monitor, the writer and the progress line; None if SIGTERM came meanwhile."""
        experiment = self.experiment
        with self.clock.phase("evaluate"), self.progress.activity("evaluating"):
            try:
                evaluation = evaluate(
                    experiment.eval_step,
                    state.variables(),
                    experiment.task,
                    experiment.eval_data,
                    experiment.layout,
                    give_up=lambda: self.preemption.requested,
                )
            except GivenUp:
                return None
        self.monitor = self.monitor.seen(self.step, evaluation.metrics[self.config.eval.monitor])
        self.writer.write(self.step, {f"eval/{name}": value for name, value in evaluation.metrics.items()})
        self.progress.evaluated(self.step, evaluation.metrics)
        if self.evaluation_due:  # the step was saved without it
            self.checkpoints.rate(self.step, evaluation.metrics)
            self.evaluation_due = False
        return evaluation

    def stopped_early(self) -> bool:
        """Whether the monitored metric has not improved for `eval.patience` evaluations."""
        patience = self.config.eval.patience
        return patience is not None and self.monitor.waited >= patience

    def save_is_due(self, preempted: bool) -> bool:
        """Whether to save after this step: when asked for, when due, and when the evaluation was the best yet."""
        minutes = self.config.checkpoint.every_minutes
        return (
            preempted
            or self.step == self.total
            or self.stopped_early()
            or (self.evaluation is not None and self.monitor.best_step == self.step)
            or (self.save_every is not None and self.step % self.save_every == 0)
            or (minutes is not None and time.monotonic() - self.saved_at >= 60 * minutes)
        )

    def save(self, state: TrainState) -> None:
        """Starts saving in the background; what was measured until then is written first."""
        self.read()
        with self.clock.phase("checkpoint"):
            metrics = None if self.evaluation is None else self.evaluation.metrics
            tokenizer = self.experiment.train_data.tokenizer
            progress = {
                "step": self.step,
                "monitor": self.monitor.to_json(),
                "evaluation_due": self.evaluation_due,
                "epoch_examples": self.experiment.train_data.num_examples,
                "tokenizer": None if tokenizer is None else tokenizer.digest,
                "teacher": None if self.teacher is None else self.teacher.step,
            }
            self.checkpoints.save(self.step, to_items(state), progress, metrics)
            self.saved_at = time.monotonic()
