"""Which of several processes the others wait for, and why: a line in the log of process 0.

Each process says through the coordination service, now and then, how far it is and what its latest steps waited for.
Devices have no part in it, and a thread of its own does it: the loop does nothing, and a service that does not answer
keeps nobody waiting.
"""

import logging
import statistics
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from typing import Any

import jax

from jaxformer.observe import text
from jaxformer.observe.timing import Clock
from jaxformer.parallel.meeting import numbered
from jaxformer.parallel.processes import said_by_all, say_to_all

EVERY = 5.0  # seconds
WAITED = 10.0  # seconds that others have waited for a process before it is named
LATE, LATE_SECONDS = 0.2, 0.02  # of a step's time, and at least so many seconds
BUSY = 0.1  # of a step's time: a process that waits longer for its devices than that holds nobody up
SILENT = 6  # times in a row that nothing new was heard of a process
STEPS = ("train", "compile")  # phases in which a process waits for the others
logger = logging.getLogger("jaxformer")


@dataclass(frozen=True)
class Said:
    """What a process says of itself."""

    number: int
    """How often it has said something."""
    steps: int
    """Train steps that it has taken."""
    phase: str
    """What it does now, as its clock calls it."""
    seconds: float
    """How long it has been doing that."""
    waits: Mapping[str, float] | None
    """Medians of its latest steps: seconds for data, dispatch and the device; None while there were few."""

    @property
    def place(self) -> tuple[int, bool]:
        """How far it is: the steps taken, and whether it is in the next."""
        return self.steps, self.phase in STEPS


def behind(said: Mapping[int, Said], silent: Mapping[int, float]) -> dict[int, str]:
    """The processes that the others wait for: number -> the reason in words.

    Where all stand, these are the ones that are not as far as the others. Where all go on, they are those whose host is
    later with a step than the others' and whose devices are never waited for. A device that is slower than others
    cannot be told from here while all go on: they wait for each other on the devices, equally long.

    Args:
      said: what each process said last.
      silent: those of which nothing new was heard for long, and for how many seconds.
    """
    if silent:
        return {
            index: f"nothing was heard of it for {text.duration(seconds)}"
            for index, seconds in silent.items()
        }
    furthest = max((each.place for each in said.values()), default=(0, False))
    waited = max((each.seconds for each in said.values() if each.place == furthest), default=0.0)
    if furthest[1] and waited >= WAITED:
        return {
            index: f"the others have waited for it for {text.duration(waited)}, it is at {each.phase!r}"
            for index, each in said.items()
            if each.place < furthest
        }
    return late(said)


def late(said: Mapping[int, Said]) -> dict[int, str]:
    """The processes whose host is later with each step than the others', see `behind`."""
    waits = {index: each.waits for index, each in said.items() if each.waits is not None}
    if not waits or len(waits) < len(said):
        return {}
    step = statistics.median(sum(each.values()) for each in waits.values())
    usual = {
        name: statistics.median_low(each[name] for each in waits.values()) for name in ("data", "dispatch")
    }
    found = {}
    for index, each in waits.items():
        more = {name: each[name] - usual[name] for name in usual}
        cause = max(more, key=more.__getitem__)
        if each["the device"] <= BUSY * step and more[cause] > max(LATE * step, LATE_SECONDS):
            took = f"{text.duration(more[cause])} longer for {cause} in each step of {text.duration(step)}"
            found[index] = f"it takes {took}"
    return found


class Stragglers(AbstractContextManager["Stragglers"]):
    """Within this context the process says how far it is, and process 0 looks who is behind, on a thread.

    A process that is behind is told of once, when it is found so twice in a row, and again if it was not for a while.

    Args:
      clock: the training's.
    """

    def __init__(self, clock: Clock):
        self.clock, self.numbers, self.over = clock, count(), threading.Event()
        self.heard: dict[int, tuple[int, int]] = {}  # the latest number, and how often it was the same
        self.found: dict[int, str] = {}
        self.told: set[int] = set()
        self.thread = threading.Thread(target=self.watch, name="stragglers", daemon=True)

    def __enter__(self) -> "Stragglers":
        self.thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.over.set()
        self.thread.join(EVERY)

    def watch(self) -> None:
        """Says and looks, until the context ends."""
        try:
            while not self.over.wait(EVERY):
                say_to_all("pace", vars(self.saying()))
                if jax.process_index() == 0:
                    self.look({index: Said(**each) for index, each in said_by_all("pace").items() if each})
            say_to_all("pace", None)  # it has ended, and is no longer waited for
        except jax.errors.JaxRuntimeError:
            pass  # the service is gone, and this process will be, too

    def saying(self) -> Said:
        """What this process has to say now."""
        (phase, since), counts, pace = self.clock.current, self.clock.counts, self.clock.pace
        steps = counts["compile"] + counts["train"]
        return Said(next(self.numbers), steps, phase, time.monotonic() - since, pace.medians())

    def look(self, said: Mapping[int, Said]) -> None:
        """Logs which processes are behind that were not before."""
        for index, each in said.items():
            number, same = self.heard.get(index, (-1, 0))
            self.heard[index] = (each.number, same + 1 if each.number == number else 0)
        silent = {i: self.heard[i][1] * EVERY for i in said if self.heard[i][1] >= SILENT}
        before, self.found = self.found, behind(said, silent)
        new = sorted(index for index in self.found if index in before and index not in self.told)
        self.told = self.told & (self.found.keys() | before.keys()) | {*new}
        if new:
            first = f"process {new[0]}: " if len(new) > 1 else ""
            logger.warning("%s: behind the others; %s%s", numbered(new), first, self.found[new[0]])
