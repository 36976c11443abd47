"""Killing trainings, to see whether they come to the same end."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from jaxformer.config.fields import NonNegativeInt, PositiveInt
from jaxformer.verbs.common import cpu_devices, print_line, working
from jaxformer.verbs.options import Verb, flag
from jaxformer.verbs.train import Train


@dataclass(frozen=True, kw_only=True)
class Chaos(Verb):
    """Train a config on CPU devices under the supervisor, once undisturbed, once killed at random moments, and compare
    the parameters, bit for bit."""

    config: str = flag(metavar="FILE[:ARG]")
    """A config file, or a shipped config's name."""
    kills: PositiveInt = 6
    """How often it is killed, stopped or asked to end."""
    processes: PositiveInt = 2
    """How many processes train together."""
    devices_per_process: PositiveInt = 1
    """How many CPU devices each of them has."""
    seed: NonNegativeInt = 0
    """The seed of what is done to it."""
    tiny: bool = False
    """Train the config's tiny form, as long as so many kills need."""
    workdir: Path | None = flag(None, "DIR")
    """The folder of both runs, which is kept (default: a temporary one)."""
    overrides: Mapping[str, Any] | None = None
    """Leaves of the config and their values."""

    def __call__(self) -> int:
        """1 if the disturbed training did not end by itself, or ended with another state."""
        environment = dict(os.environ)
        os.environ |= cpu_devices(self.processes * self.devices_per_process)
        with working():
            from jaxformer.config import files
            from jaxformer.config.sections import resolve
            from jaxformer.debugging import troubles
            from jaxformer.debugging.chaos import Chaos as Both
            from jaxformer.experiment import Experiment
            from jaxformer.files import write_atomically

            no_copies = {"checkpoint.bucket": None}  # both trainings would have the same address
            config = resolve(files.read(self.config, {**(self.overrides or {}), **no_copies}))
            config = troubles.tiny_form(config, self.kills) if self.tiny else config
            experiment, every = Experiment(config), config.checkpoint.every
            experiment.check()
            steps = None if every is None else experiment.steps(every)
            interval = troubles.checked_interval(experiment.total_steps, steps, self.kills)
            folder = self.workdir or Path(mkdtemp(prefix="jaxformer-chaos-"))
            file = folder / "config.py"

            def command(run: Path) -> list[str]:
                words = Train(config=str(file), workdir=run).words()
                several = (
                    f"--processes={self.processes}",
                    f"--devices-per-process={self.devices_per_process}",
                )
                return [sys.executable, "-m", "jaxformer", *words, *several]

            both = Both(experiment, command, folder, self.kills, interval, self.seed, environment, print_line)
            both.check()
            write_atomically(file, troubles.config_file(config))
            return 0 if both.run() else 1
