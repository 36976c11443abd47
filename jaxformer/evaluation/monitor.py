"""Which evaluation was the best, and whether to stop early: a value that goes into checkpoints."""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Monitor:
    """What evaluations have shown so far.

    Attributes:
      mode: whether more of the metric is better ("max") or less ("min").
      min_delta: how much better counts as an improvement.
      best: the best value so far; None before the first evaluation.
      best_step: the step it was measured at.
      waited: evaluations since then.
    """

    mode: Literal["max", "min"]
    min_delta: float = 0.0
    best: float | None = None
    best_step: int | None = None
    waited: int = 0

    def seen(self, step: int, value: float) -> "Monitor":
        """The monitor after an evaluation. NaN never improves."""
        gain = 0.0 if self.best is None else (value - self.best if self.mode == "max" else self.best - value)
        improved = gain > self.min_delta or (self.best is None and value == value)
        if improved:
            return replace(self, best=value, best_step=step, waited=0)
        return replace(self, waited=self.waited + 1)
