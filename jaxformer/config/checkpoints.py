"""The section of a config on checkpoints."""

import re
from dataclasses import dataclass
from typing import Annotated

from jaxformer.config.durations import Duration
from jaxformer.config.fields import Constraint, NonNegativeInt, PositiveDuration, PositiveFloat, at_least

BUCKET = Constraint(
    "an address, as in gs://my-bucket/runs/vit or s3://my-bucket/runs/vit",
    lambda value: re.fullmatch(r"[a-z][a-z0-9+.-]+://\S+", value) is not None,
)


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
    background: bool = True
    """Whether train steps go on while a checkpoint is written. Then a kill before it is whole repeats the steps since
    the one before: an interval and what was trained meanwhile, two intervals at most. False: steps wait until it is
    whole on the disk, and no kill repeats more than one interval."""
    bucket: Annotated[str, BUCKET] | None = None
    """Where in object storage a copy of the run's folder is kept, of this run alone. Process 0 copies it after each
    checkpoint, in the background; a training whose folder has no checkpoint, as on a new machine, goes on with the
    copy. It takes `pip install 'jaxformer[cloud]'`; None keeps no copy."""
