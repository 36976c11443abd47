"""Where every second of a training went, over all attempts: the goodput is the share of train steps that count.

The buckets, and their names in JSON, are those of ml_goodput_measurement
(https://github.com/AI-Hypercomputer/ml-goodput-measurement). They come from the run's attempts.jsonl, on any machine.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jaxformer.errors import counted
from jaxformer.launching.attempts import Attempt, read
from jaxformer.launching.deaths import died_first
from jaxformer.observe import text
from jaxformer.reading import as_written
from jaxformer.runs import Run

# Our name of a bucket: ml_goodput's.
BUCKETS = {
    "steps": "GOODPUT",
    "start": "TRAINING_PREP",
    "compile": "PROGRAM_STARTUP",
    "restore": "CHECKPOINT_RESTORE",
    "data": "DATA_LOADING_SYNC",
    "evaluation": "CUSTOM",
    "saving": "CHECKPOINT_SAVE",
    "lost": "WASTED_PROGRESS_FROM_DISRUPTION",
    "between": "INFRASTRUCTURE_RECOVERY",
    "other": "OTHER",
}
# The clock's phases that are another bucket than "other". What comes before the steps is never lost: it is what a
# restart costs.
BEFORE = {"startup": "start", "compile": "compile", "restore": "restore"}
DURING = {"train": "steps", "data": "data", "evaluate": "evaluation", "checkpoint": "saving"}
PHASES = {**BEFORE, **DURING}
EXPECTED = (0, 75)  # exit codes after which no step is lost
SHOWN = 0.005  # of the whole time; buckets below are left out of the line


@dataclass(frozen=True)
class Goodput:
    """Where the time of a run went."""

    seconds: dict[str, float]
    """Seconds by bucket; all of BUCKETS are there."""
    attempts: int
    """How many attempts there were."""
    devices: int
    """How many devices the last one had."""
    device_hours: float
    """Hours of devices, those between attempts included: they are paid for."""
    died_first: Mapping[str, int] = field(default_factory=dict)
    """How often each machine died first, where several supervisors were at work."""

    @property
    def total(self) -> float:
        """Seconds from the first attempt's start to the last one's end."""
        return sum(self.seconds.values())

    @property
    def share(self) -> float:
        """The share of the train steps that count, 0 to 1."""
        return self.seconds["steps"] / self.total if self.total > 0 else 0.0

    def lines(self, price: float | None = None) -> dict[str, str]:
        """The facts for people, by name.

        Args:
          price: of an hour of a device.
        """
        longest = sorted(self.seconds.items(), key=lambda item: -item[1])
        parts = [f"{name} {text.duration(value)}" for name, value in longest if value > SHOWN * self.total]
        lost = self.seconds["lost"] + self.seconds["between"]
        found = {"goodput": f"{self.share:.0%} of {text.duration(self.total)}: {', '.join(parts)}"}
        if self.attempts > 1:
            found["attempts"] = (
                f"{self.attempts}; {text.duration(lost)} lost after saves and between attempts"
            )
        if self.died_first:
            most = sorted(self.died_first.items(), key=lambda item: -item[1])
            found["died first"] = ", ".join(f"{name} {counted(count, 'time')}" for name, count in most)
        found["device-hours"] = f"{text.number(self.device_hours)} ({counted(self.devices, 'device')})"
        if price is not None:
            whole = price * self.device_hours
            found["money"] = f"{whole:,.2f}, of which train steps that count {whole * self.share:,.2f}"
        return found

    def to_json(self, price: float | None = None) -> dict[str, Any]:
        """The same as JSON values; seconds by ml_goodput's names."""
        seconds = {BUCKETS[name]: round(value, 3) for name, value in self.seconds.items()}
        found = {"goodput": self.share, "total": self.total, "seconds": seconds, "attempts": self.attempts}
        found |= {"devices": self.devices, "device_hours": self.device_hours}
        found |= {"died_first": dict(self.died_first)} if self.died_first else {}
        return found if price is None else {**found, "money": price * self.device_hours}


def goodput_of(run: Run) -> Goodput | None:
    """Where the time of a run went; None if no attempt is noted in its folder.

    Raises:
      UserError: attempts.jsonl, or the ledger of another machine, is broken.
    """
    with as_written(run.attempts_file):
        attempts = read(run.attempts_file)
    found, ledgers = goodput(attempts), {named("0", attempts): attempts}
    for path in run.folder.glob("attempts-*.jsonl"):
        with as_written(path):
            others = read(path)
        ledgers[named(path.stem.removeprefix("attempts-"), others)] = others
    return found if found is None or len(ledgers) < 2 else replace(found, died_first=died_first(ledgers))


def named(number: str, attempts: Sequence[Attempt]) -> str:
    """What a supervisor is called: its number, and its host as far as it is known."""
    host = next((attempt.host for attempt in reversed(attempts) if attempt.host), "")
    return f"{number} ({host})" if host else number


def goodput(attempts: Sequence[Attempt]) -> Goodput | None:
    """Where the time went; None if no attempt is known.

    Args:
      attempts: of a run, in their order.
    """
    if not attempts:
        return None
    seconds, hours = dict.fromkeys(BUCKETS, 0.0), 0.0
    devices = next((attempt.devices for attempt in attempts if attempt.devices), 0)  # the first to know them
    kept_until = kept_steps(attempts)
    for attempt, until, following in zip(attempts, kept_until, [*attempts[1:], None]):
        add(seconds, attempt, until)
        between = max(0.0, following.start - attempt.ended) if following else 0.0
        seconds["between"] += between
        devices = attempt.devices or devices
        hours += devices * (attempt.ended - attempt.start + between) / 3600
    count = sum(not attempt.rehearsal for attempt in attempts)
    return Goodput(seconds, count, devices, hours)


def kept_steps(attempts: Sequence[Attempt]) -> list[float]:
    """For each attempt the step from which a later one went on: what it did beyond that is lost."""
    kept, until = [], math.inf
    for attempt in reversed(attempts):
        kept.append(until)
        until = min(until, math.inf if attempt.first is None else attempt.first)
    return kept[::-1]


def add(seconds: dict[str, float], attempt: Attempt, until: float) -> None:
    """Adds an attempt's seconds to the buckets; together they are as many as it took."""
    whole = attempt.ended - attempt.start
    if attempt.began is None:
        seconds["start"] += whole
        return
    last = attempt.marks[-1].seconds
    kept = next((mark.seconds for mark in reversed(attempt.marks) if mark.step <= until), {})
    seconds["start"] += attempt.began - attempt.start
    for phase, bucket in BEFORE.items():
        seconds[bucket] += last.get(phase, 0.0)
    for phase, bucket in DURING.items():
        seconds[bucket] += kept.get(phase, 0.0)
        seconds["lost"] += last.get(phase, 0.0) - kept.get(phase, 0.0)
    seconds["other"] += last["total"] - sum(last.get(phase, 0.0) for phase in PHASES)
    after = whole - (attempt.began - attempt.start) - last["total"]
    seconds["lost" if after > 0 and attempt.exit not in EXPECTED else "other"] += after
