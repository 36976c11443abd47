"""A training rehearsed in seconds: two steps, one batch of the evaluation, a save; then the third step, twice.

The second time it is taken from the checkpoint by new processes. So a rehearsal has two parts, and they share a folder.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxformer.agreement import facts, wait_to_see
from jaxformer.analysis.memory import check_memory, memory_errors_explained
from jaxformer.checkpoints import Checkpoints
from jaxformer.errors import UserError
from jaxformer.evaluation.evaluator import GivenUp
from jaxformer.experiment import Experiment
from jaxformer.files import naming_files, remove, write_json
from jaxformer.launching.watchdog import Watchdog
from jaxformer.observe.timing import Clock
from jaxformer.parallel.places import Unavailable
from jaxformer.parallel.processes import together
from jaxformer.paths import leaves_by_path
from jaxformer.reading import load_json
from jaxformer.runs import Run
from jaxformer.state import TrainState, from_items, to_items
from jaxformer.teacher import load_teacher

SAVED = 2  # the step after which it is saved
REMEDY = "mend that, and rehearse again"


class Rehearsal:
    """One part of a rehearsal. With several processes, all of them make the same calls.

    Args:
      experiment: that of the training.
      run: the folder that the training will have; nothing but `folder` is written.
      folder: a folder that all processes share, in which the checkpoint is.
      say: takes lines for people, of process 0 alone: what took how many seconds.
    """

    def __init__(self, experiment: Experiment, run: Run, folder: Path, say: Callable[[str], None]):
        self.experiment, self.run, self.folder, self.clock = experiment, run, folder, Clock()
        self.first = jax.process_index() == 0
        self.say = say if self.first else lambda line: None
        self.digests = folder / f"digests-{jax.process_index()}.json"
        self.checkpoints = folder / "checkpoints"

    def begin(self) -> None:
        """Takes three steps, with the evaluation of a batch and the save after the second.

        Raises:
          UserError: what a training would refuse.
          Unavailable: another process does another part.
        """
        with self.prepared("begin") as take:
            with together():
                if self.first:
                    remove(self.folder)
                    self.folder.mkdir()
            with together():
                wait_to_see(self.folder)
            with self.timed("startup", "the fresh state"):
                state = self.experiment.init_state()
            for number, batch in enumerate(self.experiment.train_batches(state, stop=SAVED), 1):
                state = take(state, batch, number, compiles=number == 1)
            asked = iter([False])
            with self.timed("evaluate", "evaluating a batch, with compiling"), suppress(GivenUp):
                self.experiment.evaluate(state, lambda: next(asked, True))
            with self.timed("checkpoint", "saving"), Checkpoints(self.checkpoints) as checkpoints:
                checkpoints.save(SAVED, to_items(state), {})
                checkpoints.wait()
            for batch in self.experiment.train_batches(state, stop=SAVED + 1):
                state = take(state, batch, SAVED + 1)
            write_json(self.digests, digests_of(state))

    def again(self) -> None:
        """Takes the third step from the checkpoint.

        Raises:
          UserError: what a training would refuse; or the state after the step is another one than before.
          Unavailable: another process does another part.
        """
        with self.prepared("again") as take:
            with (
                self.timed("restore", "restoring, in a new process"),
                Checkpoints(self.checkpoints, read_only=True) as checkpoints,
            ):
                restored = checkpoints.restore(to_items(self.experiment.state_shapes), SAVED)
                assert restored is not None
                state = from_items(restored.items)
            for batch in self.experiment.train_batches(state, stop=SAVED + 1):
                state = take(state, batch, SAVED + 1, compiles=True)
            size = sum(file.stat().st_size for file in self.checkpoints.rglob("*") if file.is_file())
            self.say(f"{size:,} bytes in the checkpoint")
            with together():
                before, after = load_json(self.digests), digests_of(state)
                if different := [path for path in before if before[path] != after.get(path)]:
                    lost = f"{len(different)} of {len(before)} arrays of the state differ, such as {different[0]}"
                    other = f"step {SAVED + 1} is another one when it is taken from the checkpoint"
                    raise UserError(f"{other}: {lost}")
            same = f"the same from the checkpoint, bit for bit ({len(after)} arrays of the state)"
            self.say(f"step {SAVED + 1} is {same}")

    @contextmanager
    def prepared(self, part: str) -> Iterator[Callable[..., TrainState]]:
        """Makes ready for train steps, as a training does; yields (state, batch, number, compiles) -> state."""
        try:
            with together() as same:
                same["part of the rehearsal"] = part
        except UserError as error:  # a process was started again meanwhile
            raise Unavailable(*error.lines) from error
        experiment = self.experiment
        with self.timed("startup", "starting, with the data"):
            with together() as same:
                if jax.process_count() > 1:
                    same |= facts(experiment)
                experiment.check()
                check_memory(experiment)
                self.run.check(experiment.config)
            teacher = load_teacher(experiment)
            fixed = () if teacher is None else (teacher.variables,)
            train_step = experiment.train_step(teacher)

        def take(state: TrainState, batch: Any, number: int, compiles: bool = False) -> TrainState:
            what = f"step {number}" + ", with compiling" * compiles
            with self.timed("compile" if compiles else "train", what):
                return jax.block_until_ready(train_step(state, batch, *fixed))[0]

        with (
            Watchdog(experiment.config.watchdog, self.clock, self.run.folder),
            naming_files(self.run.folder, REMEDY),
            memory_errors_explained(experiment),
        ):
            yield take

    @contextmanager
    def timed(self, phase: str, what: str) -> Iterator[None]:
        """Times the body of a `with` as a phase of the clock, and says what took so long."""
        with self.clock.phase(phase):
            yield
        self.say(f"{self.clock.latest[phase]:9.2f} s  {what}")


def digests_of(state: TrainState) -> dict[str, str]:
    """Path -> a digest of the bytes of each array of a state, as far as this process has them."""
    digests = {}
    for path, leaf in leaves_by_path(to_items(state)).items():
        pieces = {str(shard.index): shard.data for shard in leaf.addressable_shards}  # copies are there once
        data = (np.asarray(piece).tobytes() for piece in pieces.values())
        digests[path] = hashlib.sha256(b"".join(data)).hexdigest()
    return digests
