"""Whether a training that has ended is started again: the table of exit codes, the budgets, and the decision."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from jaxformer.errors import NoRoom
from jaxformer.launching import HUNG
from jaxformer.launching.attempts import Attempt
from jaxformer.preemption import EXIT_CODE, INTERRUPTED

Kind = Literal["over", "saved", "infrastructure", "failed"]
KILLED = 137

# What the exit code of a training means. "over": it is never started again. "saved": again at once if there is a newer
# checkpoint. "infrastructure", "failed": again after a while, as long as the budgets last. Others are "failed".
EXITS: dict[int, tuple[Kind, str]] = {
    0: ("over", "done"),
    1: ("failed", "the program failed"),
    2: ("over", "a mistake of the user's"),
    69: ("infrastructure", "other processes of the training could not be reached"),
    NoRoom.code: ("infrastructure", "no room was left on the disk"),
    EXIT_CODE: ("saved", "saved, and to be continued"),
    HUNG: ("infrastructure", "hung, and was ended by the watchdog"),
    INTERRUPTED: ("over", "interrupted"),
    134: ("infrastructure", "aborted (SIGABRT): another process of the training may have died before"),
    KILLED: ("infrastructure", "killed (SIGKILL): by the system where memory ran out, or by somebody"),
    139: ("infrastructure", "crashed (SIGSEGV)"),
    143: ("infrastructure", "ended by SIGTERM before it could save"),
    255: ("infrastructure", "the connection was lost"),
}


@dataclass(frozen=True)
class Budgets:
    """How often, and after how long, a training is started again. A newer checkpoint refunds everything."""

    without_progress: int = 3
    """Attempts in a row that leave no newer checkpoint; then it is over."""
    before_first_step: int = 2
    """Attempts before the very first train step is taken; then it is over."""
    shortest: float = 5.0
    """Seconds before an attempt after the first that failed; each further one in a row waits twice as long."""
    longest: float = 300.0
    """Seconds at most before an attempt."""


@dataclass(frozen=True)
class Restart:
    """The training is started again."""

    after: float
    """In so many seconds."""


@dataclass(frozen=True)
class Stop:
    """The training is not started again."""

    why: str
    """The reason."""


def kind_of(exit_code: int) -> Kind:
    """What becomes of a training with an exit code, see EXITS."""
    return EXITS.get(exit_code, EXITS[1])[0]


def meaning(exit_code: int) -> str:
    """An exit code in words."""
    if exit_code in EXITS:
        return EXITS[exit_code][1]
    signals = {128 + number: number.name for number in signal.Signals}
    return f"ended by {signals[exit_code]}" if exit_code in signals else EXITS[1][1]


def decide(attempts: Sequence[Attempt], budgets: Budgets = Budgets()) -> Restart | Stop:
    """What to do after an attempt. After a rehearsal that went well, the training is started; it has its own budgets.

    Args:
      attempts: one or more that have ended, the latest last; those that an earlier supervisor counted, too.
      budgets: how often it may be started again.
    """
    last = attempts[-1]
    kind = kind_of(last.exit)
    if last.rehearsal and last.exit == 0:
        return Restart(0.0)
    if kind == "over" or (last.rehearsal and kind == "failed"):
        return Stop(last.why)
    attempts = [each for each in attempts if each.rehearsal == last.rehearsal]
    fruitless = len(list(takewhile(lambda attempt: not attempt.progress, reversed(attempts))))
    if not fruitless:
        return Restart(0.0 if kind == "saved" else budgets.shortest)
    if last.rehearsal and fruitless >= budgets.before_first_step:
        return Stop(f"the rehearsal failed in {fruitless} attempts: {last.why}")
    if fruitless >= budgets.before_first_step and not any(each.steps or each.saved for each in attempts):
        return Stop(f"no train step was reached in {fruitless} attempts")
    if fruitless >= budgets.without_progress:
        newest = (
            f"the newest checkpoint is of step {last.saved:,}" if last.saved else "there is no checkpoint"
        )
        return Stop(f"no progress in {fruitless} attempts: {newest}")
    return Restart(min(budgets.longest, budgets.shortest * 2 ** (fruitless - 1)))
