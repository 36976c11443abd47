"""attempts.jsonl in the folder of a run: when each attempt to train began, how far it came, when it ended, and why.

Two write it, a line at a time: the supervisor the start and the end of an attempt, the training where its seconds went,
after its first step, at every save and at its end. A line is written by one call, and is on the disk when that returns;
what a power cut has left of one is passed over. A training without a supervisor is an attempt, too.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Mark:
    """What a training had done at some moment."""

    step: int
    """Train steps of the run until then."""
    seconds: Mapping[str, float]
    """Seconds by phase since the training began, "other" and their "total", see `observe.timing.Clock`."""


@dataclass
class Attempt:
    """An attempt to train. Times are seconds since 1970."""

    start: float
    """When it began."""
    supervised: bool = False
    """Whether a supervisor started it."""
    rehearsal: bool = False
    """Whether it only rehearsed the training, and was to keep nothing."""
    host: str = ""
    """The machine that it ran on."""
    process: Mapping[str, Any] = field(default_factory=dict)
    """The process that the supervisor started: its number, and what tells it from later ones of the same number."""
    before: int = 0
    """The step of the newest checkpoint when it began; 0 where there was none."""
    began: float | None = None
    """When the training in it began, all imports done; None if it never did."""
    first: int | None = None
    """The step that it went on from."""
    devices: int = 0
    """How many devices it had."""
    processes: int = 0
    """How many processes trained together; 0 where an earlier version did not note it."""
    marks: list[Mark] = field(default_factory=list)
    """What it had done, from time to time."""
    end: float | None = None
    """When it ended; None while it runs, or if nobody saw it."""
    exit: int = 0
    """Its exit code once it has ended; 128 + N of one that signal N ended."""
    why: str = ""
    """What its exit code means."""
    steps: int = 0
    """Train steps that it was seen to take."""
    saved: int = 0
    """The step of the newest checkpoint when it ended."""

    @property
    def progress(self) -> bool:
        """Whether it has left a newer checkpoint than it found."""
        return self.saved > self.before

    @property
    def ended(self) -> float:
        """When it ended, or was last heard of."""
        heard = self.start
        if self.began is not None:
            heard = self.began + (self.marks[-1].seconds["total"] if self.marks else 0.0)
        return heard if self.end is None else self.end


def append(path: Path, event: str, **values: Any) -> None:
    """Adds a line to a ledger: what happened, and the values that belong to it."""
    line = json.dumps({"event": event, **values}).encode() + b"\n"
    with path.open("ab+", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        torn = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
        file.write(b"\n" * torn + line)
        os.fsync(file.fileno())


def events(path: Path) -> list[dict[str, Any]]:
    """The lines of a ledger, without those that were cut short; none if it is not there."""
    found = []
    with suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and "event" in event:
                    found.append(event)
    return found


def read(path: Path) -> list[Attempt]:
    """The attempts of a run in their order; none if there is no ledger.

    Raises:
      LookupError: a line lacks something.
      TypeError: a line holds something else than it should.
    """
    return folded(events(path))


def since_stop(path: Path) -> list[Attempt]:
    """The attempts since a supervisor stopped: what the budgets of the next one count."""
    found = events(path)
    stops = [place for place, event in enumerate(found) if event["event"] == "stop"]
    return [attempt for attempt in folded(found[stops[-1] + 1 if stops else 0 :]) if attempt.supervised]


def rehearsed(path: Path) -> bool:
    """Whether there was a rehearsal that went well, or a training, since the supervisor of a ledger stopped."""
    return any(not each.rehearsal or (each.end and not each.exit) for each in since_stop(path))


def folded(found: list[dict[str, Any]]) -> list[Attempt]:
    """The attempts that a ledger's lines tell of."""
    attempts: list[Attempt] = []
    for event in found:
        kind, last = event.pop("event"), attempts[-1] if attempts else None
        if kind == "start":
            attempts.append(Attempt(supervised=True, **event))
        elif kind == "end" and last is not None:
            vars(last).update(event)
        elif kind == "train":
            mark = Mark(event.pop("step"), event.pop("seconds"))
            began = event["began"]
            if last is None or last.end is not None or last.began not in (None, began):
                last = Attempt(start=began)
                attempts.append(last)
            vars(last).update(event)
            last.marks.append(mark)
    return attempts


def newest_checkpoint(run: Path) -> int:
    """The step of the newest committed checkpoint in a run's folder; 0 if there is none."""
    steps = (path.parent.name for path in (run / "checkpoints").glob("*/digests.json"))
    return max((int(step) for step in steps if step.isdecimal()), default=0)
