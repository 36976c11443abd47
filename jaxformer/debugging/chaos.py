"""A training that is killed at random moments, beside the same one that is left alone: both have to end alike.

The training runs as users run it, in several processes under the supervisor, each run in a folder of its own. All
that is random derives from a seed (`troubles.py`); how much a process has done by a moment is the machine's to decide,
so that kills of the same seed fall on other steps.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from jaxformer.checkpoints import Checkpoints
from jaxformer.debugging.disks import fill, small_disk, taken
from jaxformer.debugging.troubles import (
    FULL,
    KINDS,
    SLOW,
    Outcome,
    Trouble,
    first_difference,
    planned,
    summary,
    told,
)
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.launching import ATTEMPTS
from jaxformer.launching import attempts as ledger
from jaxformer.launching.attempts import Attempt, newest_checkpoint
from jaxformer.launching.base import SUPERVISOR
from jaxformer.launching.decisions import Budgets
from jaxformer.launching.processes import alive, stat
from jaxformer.paths import leaves_by_path
from jaxformer.runs import Run
from jaxformer.state import to_items

WHOLE, DISTURBED = "whole", "disturbed"  # the folders of the runs
LOOK = 0.02  # seconds between two looks at the ledger
PATIENCE = 600.0  # seconds in which what was done to a training has to show
PAUSE = 4.0  # seconds that "slow" processes stand still: less than any heartbeat's limit
FILLER, ROOM = ".filler", 2**20  # the file that fills a disk; bytes that a run may need more for each restart
PARENT = 1  # place in /proc/NUMBER/stat behind the name

Process: TypeAlias = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Chaos:
    """Trains a config twice, undisturbed and disturbed, and compares what comes out."""

    experiment: Experiment
    """What is trained."""
    command: Callable[[Path], list[str]]
    """The folder of a run -> the words of its training."""
    folder: Path
    """Gets a folder for each run, and what each of them said."""
    kills: int
    """How often it is disturbed."""
    interval: int
    """Steps from one checkpoint to the next."""
    seed: int
    """Of all that is random."""
    environment: Mapping[str, str]
    """Variables of the trainings."""
    say: Callable[[str], None]
    """Takes lines for people."""

    def check(self) -> None:
        """Refuses a folder in which there are such runs.

        Raises:
          UserError: there are.
        """
        for run in (self.folder / WHOLE, self.folder / DISTURBED):
            if run.exists():
                raise UserError(f"{run}: is there already; name another folder by `workdir`, or remove it")

    def run(self) -> bool:
        """Whether both trainings end with the same state, and the disturbed one by itself.

        Raises:
          UserError: it fails undisturbed.
        """
        whole, disturbed = self.folder / WHOLE, self.folder / DISTURBED
        self.say(f"training undisturbed in {whole}")
        began = time.monotonic()
        with self.supervised(whole) as process:
            code = process.wait()
        if code:
            raise UserError(f"{whole}: the training fails undisturbed, exit code {code}; see {whole}.log")
        between = time.monotonic()
        self.say(f"training disturbed in {disturbed}")
        with small_disk(disturbed, 2 * taken(whole) + ROOM * (self.kills + 1)) as fills:
            if not fills:
                self.say("a full disk is left out: only root may mount a small disk in memory (tmpfs)")
            kinds = [kind for kind in KINDS if fills or kind != FULL]
            code, outcomes = self.disturb(disturbed, planned(self.kills, self.seed, kinds))
        seconds = (between - began, time.monotonic() - between)
        if outcomes:
            for line in summary(outcomes, self.interval, seconds):
                self.say(line)
        if code:
            self.say(f"the disturbed training did not end by itself: exit code {code}; see {disturbed}.log")
            return False
        if len(outcomes) < self.kills:
            self.say(f"only {len(outcomes)} of {self.kills} kills were made before it ended; train longer")
            return False
        if any(outcome.trouble.kind == SLOW and outcome.seconds is not None for outcome in outcomes):
            self.say(f"the training died when processes stood still for {PAUSE:.0f} s; see {disturbed}.log")
            return False
        found, expected = self.state(disturbed), self.state(whole)
        different = first_difference(found, expected)
        equal = f"parameters equal, bit for bit ({len(found)} arrays, with the optimizer's)"
        self.say(f"not equal: {different}" if different else equal)
        return different is None

    @contextmanager
    def supervised(self, run: Path) -> Iterator[Process]:
        """The supervisor of a run's training; it is asked to end when an exception comes. RUN.log gets the output."""
        budget = str(Budgets().without_progress)
        words = [sys.executable, *SUPERVISOR[1:], budget, str(run), *self.command(run)]
        environment = dict(self.environment)
        with (
            run.with_name(f"{run.name}.log").open("ab") as log,
            subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=environment) as process,
        ):
            try:
                yield process
            except BaseException:
                process.terminate()
                process.wait()
                raise

    def disturb(self, run: Path, plan: Sequence[Trouble]) -> tuple[int, list[Outcome]]:
        """Trains, and makes trouble; returns the supervisor's exit code, and what came of the troubles."""
        outcomes: list[Outcome] = []
        rhythm = rhythm_of(ledger.read(self.folder / WHOLE / ATTEMPTS)[-1])
        seen = 0
        with self.supervised(run) as process:
            for trouble in plan:
                if (number := moment(process, run, seen, trouble, rhythm)) is None:
                    break
                outcomes.append(make(process, run, number, trouble))
                self.say(told(len(outcomes), outcomes[-1]))
                seen = number + (outcomes[-1].seconds is not None)
            return process.wait(), outcomes

    def state(self, run: Path) -> dict[str, np.ndarray]:
        """The arrays of a run's newest checkpoint by path."""
        with Checkpoints(Run(run).checkpoints, read_only=True) as checkpoints:
            restored = checkpoints.restore(to_items(self.experiment.state_shapes))
        assert restored is not None
        return {path: np.asarray(leaf) for path, leaf in leaves_by_path(restored.items).items()}


def rhythm_of(attempt: Attempt) -> tuple[float, float]:
    """Seconds until a training has taken its first step, and between two checkpoints, with evaluations."""
    first, last = attempt.marks[0], attempt.marks[-1]
    between = (last.seconds["total"] - first.seconds["total"]) / max(1, len(attempt.marks) - 1)
    return start_of(attempt), between


def start_of(attempt: Attempt) -> float:
    """Seconds until an attempt took its first step; infinity where it took none."""
    if not attempt.marks or attempt.began is None:
        return float("inf")
    return attempt.began - attempt.start + attempt.marks[0].seconds["total"]


def moment(
    process: Process, run: Path, seen: int, trouble: Trouble, rhythm: tuple[float, float]
) -> int | None:
    """Waits for the moment of a trouble; returns the number of the attempt that it meets, None if no more is made.

    Args:
      process: the supervisor.
      run: the run's folder.
      seen: how many attempts have ended.
      trouble: what comes.
      rhythm: see `rhythm_of`.
    """
    saved = float("inf")  # when its first checkpoint was seen
    while not ended(process):
        attempts = ledger.read(run / ATTEMPTS)
        if len(attempts) > seen and (last := attempts[-1]).end is None:
            if newest_checkpoint(run) > last.before:
                saved = min(saved, time.time())
            start, between = rhythm
            start = min([start, *map(start_of, attempts)])  # what it has compiled once it finds again
            # A start that was quicker than that is over once it has saved: then it comes at once.
            early = min(last.start + trouble.share * start, saved)
            if time.time() >= (early if trouble.early else saved + trouble.share * between):
                return len(attempts) - 1
        time.sleep(LOOK)
    return None


def make(process: Process, run: Path, number: int, trouble: Trouble) -> Outcome:
    """Makes trouble for an attempt, and waits until the supervisor has noticed.

    Raises:
      UserError: it does not notice.
    """
    began, saved = time.time(), newest_checkpoint(run)
    leader = ledger.read(run / ATTEMPTS)[number].process["number"]

    def waiting() -> bool:
        if time.time() - began > PATIENCE:
            raise UserError(f"{run}: {trouble.kind} shows nothing in {PATIENCE:.0f} s; see {run}.log")
        time.sleep(LOOK)
        return not ended(process)

    if trouble.kind == FULL:
        while stat(leader) and waiting():
            fill(run / FILLER)
        (run / FILLER).unlink(missing_ok=True)
    elif trouble.kind == SLOW:
        send(leader, trouble, signal.SIGSTOP)
        time.sleep(PAUSE)
        send(leader, trouble, signal.SIGCONT)
    else:
        send(leader, trouble, signal.Signals[trouble.kind])
    slow = trouble.kind == SLOW  # and so it has to save once more, or to come to its end
    while (attempt := ledger.read(run / ATTEMPTS)[number]).end is None and waiting():
        if slow and newest_checkpoint(run) > saved:
            break
    # The supervisor may have written the end, and left, since the last look.
    attempt = ledger.read(run / ATTEMPTS)[number]
    if slow and not attempt.exit:
        return Outcome(trouble, None, 0)
    end = attempt.end or time.time()
    return Outcome(trouble, max(0.0, end - began), max(0, reached(run, attempt) - newest_checkpoint(run)))


def send(leader: int, trouble: Trouble, number: signal.Signals) -> None:
    """Sends a signal to the processes that a trouble meets."""
    for target in targets(leader, trouble.process):
        with suppress(ProcessLookupError):
            os.kill(target, number)


def targets(leader: int, share: float | None) -> list[int]:
    """The processes that train, which the leader of a session has started; one of them by its share, or all.

    While it has started none, that is the leader itself.
    """
    found = [number for number in sorted(alive(leader)) if stat(number)[PARENT : PARENT + 1] == [str(leader)]]
    found = found or [leader]
    return found if share is None else [found[int(share * len(found))]]


def reached(run: Path, attempt: Attempt) -> int:
    """The last step that an attempt is known to have taken; 0 if it took none."""
    if not attempt.marks:
        return 0
    logged = [int(steps[-1]) for steps, _ in Run(run).curves.values() if len(steps)]
    return max(attempt.marks[-1].step, (attempt.first or 0) + attempt.steps, *logged)


def ended(process: Process) -> bool:
    """Whether a process has ended."""
    return process.poll() is not None
