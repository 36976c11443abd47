"""What is done to a training to see whether it survives: the plan of it, and what is said of how it went.

Nothing here trains, or looks at a clock.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxformer.config.schema import to_dict
from jaxformer.config.sections import ExperimentConfig, resolve
from jaxformer.debugging.tiny import tiny
from jaxformer.errors import UserError, counted

FULL, SLOW = "full disk", "slow"
KINDS = ("SIGKILL", "SIGTERM", "SIGSTOP", SLOW, FULL)
EARLY = (
    "SIGKILL",
    "SIGTERM",
)  # may come before it has saved; a process that is stopped then has no heartbeat yet
EARLY_SHARE = 0.25
CHECKPOINTS_A_KILL = (
    3  # waiting for the next, a random time of one more, and what the machine takes to answer
)
FILE = """import json

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(json.loads({text!r}))
"""


@dataclass(frozen=True)
class Trouble:
    """What is done to a training, and when."""

    kind: str
    """One of KINDS: a signal; a disk that is full until the training ends; processes that stand still for a while."""
    early: bool
    """Whether it comes while the training starts, and not after its next checkpoint."""
    share: float
    """How much of the start, or of the time between two checkpoints, has passed by then: from 0 to 1."""
    process: float | None
    """Which of the processes it meets, as a share from 0 to 1; None: all of them. A full disk meets all."""


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    trouble: Trouble
    """What was done."""
    seconds: float | None
    """From then until the supervisor had noticed and all processes were dead; None: they went on."""
    repeated: int
    """Train steps that were taken and not saved, as far as heartbeats and the log tell."""


def planned(kills: int, seed: int, kinds: Sequence[str] = KINDS) -> list[Trouble]:
    """What is done to a training: each kind about equally often; never two early ones in a row, nor at the beginning.

    So every second attempt at least leaves a newer checkpoint, and the supervisor does not give up.
    """
    draw = random.Random(seed)
    order = [kinds[place % len(kinds)] for place in range(kills)]
    draw.shuffle(order)
    made: list[Trouble] = []
    for kind in order:
        early = kind in EARLY and bool(made) and not made[-1].early and draw.random() < EARLY_SHARE
        process = draw.random() if draw.random() < 0.5 else None
        made.append(Trouble(kind, early, draw.random(), None if kind == FULL else process))
    return made


def told(number: int, outcome: Outcome) -> str:
    """A line about one trouble."""
    trouble = outcome.trouble
    whom = "" if trouble.kind == FULL else ", all processes" if trouble.process is None else ", one process"
    when = ", while it starts" if trouble.early else ""
    steps = counted(outcome.repeated, "step")
    ended = outcome.seconds is not None and f"noticed after {outcome.seconds:.1f} s, {steps} to repeat"
    return f"{number:4}  {trouble.kind}{whom}{when}: {ended or 'it went on'}"


def summary(outcomes: Sequence[Outcome], interval: int, seconds: tuple[float, float]) -> Iterator[str]:
    """Yields lines: how often each kind, how soon it was noticed, the steps repeated, the time lost.

    Args:
      outcomes: one or more.
      interval: steps from one checkpoint to the next.
      seconds: of the training that was left alone, and of the other.
    """
    kinds = Counter(outcome.trouble.kind for outcome in outcomes)
    yield "disturbed " + ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))
    for kind in sorted(kinds):
        same = [outcome for outcome in outcomes if outcome.trouble.kind == kind]
        if took := [outcome.seconds for outcome in same if outcome.seconds is not None]:
            after = f"after {np.median(took):.1f} s (median), {max(took):.1f} s at most"
            yield f"{kind} noticed, all processes dead: {after}"
    repeated = [outcome.repeated for outcome in outcomes]
    more = sum(steps > interval for steps in repeated)
    said = f"repeated {counted(sum(repeated), 'step')} in all, {max(repeated)} at most after a kill"
    over = f"; more than that {counted(more, 'time')}, when the newest checkpoint was still being written"
    yield f"{said}; a checkpoint is saved every {counted(interval, 'step')}" + over * bool(more)
    alone, disturbed = seconds
    yield f"took {disturbed:.0f} s, undisturbed {alone:.0f} s: {disturbed - alone:.0f} s lost"


def first_difference(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> str | None:
    """The first difference between two states, arrays by path: path, index and both values; None if there is none."""
    for path in sorted(found.keys() | expected.keys()):
        if path not in found or path not in expected:
            return f"{path} is in one of the two alone"
        one, other = (np.asarray(arrays[path]) for arrays in (found, expected))
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return f"{path} is {one.dtype}{[*one.shape]}, and was {other.dtype}{[*other.shape]}"
        if one.tobytes() != other.tobytes():
            bits = (np.frombuffer(each.tobytes(), np.uint8).reshape(each.size, -1) for each in (one, other))
            first = int(np.argmax(np.any(np.not_equal(*bits), axis=1)))
            place = [int(number) for number in np.unravel_index(first, one.shape)]
            return f"{path}{place} is {one.flat[first]!r}, and was {other.flat[first]!r}"
    return None


def checked_interval(total: int, every: int | None, kills: int) -> int:
    """Steps from one checkpoint to the next.

    Args:
      total: steps of the training.
      every: the steps after which it is saved; None if it is saved by the clock alone.
      kills: how often it is to be killed.

    Raises:
      UserError: it saves too seldom for that.
    """
    steps = every or total
    if (saves := total // steps) < (needed := CHECKPOINTS_A_KILL * (kills + 1)):
        said = f"{needed} checkpoints are needed, and in {counted(total, 'step')} {counted(saves, 'is', 'are')} saved"
        raise UserError(
            f"kills={kills}: {said}", "raise train.total, save more often by checkpoint.every, or give `tiny`"
        )
    return steps


def tiny_form(config: ExperimentConfig, kills: int) -> ExperimentConfig:
    """The tiny form of a config, saved often enough for so many kills."""
    written = to_dict(tiny(config, layers=1))
    written["train"]["total"] = f"{2 * CHECKPOINTS_A_KILL * (kills + 1)} steps"
    written["checkpoint"]["every"], written["eval"]["every"] = "2 steps", "6 steps"
    return resolve(written)


def config_file(config: ExperimentConfig) -> str:
    """The text of a config file with a config in it."""
    return FILE.format(text=json.dumps(to_dict(config)))
