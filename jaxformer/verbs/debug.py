"""Looking for faults: in a config's tiny form, and in a single step of a run."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxformer.config.fields import PositiveInt
from jaxformer.errors import counted
from jaxformer.files import INCOMPLETE, made, remove, writing_to
from jaxformer.verbs.children import BEGIN
from jaxformer.verbs.common import print_line, working
from jaxformer.verbs.options import Verb, argument, flag

PARTS, PART = ("begin", "again"), "JAXFORMER_REHEARSAL"  # the variable that tells a process its part
REHEARSAL = f".rehearsal{INCOMPLETE}run"  # in the run's folder; a training clears away what a killed one left


def print_findings(name: str, config: Mapping[str, Any]) -> int:
    """Prints what the tiny form of a config shows, a line each; returns 1 if something is wrong."""
    with working():
        from jaxformer.config.sections import resolve
        from jaxformer.debugging.checks import debug

        began, wrong = time.monotonic(), 0
        print_line(f"looking for faults in {name}")
        for finding in debug(resolve(config)):
            wrong += finding.verdict == "wrong"
            print_line(f"  {finding.verdict:<6}{finding.text}")
        print_line(f"{wrong or 'nothing'} wrong, after {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


def rehearse(words: Sequence[str], folder: Path) -> int:
    """Rehearses a training in two processes, one after the other: an accelerator belongs to one at a time.

    Args:
      words: those behind "jaxformer".
      folder: that of the run; nothing stays in it.

    Returns:
      The exit code of the first that ended with another one than 0; 128 + N for signal N.

    Raises:
      UserError: the folder cannot be made.
    """
    with ExitStack() as stack:
        with writing_to(folder, "choose another folder"):
            stack.enter_context(made(folder))
        stack.callback(remove, folder / REHEARSAL)
        for part in PARTS:
            command, environment = [sys.executable, "-c", BEGIN, *words], {**os.environ, PART: part}
            ended = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, process_group=0, check=False
            )
            if code := ended.returncode:
                return code if code > 0 else 128 - code
    return 0


@dataclass(frozen=True, kw_only=True)
class Replay(Verb):
    """Do one step of a run again, from the nearest checkpoint, and name the module of the first number that is not
    finite."""

    run: Path = argument("RUN")
    """A run's folder; nothing in it is changed."""
    step: PositiveInt = flag(metavar="N")
    """The step, as the log counts them."""

    def __call__(self) -> int:
        """1 if the step is another one now than the run wrote, beyond what rounding explains."""
        with working():
            from jaxformer.debugging.replay import replay
            from jaxformer.observe.text import notes, number

            done = replay(self.run, self.step)
        begun = f"checkpoint {done.start}" if done.start else "the fresh state"
        print_line(f"step {self.step} of {self.run}, again from {begun}")
        shown = notes({name.removeprefix("train/"): number(value) for name, value in done.metrics.items()})
        for line in shown.splitlines():
            print_line(f"  {line}")
        if not done.logged:
            print_line("the run wrote no metrics at this step, so there is nothing to compare")
        elif not done.differences:
            print_line(f"equal to what the run wrote, bit for bit ({len(done.logged)} metrics)")
        elif done.equal:
            had, has = (
                f"{counted(devices, 'device')} in {counted(processes, 'process', 'processes')}"
                for devices, processes in (done.trained, done.layout)
            )
            print_line(f"equal to what the run wrote, to rounding: {done.largest:.1g} of a metric at most")
            print_line(f"the run had {had}, and now there are {has}")
        for name, (then, now) in {} if done.equal else done.differences.items():
            print_line(f"not what the run wrote: {name} was {then!r} and is {now!r}")
        finite = "every number of the step is finite"
        print_line(f"the first number that is not finite comes from {done.place}" if done.place else finite)
        return 0 if done.equal else 1
