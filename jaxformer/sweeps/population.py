"""A population: trainings of one program, several at once under `jax.vmap`; each has a run of its own.

Their configs differ in numbers alone (`numbers.py`), and these get an axis in front, as the states do. All of them take
step n at the same time; what a run writes, and when, is what it would write if it were trained alone. On several
devices the axis is split over them; each training is on one.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxformer.analysis.memory import memory_errors_explained
from jaxformer.checkpoints import Checkpoints
from jaxformer.evaluation.evaluator import Found, GivenUp, evaluated
from jaxformer.experiment import Experiment
from jaxformer.files import naming_files
from jaxformer.launching.watchdog import Watchdog
from jaxformer.observe.terminal import Progress
from jaxformer.observe.timing import Clock, Profile
from jaxformer.observe.writers import MetricWriter
from jaxformer.preemption import Preemption
from jaxformer.reporting import NotFinite, announce, entered, finish, finish_paused, finish_preempted, note
from jaxformer.runs import Run
from jaxformer.state import TrainState
from jaxformer.sweeps.together import Together, at
from jaxformer.train import AGAIN, Loop, restore_or_start

Tree = Any


@dataclass
class Member:
    """One of the trainings."""

    loop: Loop
    """Its run, checkpoints, monitor and writer."""
    state: TrainState | None
    """Its state where it begins, and again when it is over; None while it is among the others'."""
    records: int
    """How many records of metrics there were before."""
    error: NotFinite | None = None
    """Why it was given up."""

    @property
    def is_over(self) -> bool:
        """Whether it is trained no more: it was stopped early or given up."""
        return self.error is not None or self.loop.stopped_early()


class StepsDiffer(Exception):
    """The trainings do not stand at the same step: a checkpoint was damaged."""


def train_together(
    experiments: Sequence[Experiment], folders: Sequence[Path], pause_after: int | None = None
) -> list[dict[str, Any] | NotFinite]:
    """Trains several experiments at once, from scratch or from where their runs stopped, all at the same step.

    Args:
      experiments: they share programs (`sweeps/kept.py`), and have one device each, the same.
      folders: the folders of their runs.
      pause_after: as in `train`.

    Returns:
      For each what `train` returns, or the error that it would raise for this one.

    Raises:
      Preempted, KeyboardInterrupt: a signal came; all are saved.
      StepsDiffer: some of the runs have to be trained apart.
      UserError: as of `train`.
    """
    clock, first = Clock(), experiments[0]
    with (
        Preemption() as preemption,
        memory_errors_explained(first),
        ExitStack() as held,
    ):
        with clock.phase("startup"):
            members = [
                held.enter_context(opened(experiment, folder, clock, preemption, pause_after))
                for experiment, folder in zip(experiments, folders, strict=True)
            ]
        held.enter_context(Watchdog(first.config.watchdog, clock, folders[0]))
        with preemption.deferred():
            Training(members, Together(experiments)).run()
            if preemption.requested is not None:
                for member in members:
                    finish_preempted(member.loop, preemption.requested)
        return [result_of(member) for member in members]


@contextmanager
def opened(
    experiment: Experiment, folder: Path, clock: Clock, preemption: Preemption, pause_after: int | None
) -> Iterator[Member]:
    """Opens a member's run, and its files of metrics."""
    experiment.check()
    run, config = Run(folder), experiment.config
    monitor, total = config.eval.monitor, experiment.total_steps
    with naming_files(run.folder, AGAIN), ExitStack() as held:
        run, _ = held.enter_context(entered(run, experiment, run.check(config)))
        direction = experiment.task.direction(monitor)
        checkpoints = held.enter_context(Checkpoints(run.checkpoints, config.checkpoint, monitor, direction))
        state, seen, due, records = restore_or_start(experiment, checkpoints)
        announce(experiment, run, int(state.step))
        last = total if pause_after is None else min(total, pause_after)
        nothing = Profile(None, run.folder)
        loop = Loop(experiment, run, checkpoints, clock, preemption, nothing, None, None, seen, last)
        loop.step = loop.first = int(state.step)
        loop.evaluation_due = due
        loop.writer = held.enter_context(MetricWriter(run.folder, loop.first, records))
        loop.progress = Progress(total, loop.first, enabled=False)
        yield Member(loop, state, records)


def result_of(member: Member) -> dict[str, Any] | NotFinite:
    """What came of a member; writes the end of its run."""
    loop, state = member.loop, member.state
    if member.error is not None:
        return member.error
    assert state is not None
    if loop.last <= loop.step < loop.experiment.total_steps and not loop.stopped_early():
        return finish_paused(loop, state)
    return finish(loop, state)


@dataclass
class Training:
    """Takes the steps of a population, and has each member evaluate, save and write when it is due."""

    members: list[Member]
    """All of them."""
    together: Together
    """Their programs."""
    unread: tuple[int, Tree] | None = None
    """The latest step whose metrics are still on the devices."""

    def run(self) -> None:
        """Trains until all are over, or a signal came; each member has its state then.

        Raises:
          StepsDiffer: the members do not begin at the same step.
        """
        loop = self.members[0].loop
        if len({member.loop.step for member in self.members}) > 1:
            raise StepsDiffer
        start, clock = loop.step, loop.clock
        if any(member.loop.evaluation_due for member in self.members):
            for member in self.members:
                assert member.state is not None
                member.loop.evaluate(member.state)
        if start >= loop.last or loop.preemption.due():
            return
        states = self.together.stack([member.state for member in self.members])
        for member in self.members:
            member.state = member.state if member.is_over else None
        if not self.alive:
            return
        for step, batch in enumerate(clock.each("data", self.together.batches(start, loop.last)), start + 1):
            compiles, evaluates = clock.pace.compiles(batch), loop.due(loop.eval_every, step)
            with clock.phase("compile" if compiles else "train"):
                placed = self.together.on_devices(batch)
                states, metrics = self.together.train_step(states, placed, self.together.numbers)
                self.read()
                self.unread = (step, metrics)
                if compiles or evaluates:
                    self.read()
            for member in self.alive:
                member.loop.step, member.loop.evaluation = step, None
                member.loop.checkpoints.check()
                if step == start + 1:
                    note(member.loop)
            if evaluates:
                self.evaluate(states)
            if self.after(states, ends=loop.preemption.due() or step == loop.last):
                break

    @property
    def alive(self) -> list[Member]:
        """Those that are still trained."""
        return [member for member in self.members if member.state is None and member.error is None]

    def after(self, states: Tree, ends: bool) -> bool:
        """Saves what is due after a step; returns whether nothing is left to train."""
        due = [member for member in self.alive if ends or member.is_over or member.loop.save_is_due()]
        if due:
            self.read()
        parts = self.together.apart(states) if due else []
        for member, part in zip(self.members, parts):
            if member in due and member.error is None:
                member.loop.save(part)
                if ends or member.is_over:
                    member.state = part
        return not self.alive

    def read(self) -> None:
        """Waits for the latest step that is not read yet; its metrics are written where they are due."""
        if self.unread is None:
            return
        (step, metrics), self.unread = self.unread, None
        found = jax.device_get(metrics)
        for index, member in enumerate(self.members):
            if member.state is None and member.error is None:
                member.loop.unread = (step, {name: values[index] for name, values in found.items()})
                try:
                    member.loop.read()
                except NotFinite as error:
                    member.error = error

    def evaluate(self, states: Tree) -> None:
        """Evaluates all members at once."""
        first, together = self.members[0].loop, self.together
        batches = first.experiment.eval_data
        found = [
            Found(member.loop.experiment.task, batches, first.experiment.layout) for member in self.members
        ]
        variables = states.variables()

        def step_of(batch: Tree) -> Tree:
            return together.eval_step(variables, jax.device_put(batch, together.whole), together.numbers)

        for member in self.alive:
            member.loop.evaluation_due = True
        with first.clock.phase("evaluate"):
            try:
                for step, parts in evaluated(step_of, batches, first.experiment.layout, first.gives_up):
                    for index, each in enumerate(found):
                        each.add(step, *at(parts, index))
            except GivenUp:
                return
        for member, each in zip(self.members, found):
            if member.state is None and member.error is None:
                member.loop.evaluated(each.evaluation())
