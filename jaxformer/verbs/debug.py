"""Looking for faults: in a config's tiny form, and in a single step of a run."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jaxformer.config.fields import PositiveInt
from jaxformer.verbs.common import print_line, working
from jaxformer.verbs.options import Verb, argument, flag


def print_findings(name: str, config: Mapping[str, Any]) -> int:
    """Prints what the tiny form of a config shows, a line each; returns 1 if something is wrong."""
    with working():
        from jaxformer.config.sections import resolve
        from jaxformer.debugging.checks import debug

        began, wrong = time.monotonic(), 0
        print_line(f"looking for faults in {name}")
        for finding in debug(resolve(config)):
            wrong += finding.verdict == "wrong"
            print_line(f"  {finding.verdict:<6}{finding.text}")
        print_line(f"{wrong or 'nothing'} wrong, after {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


def print_rehearsal(config: Mapping[str, Any]) -> None:
    """Prints how a rehearsal of a config goes, a line each; its checkpoint is deleted, and its programs are kept."""
    with working(), TemporaryDirectory(prefix="jaxformer-rehearsal-") as folder:
        import jax

        from jaxformer.config.schema import to_dict
        from jaxformer.config.sections import resolve
        from jaxformer.debugging.rehearsal import rehearse

        cache = "jax_compilation_cache_dir"
        programs = {
            cache.upper(): str(getattr(jax.config, cache)),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        }
        for line in rehearse(to_dict(resolve(config)), Path(folder), {**os.environ, **programs}):
            print_line(line)


@dataclass(frozen=True, kw_only=True)
class Replay(Verb):
    """Do one step of a run again, from the nearest checkpoint, and name the module of the first number that is not
    finite."""

    run: Path = argument("RUN")
    """A run's folder; nothing in it is changed."""
    step: PositiveInt = flag(metavar="N")
    """The step, as the log counts them."""

    def __call__(self) -> int:
        """1 if the step is another one now than the run wrote."""
        with working():
            from jaxformer.debugging.replay import replay
            from jaxformer.observe.text import notes, number

            done = replay(self.run, self.step)
        begun = f"checkpoint {done.start}" if done.start else "the fresh state"
        print_line(f"step {self.step} of {self.run}, again from {begun}")
        shown = notes({name.removeprefix("train/"): number(value) for name, value in done.metrics.items()})
        for line in shown.splitlines():
            print_line(f"  {line}")
        if not done.logged:
            print_line("the run wrote no metrics at this step, so there is nothing to compare")
        elif not done.differences:
            print_line(f"equal to what the run wrote, bit for bit ({len(done.logged)} metrics)")
        for name, (then, now) in done.differences.items():
            print_line(f"not what the run wrote: {name} was {then!r} and is {now!r}")
        finite = "every number of the step is finite"
        print_line(f"the first number that is not finite comes from {done.place}" if done.place else finite)
        return 1 if done.differences else 0
