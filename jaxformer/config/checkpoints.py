"""The section of a config on checkpoints."""

from dataclasses import dataclass
from typing import Annotated

from jaxformer.config.durations import Duration
from jaxformer.config.fields import NonNegativeInt, PositiveDuration, PositiveFloat, at_least


@dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are saved and how many are kept. One is always saved at the end, and on SIGTERM."""

    every: PositiveDuration | None = Duration.parse("1 epoch")
    """How often, in training; None saves by the clock only."""
    every_minutes: PositiveFloat | None = None
    """How often, by the clock, in addition; None saves by progress only."""
    keep: Annotated[int, at_least(1, "1 or more, or nothing could be resumed; 2 is a good choice")] = 2
    """How many of the latest checkpoints are kept, of those whose numbers are finite and whose update was not skipped.
    With 2, one that is damaged, or from which training diverges, can be done without."""
    keep_best: NonNegativeInt = 1
    """How many of the best by eval.monitor are kept beside the latest; 0 keeps none for its metric."""
