"""Training on this machine, under a supervisor."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NoReturn

from jaxformer.config.fields import PositiveInt
from jaxformer.launching.base import Job, Launcher, Plan, flags


@dataclass(frozen=True, kw_only=True)
class Local(Launcher):
    """Train on this machine, and start the training again when it dies, as long as it makes progress."""

    count: PositiveInt = field(default=1, metadata={"metavar": "N", "names": tuple(flags(processes=True))})
    """How many processes train together, on CPU devices if there are several."""
    devices_per_process: PositiveInt = 1
    """How many CPU devices each of several processes has."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if self.devices_per_process > 1 and self.count == 1:
            yield "devices_per_process: is for several processes; give `count`, too"
        yield from super().problems()

    def devices(self) -> int | None:
        return self.count * self.devices_per_process if self.count > 1 else None

    def render(self, job: Job) -> Plan:
        """The command of the supervisor, which has that of the training."""
        together = {"processes": self.count, "devices_per_process": self.devices_per_process}
        words = (*job.command, *flags(**(together if self.count > 1 else {})))
        variables = ("env", *self.env) if self.env else ()
        return Plan({}, (self.supervised(replace(job, command=(*variables, *words))),))

    def run(self, plan: Plan) -> NoReturn:
        """Makes this process the supervisor, which has nothing loaded that the training needs."""
        words = [sys.executable, *plan.commands[0][1:]]
        # It need not be in PATH. The run's folder, which stands before it, may have the same name.
        place = words.index("jaxformer", len(self.supervised(Job(name="", command=(), workdir=""))))
        words[place : place + 1] = [sys.executable, "-m", "jaxformer"]
        sys.stdout.flush()
        os.execv(sys.executable, words)
