"""Which evaluation was the best, and whether to stop early: a value that goes into checkpoints."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Monitor:
    """What evaluations have shown so far."""

    mode: Literal["max", "min"]
    """Whether more of the metric is better ("max") or less ("min")."""
    min_delta: float = 0.0
    """How much better than `reference` counts as an improvement."""
    best: float | None = None
    """The best value so far; None before the first evaluation."""
    best_step: int | None = None
    """The step it was measured at."""
    reference: float | None = None
    """The value of the last improvement: of small gains, only their sum counts."""
    waited: int = 0
    """Evaluations since then."""

    def seen(self, step: int, value: float) -> "Monitor":
        """The monitor after an evaluation. NaN is never the best, and never improves."""
        after = replace(self, waited=self.waited + 1)
        if self.gain(value, self.best) > 0:
            after = replace(after, best=value, best_step=step)
        if self.gain(value, self.reference) > self.min_delta:
            after = replace(after, reference=value, waited=0)
        return after

    def gain(self, value: float, over: float | None) -> float:
        """How much better `value` is than another; than none at all, infinitely. NaN for NaN."""
        if over is None:
            return math.inf if value == value else math.nan
        return value - over if self.mode == "max" else over - value

    def to_json(self) -> dict[str, Any]:
        """What evaluations have shown, for a checkpoint's `progress`."""
        return {name: getattr(self, name) for name in ("best", "best_step", "reference", "waited")}
