"""The training loop, from top to bottom like a recipe."""

import logging
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from jaxformer.analysis.memory import memory_errors_explained
from jaxformer.checkpoints import Checkpoints
from jaxformer.errors import UserError
from jaxformer.evaluation.evaluator import GivenUp, Monitor
from jaxformer.experiment import Experiment
from jaxformer.observe.terminal import Progress
from jaxformer.observe.timing import Clock, Profile
from jaxformer.observe.writers import MetricWriter
from jaxformer.preemption import Preemption
from jaxformer.reporting import announce, finish
from jaxformer.runs import Run
from jaxformer.state import TrainState, from_items, to_items
from jaxformer.tasks.base import Evaluation
from jaxformer.teacher import LoadedTeacher, load_teacher

if TYPE_CHECKING:
    from rich.console import Console

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
      experiment: the experiment to train.
      folder: the run's folder; it is made if it does not exist.
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
        raise UserError(f"experiment={experiment!r}: expected the result of `jaxformer.experiment(...)`")
    clock, run, first = Clock(), Run(Path(folder)), jax.process_index() == 0
    with clock.phase("startup"):
        experiment.check()
        tracer = Profile(profile, run.folder)
    saving, monitor = experiment.config.checkpoint, experiment.config.eval.monitor
    with run.lock() if first else nullcontext(run) as run:
        if (config := run.enter(experiment.config)) != experiment.config:
            data = {"train_data": experiment.train_data, "eval_data": experiment.eval_data}
            experiment = Experiment(config, experiment.devices, **data)
        if (result := run.finished()) is not None:
            status, step = result["status"], result["step"]
            logger.info("%s is finished (%s at step %d): nothing to do", folder, status, step)
            return result
        with (
            memory_errors_explained(experiment),
            Checkpoints(run.checkpoints, saving, monitor, experiment.task.direction(monitor)) as checkpoints,
            Preemption() as preemption,
        ):
            with clock.phase("startup"):
                run.keep_data(experiment.train_data, experiment.eval_data, write=first)
                teacher = load_teacher(experiment)
                state, seen, evaluation_due, records = restore_or_start(experiment, checkpoints, teacher)
                announce(experiment, run, int(state.step))
            loop = Loop(experiment, run, checkpoints, clock, preemption, tracer, console, teacher, seen)
            return finish(loop, loop.run(state, evaluation_due, records))


def restore_or_start(
    experiment: Experiment, checkpoints: Checkpoints, teacher: LoadedTeacher | None = None
) -> tuple[TrainState, Monitor, bool, int]:
    """The state of the newest good checkpoint, or a fresh one, with the results of the evaluations until then.

    Returns:
      The state, the monitor, whether the evaluation of this step is still due, and how many records of metrics there
      were until this step.

    Raises:
      UserError: the checkpoint is of a training split of another size, so its steps mean other examples; or the
        teacher's checkpoint is another one than before.
    """
    config = experiment.config.eval
    monitor = Monitor(experiment.task.direction(config.monitor), config.min_delta)
    restored = checkpoints.restore(to_items(experiment.state_shapes))
    if restored is None:
        return experiment.init_state(), monitor, False, 0
    items, progress = restored
    before, now = progress["epoch_examples"], experiment.train_data.num_examples
    if before != now:
        raise UserError(
            f"data.train_split: the run was trained on {before} examples, now there are {now}",
            "prepare the same version of the dataset (data.version), or start a new run in another folder",
        )
    taught_by = progress.get("teacher")
    if teacher is not None and taught_by not in (None, teacher.step):
        raise UserError(
            f"task.distillation: the run was begun with the teacher at step {taught_by}, now it is at {teacher.step}",
            f"set task.distillation.checkpoint={str(taught_by)!r}, or start a new run in another folder",
        )
    logger.info("going on from step %d", progress["step"])
    monitor = replace(monitor, **progress["monitor"])
    return from_items(items), monitor, progress["evaluation_due"], progress.get("records", 0)


@dataclass
class Loop:
    """Takes the train steps; evaluates, saves and writes when each is due."""

    experiment: Experiment
    """The experiment that is trained."""
    run_folder: Run
    """The run's folder."""
    checkpoints: Checkpoints
    """The run's checkpoints."""
    clock: Clock
    """The seconds of each phase."""
    preemption: Preemption
    """Whether SIGTERM came."""
    tracer: Profile
    """The trace of some of the steps."""
    console: "Console | None"
    """Where the progress is shown."""
    teacher: LoadedTeacher | None
    """The teacher of a distillation."""
    monitor: Monitor
    """Which evaluation was the best."""
    step: int = 0
    """Train steps taken so far."""
    evaluation: Evaluation | None = None
    """The evaluation of the latest step, if there was one."""
    evaluation_due: bool = False
    """Whether the latest step's evaluation was given up for a preemption."""
    unread: tuple[int, Scalars] | None = None
    """The latest step whose metrics are still on the devices."""
    saved_at: float = field(default_factory=time.monotonic)
    """When the last save began, by the monotonic clock."""
    rated: tuple[int, float] = (0, 0.0)
    """Train steps and their seconds when `examples_per_second` was last asked for."""

    def __post_init__(self) -> None:
        config, steps = self.experiment.config, self.experiment.steps
        self.eval_every, self.log_every = steps(config.eval.every), steps(config.train.log_every)
        self.save_every = math.inf if config.checkpoint.every is None else steps(config.checkpoint.every)

    def run(self, state: TrainState, evaluation_due: bool = False, records: int = 0) -> TrainState:
        """Trains to the end, to an early stop or to a preemption; returns the last state.

        Args:
          state: where to begin.
          evaluation_due: whether this state's evaluation was given up for a preemption.
          records: how many records of metrics there were until this state.
        """
        experiment, data, total = self.experiment, self.experiment.train_data, self.experiment.total_steps
        train_step = experiment.train_step(self.teacher)
        fixed = () if self.teacher is None else (self.teacher.variables,)
        start = self.step = int(state.step)
        with (
            MetricWriter(self.run_folder.folder, start, records) as self.writer,
            Progress(total, start, data.batch_size, data.steps_per_epoch, self.console) as self.progress,
            self.tracer,
        ):
            self.evaluation_due = evaluation_due
            if evaluation_due:
                self.evaluate(state)
            stop = start if self.evaluation_due or self.stopped_early() else total
            with data.read(start, jax.process_index(), jax.process_count(), stop=stop) as batches:
                for self.step, batch in enumerate(batches, start + 1):
                    first, evaluates = self.step == start + 1, self.due(self.eval_every)
                    self.tracer.before(self.step)
                    with self.clock.phase("compile" if first else "train"):
                        state, metrics = train_step(state, experiment.layout.shard_batch(batch), *fixed)
                        self.read()  # the step before this one, which runs meanwhile
                        self.unread = (self.step, metrics)
                        if first or evaluates:
                            self.read()
                    self.tracer.after(self.step, metrics)

                    self.evaluation = None
                    if evaluates:
                        self.evaluate(state)
                    ends = self.preemption.requested or self.stopped_early() or self.step == total
                    if ends or self.save_is_due():
                        self.save(state)
                    if ends:
                        break
                self.read()
        return state

    @property
    def status(self) -> str:
        """ "completed", "stopped early" or "preempted", once `run` has returned."""
        if self.step == self.experiment.total_steps and not self.evaluation_due:
            return "completed"
        return "stopped early" if self.stopped_early() else "preempted"

    def stopped_early(self) -> bool:
        """Whether the monitored metric has not improved for `eval.patience` evaluations."""
        patience = self.experiment.config.eval.patience
        return patience is not None and self.monitor.waited >= patience

    def due(self, every: float, step: int | None = None) -> bool:
        """Whether something that comes `every` so many steps, and at the end, comes after this step (or `step`)."""
        step = self.step if step is None else step
        return step % every == 0 or step == self.experiment.total_steps

    def read(self) -> None:
        """Waits for the latest step that is not read yet, if there is one; writes its metrics when they are due."""
        if self.unread is None:
            return
        (step, metrics), self.unread = self.unread, None
        stuck = int(metrics["skipped_in_a_row"]) >= self.experiment.config.train.stop_after_skipped
        self.progress.advance(step)
        if stuck or self.due(self.log_every, step):
            values = {f"train/{name}": float(value) for name, value in jax.device_get(metrics).items()}
            values["train/examples_per_second"] = self.examples_per_second()
            self.writer.write(step, values)
            self.progress.show(step, {"train/loss": values["train/loss"], **values})
        if stuck:
            raise self.not_finite(step)

    def not_finite(self, step: int) -> NotFinite:
        """The error when no update has been finite for too long; the last save is waited for."""
        count = self.experiment.config.train.stop_after_skipped
        self.checkpoints.wait()
        last = self.checkpoints.latest_step()
        kept = "there is no checkpoint yet" if last is None else f"the last good checkpoint is of step {last}"
        updates = "update was" if count == 1 else f"{count} updates were"
        return NotFinite(
            f"step {step}: the last {updates} skipped, their gradients were not finite; {kept}",
            "lower optimizer.learning_rate, set optimizer.clip_norm, or use precision='float32'",
        )

    def examples_per_second(self) -> float:
        """Over the train steps since this was last asked; evaluation, saving and compiling are left out."""
        (steps, seconds), self.rated = self.rated, (self.clock.counts["train"], self.clock.seconds["train"])
        done = (self.rated[0] - steps) * self.experiment.train_data.batch_size
        return done / (self.rated[1] - seconds) if done else 0.0

    def evaluate(self, state: TrainState) -> None:
        """Evaluates and tells the monitor, the writer and the progress line.

        If SIGTERM comes meanwhile, the evaluation stays due.
        """
        late, self.evaluation_due = self.evaluation_due, True
        with self.clock.phase("evaluate"), self.progress.activity("evaluating"):
            try:
                self.evaluation = self.experiment.evaluate(state, lambda: self.preemption.requested)
            except GivenUp:
                return
        self.evaluation_due, metrics = False, self.evaluation.metrics
        ranked = self.evaluation.ranked
        self.monitor = self.monitor.seen(self.step, ranked[self.experiment.config.eval.monitor])
        self.writer.write(self.step, {f"eval/{name}": value for name, value in metrics.items()})
        self.progress.evaluated(self.step, metrics)
        if late:  # the step was saved without it
            self.checkpoints.rate(self.step, ranked)

    def save_is_due(self) -> bool:
        """Whether to save after this step: by steps, by the clock, and when the evaluation was the best yet."""
        every_minutes, minutes = (
            self.experiment.config.checkpoint.every_minutes,
            (time.monotonic() - self.saved_at) / 60,
        )
        by_clock = every_minutes is not None and minutes >= every_minutes
        best = self.evaluation is not None and self.monitor.best_step == self.step
        return best or by_clock or self.due(self.save_every)

    def save(self, state: TrainState) -> None:
        """Starts saving in the background; the metrics until then are written first.

        Raises:
          UserError: the run's folder was moved or removed, or the save before failed.
        """
        self.run_folder.check_place()
        self.read()
        data = self.experiment.train_data
        with self.clock.phase("checkpoint"):
            progress = {
                "step": self.step,
                "records": self.writer.flush(),
                "monitor": self.monitor.to_json(),
                "evaluation_due": self.evaluation_due,
                "epoch_examples": data.num_examples,
                "tokenizer": data.tokenizer.digest if data.tokenizer else None,
                "teacher": self.teacher.step if self.teacher else None,
            }
            metrics = self.evaluation.ranked if self.evaluation else None
            self.checkpoints.save(self.step, to_items(state), progress, metrics)
            self.saved_at = time.monotonic()
