"""A transform that takes its time on one process of several."""

import os
import time
from dataclasses import dataclass

from jaxformer.data.transform import Transform


@dataclass(frozen=True)
class Slowed(Transform):
    """Waits before it gives an example back, unchanged."""

    process: str = "1"
    seconds: float = 0.05

    def __call__(self, example, rng):
        if os.environ["JAXFORMER_PROCESS"] == self.process:
            time.sleep(self.seconds)
        return example
