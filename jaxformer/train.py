"""The training loop, from top to bottom like a recipe."""

import logging
import math
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from jaxformer.analysis.memory import check_memory, memory_errors_explained
from jaxformer.checkpoints import Checkpoints, agreed, checkpoint_of
from jaxformer.errors import UserError
from jaxformer.evaluation.evaluator import GivenUp, Monitor
from jaxformer.experiment import Experiment
from jaxformer.files import naming_files
from jaxformer.launching.watchdog import Watchdog
from jaxformer.observe.terminal import Progress
from jaxformer.observe.timing import Clock, Profile
from jaxformer.observe.writers import MetricWriter
from jaxformer.parallel.processes import together
from jaxformer.preemption import Preemption, SharedPreemption
from jaxformer.reporting import NotFinite as NotFinite
from jaxformer.reporting import announce, entered, finish, finish_paused, finish_preempted, not_finite, note
from jaxformer.runs import Run
from jaxformer.state import TrainState, all_finite, from_items, to_items
from jaxformer.tasks.base import Evaluation

if TYPE_CHECKING:
    from rich.console import Console

    from jaxformer.teacher import LoadedTeacher

logger = logging.getLogger("jaxformer")
Scalars = dict[str, jax.Array]
AGAIN = "mend that, and train again in the same folder"


def train(
    experiment: Experiment,
    folder: str | Path,
    *,
    profile: str | None = None,
    start_from: str | Path | None = None,
    pause_after: int | None = None,
    console: "Console | None" = None,
) -> dict[str, Any]:
    """Trains from scratch, or from where the run in `folder` stopped, to the end.

    Args:
      experiment: the experiment to train.
      folder: the run's folder; it is made if it does not exist.
      profile: steps to trace, "FIRST:LAST".
      start_from: a checkpoint of another run, RUN/checkpoints/STEP: the parameters, optimizer and step with which a run
        begins that has saved nothing yet. The config may have other rates, another schedule and another length.
      pause_after: a step to stop after, saved and evaluated; the same call with a later one or None goes on exactly.
      console: where the progress is shown; None logs lines.

    Returns:
      The run's result, as in result.json; its "status" is "completed", "stopped early" or "paused".

    Raises:
      Preempted: SIGTERM or SIGHUP came; the run is saved, and the same call goes on with it.
      KeyboardInterrupt: Ctrl-C; the run is saved, too. A second Ctrl-C does not wait for that.
      UserError: the config does not fit data, devices or their memory; the folder holds another experiment, or another
        training is in it; or a file cannot be written.
      NotFinite: losses or gradients stayed infinite or NaN; the last good checkpoint is kept, and named.
    """
    if not isinstance(experiment, Experiment):
        raise UserError(f"experiment={experiment!r}: expected the result of `jaxformer.experiment(...)`")
    if folder == "":
        raise UserError("folder='': is no name of a folder; a variable may be empty")
    from jaxformer.teacher import load_teacher  # it asks whether there is one

    clock, run, several = Clock(), Run(Path(folder)), jax.process_count() > 1
    with clock.phase("startup"), together() as same:
        if several:
            from jaxformer.agreement import facts, shared  # a process alone agrees with itself
            from jaxformer.observe.stragglers import Stragglers

            same |= facts(experiment)
        experiment.check()
        if cached_images := experiment.config.train.cached_images:
            from jaxformer.evaluation.locked import check_locked, with_image_features

            check_locked(experiment)
        check_memory(experiment)
        config = run.check(experiment.config)
        tracer = Profile(profile, run.folder)
        if start_from is not None:
            checkpoint_of(start_from, experiment.total_steps)
        if tracer.first > (total := experiment.total_steps):
            raise UserError(f'profile="{profile}": begins after the last step, which is {total}')
    with clock.phase("startup"):
        teacher = None if run.finished() else load_teacher(experiment)
    saving, monitor = experiment.config.checkpoint, experiment.config.eval.monitor
    with (
        SharedPreemption() if several else Preemption() as preemption,
        naming_files(run.folder, AGAIN),
        ExitStack() as held,
    ):
        with together(), naming_files(run.folder, AGAIN):
            if jax.process_index() == 0:
                run, config = held.enter_context(entered(run, experiment, config))
        if several:
            held.enter_context(shared(run))
            held.enter_context(Stragglers(clock))
        held.enter_context(Watchdog(experiment.config.watchdog, clock, run.folder))
        if config != experiment.config:
            data: dict[str, Any] = {"train_data": experiment.train_data, "eval_data": experiment.eval_data}
            experiment = Experiment(config, experiment.devices, **data)
        if (result := run.finished()) is not None:
            status, step = result["status"], result["step"]
            logger.info("%s is finished (%s at step %d): nothing to do", folder, status, step)
            return result
        with (
            memory_errors_explained(experiment),
            Checkpoints(run.checkpoints, saving, monitor, experiment.task.direction(monitor)) as checkpoints,
        ):
            with clock.phase("startup"):
                with clock.phase("restore" if checkpoints.steps() else "startup"):
                    begun = restore_or_start(experiment, checkpoints, teacher, start_from)
                state, seen, evaluation_due, records = begun
                if cached_images and not several:
                    experiment = with_image_features(experiment, experiment.merged(state.variables()))
                announce(experiment, run, int(state.step))
            last = total if pause_after is None else min(total, pause_after)
            loop = Loop(experiment, run, checkpoints, clock, preemption, tracer, console, teacher, seen, last)
            with preemption.deferred():
                state = loop.run(state, evaluation_due, records)
                if preemption.requested is not None:
                    finish_preempted(loop, preemption.requested)
            if last <= loop.step < total and not loop.stopped_early():
                return finish_paused(loop, state)
            return finish(loop, state)


def restore_or_start(
    experiment: Experiment,
    checkpoints: Checkpoints,
    teacher: "LoadedTeacher | None" = None,
    start_from: str | Path | None = None,
) -> tuple[TrainState, Monitor, bool, int]:
    """The state of the newest checkpoint, of `start_from` or a fresh one, with the evaluations' results until then.

    Returns:
      The state, the monitor, whether the evaluation of this step is still due, and how many records of metrics there
      were until this step.

    Raises:
      UserError: the checkpoint is of a training split of another size, so its steps mean other examples; or the
        teacher's checkpoint is another one than before; or `start_from` is no checkpoint, or leaves nothing to train.
    """
    config = experiment.config.eval
    monitor = Monitor(experiment.task.direction(config.monitor), config.min_delta)
    restored = checkpoints.restore(to_items(experiment.state_shapes))
    begins = restored is None
    if begins and start_from is not None:
        step, other = checkpoint_of(start_from, experiment.total_steps)
        with Checkpoints(other, read_only=True) as others:
            restored = others.restore(to_items(experiment.state_shapes), step)
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
    if begins:
        return from_items(items), monitor, False, 0
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
    """Whether a signal asks for the end."""
    tracer: Profile
    """The trace of some of the steps."""
    console: "Console | None"
    """Where the progress is shown."""
    teacher: "LoadedTeacher | None"
    """The teacher of a distillation."""
    monitor: Monitor
    """Which evaluation was the best."""
    last: int
    """The step to stop after."""
    step: int = 0
    """Train steps taken so far."""
    evaluation: Evaluation | None = None
    """The evaluation of the latest step, if there was one."""
    evaluation_due: bool = False
    """Whether the latest step's evaluation was given up for a preemption."""
    skipped: int = 0
    """How many of the latest updates were skipped, up to the latest step whose metrics are read."""
    unread: tuple[int, Scalars] | None = None
    """The latest step whose metrics are still on the devices."""
    saved_at: float = field(default_factory=time.monotonic)
    """When the last save began, by the monotonic clock."""
    first: int = 0
    """The step that this process went on from."""
    rated: tuple[int, float] = (0, 0.0)
    """Train steps and their seconds when `examples_per_second` was last asked for."""

    def __post_init__(self) -> None:
        config, steps = self.experiment.config, self.experiment.steps
        self.eval_every = steps(config.eval.every)
        self.log_every = min(steps(config.train.log_every), max(1, self.experiment.total_steps // 20))
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
        start = self.first = self.step = int(state.step)
        with (
            MetricWriter(self.run_folder.folder, start, records) as self.writer,
            Progress(total, start, data.batch_size, data.steps_per_epoch, self.console) as self.progress,
            self.tracer,
        ):
            self.evaluation_due = evaluation_due
            if evaluation_due:
                self.evaluate(state)
            stop = start if self.evaluation_due or self.stopped_early() else max(start, self.last)
            with data.read(start, *experiment.layout.reader, stop=stop) as batches:
                arriving = self.clock.each("data", batches)
                for self.step, batch in enumerate(arriving, start + 1):
                    compiles, evaluates = self.clock.pace.compiles(batch), self.due(self.eval_every)
                    self.tracer.before(self.step)
                    with self.clock.phase("compile" if compiles else "train"):
                        begun = time.monotonic()
                        state, metrics = train_step(state, experiment.layout.shard_batch(batch), *fixed)
                        dispatched = time.monotonic()
                        self.read()  # the step before this one, which runs meanwhile
                        self.unread = (self.step, metrics)
                        if compiles or evaluates:
                            self.read()
                    if self.step == start + 1:
                        note(self)
                    if not compiles:
                        waits = (self.clock.latest["data"], dispatched - begun, time.monotonic() - dispatched)
                        self.clock.pace.took(self.step, *waits)
                    self.tracer.after(self.step, metrics)
                    self.checkpoints.check()

                    self.evaluation = None
                    if evaluates:
                        self.evaluate(state)
                    ends = self.preemption.due() or self.stopped_early() or self.step == self.last
                    if ends or self.save_is_due():
                        self.save(state)
                    if ends:
                        break
                self.read()
        return state

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
        self.skipped = int(metrics["skipped_in_a_row"])
        stuck = self.skipped >= self.experiment.config.train.stop_after_skipped
        self.progress.advance(step)
        if stuck or self.due(self.log_every, step):
            values = {f"train/{name}": float(value) for name, value in jax.device_get(metrics).items()}
            values["train/examples_per_second"] = self.examples_per_second()
            self.writer.write(step, values)
            self.progress.show(step, {"train/loss": values["train/loss"], **values})
        if stuck:
            raise not_finite(self, step)

    def examples_per_second(self) -> float:
        """Over the train steps since this was last asked; evaluation, saving and compiling are left out."""
        (steps, seconds), self.rated = self.rated, (self.clock.counts["train"], self.clock.seconds["train"])
        done = (self.rated[0] - steps) * self.experiment.train_data.batch_size
        return done / (self.rated[1] - seconds) if done else 0.0

    def evaluate(self, state: TrainState) -> None:
        """Evaluates a state, and tells of it (`evaluated`).

        If a signal asks for the end meanwhile, the evaluation stays due.
        """
        late, self.evaluation_due = self.evaluation_due, True
        with self.clock.phase("evaluate"), self.progress.activity("evaluating"):
            try:
                evaluation = self.experiment.evaluate(state, self.gives_up)
            except GivenUp:
                return
        self.evaluated(evaluation)
        if late:  # the step was saved without it
            self.checkpoints.rate(self.step, evaluation.ranked, self.is_good(state))

    def evaluated(self, evaluation: Evaluation) -> None:
        """Tells the monitor, the writer and the progress line what the latest step's evaluation has given."""
        self.evaluation, self.evaluation_due, metrics = evaluation, False, evaluation.metrics
        self.monitor = self.monitor.seen(self.step, evaluation.ranked[self.experiment.config.eval.monitor])
        self.writer.write(self.step, {f"eval/{name}": value for name, value in metrics.items()})
        self.progress.evaluated(self.step, metrics)

    def gives_up(self) -> bool:
        """Whether a signal asks an evaluation to end; is asked before each of its batches."""
        self.checkpoints.check()
        return self.clock.renew() or self.preemption.due()

    def save_is_due(self) -> bool:
        """Whether to save after this step: by steps, by the clock, and when the evaluation was the best yet."""
        every_minutes, by_clock = self.experiment.config.checkpoint.every_minutes, False
        if every_minutes is not None and (jax.process_count() == 1 or self.due(self.log_every)):
            by_clock = bool(agreed(lambda: time.monotonic() - self.saved_at >= 60 * every_minutes))
        best = self.evaluation is not None and self.monitor.best_step == self.step
        return best or by_clock or self.due(self.save_every)

    def is_good(self, state: TrainState) -> bool:
        """Whether one could go on from a state: its update was applied, it is finite, and so is its evaluation."""
        loss = self.evaluation.metrics.get("loss", 0.0) if self.evaluation else 0.0
        return not self.skipped and math.isfinite(loss) and bool(all_finite(to_items(state)["params"]))

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
            self.checkpoints.save(self.step, to_items(state), progress, metrics, self.is_good(state))
            self.saved_at = time.monotonic()
        note(self)
