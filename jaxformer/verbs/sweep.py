"""Sweeps: many trainings of one config, by workers on this machine or on several."""

import os
import shlex
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from jaxformer.config.fields import PositiveFloat, PositiveInt, at_most
from jaxformer.errors import UserError
from jaxformer.preemption import Preempted
from jaxformer.verbs.common import cpu_devices, print_line, print_note, print_text, working
from jaxformer.verbs.options import Verb, argument, flag

if TYPE_CHECKING:
    from jaxformer.sweeps.spaces import Sweep as Space
    from jaxformer.sweeps.study import Study

SHOWN_EVERY = 1.0  # seconds
GIVEN = (
    "trials",
    "hours",
    "flops",
    "sampler",
    "at_once",
    "population",
    "cores_per_trial",
    "accelerators_per_trial",
)  # flags that are fields of a sweep
HALVING = ("rungs", "eta", "rule", "brackets")  # and of its halving
DEATHS = 10  # of workers in a row without a new result


@dataclass(frozen=True, kw_only=True)
class Sweep(Verb):
    """Train a config with many values of its leaves, and find the best; go on with a sweep where it stopped."""

    config: str = flag(metavar="FILE[:ARG]")
    """A config file, or a shipped config's name."""
    set: tuple[str, ...] = flag((), "LEAF=VALUE,VALUE")
    """A leaf and its values, or log(1e-4,1e-2), uniform(a,b), integer(a,b) with --trials; seed=0,1,2 for seeds."""
    sweep: str | None = flag(None, "FILE[:NAME]|NAME")
    """A file with get_sweep(), or get_sweep_NAME() (default: get_sweep() of the config's file)."""
    workdir: Path | None = flag(None, "DIR")
    """The folder of the sweep (default: sweeps/CONFIG_NAME)."""
    workers: Annotated[int, at_most(1024)] = 1
    """How many trials are trained at a time on this machine; other machines join with `jaxformer sweep work DIR`."""
    trials: Annotated[int, at_most(100_000)] | None = None
    """How many trials; without it all combinations."""
    hours: PositiveFloat | None = None
    """A budget: as many trials as can be trained in so many hours, those of all workers added up."""
    flops: PositiveFloat | None = None
    """A budget: as many trials as can be trained with so many FLOPs."""
    sampler: Literal["grid", "random", "sobol", "halton", "tpe", "cmaes", "gp"] | None = None
    """How values are taken from the spaces (default: grid, or sobol with --trials or a budget)."""
    at_once: Annotated[int, at_most(1024)] | None = None
    """How many trials are under way at a time with tpe, gp or a budget, whatever the number of workers (default: 4)."""
    metric: str | None = None
    """What decides which trial is better (default: the config's eval.monitor); several with commas between them."""
    rungs: PositiveInt | None = None
    """Successive halving with so many rungs: trials pause, and the best one of --eta go on."""
    eta: PositiveInt | None = None
    """At each rung one of so many trials goes on (default: 3)."""
    rule: Literal["successive", "asha", "median"] | None = None
    """Who goes on at a rung; asha and median depend on timing (default: successive)."""
    brackets: bool = False
    """Hyperband: some trials begin at a later rung."""
    population: Annotated[int, at_most(1024)] | None = None
    """How many trials a worker trains at once, as one program; they differ in numbers alone (default: 1)."""
    cores_per_trial: PositiveInt | None = None
    """CPU cores of a worker where it trains on CPUs (default: 1)."""
    accelerators_per_trial: PositiveInt | None = None
    """GPUs, or TPU chips, of a worker where there are some (default: 1)."""
    overrides: Mapping[str, Any] | None = None
    """Leaves of the config and their values, the same in all trials."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        swept = {word.partition("=")[0] for word in self.set}
        yield from (
            f"set={path}: has a value for all trials, too; give one of both"
            for path in swept & {*(self.overrides or {})}
        )

    def __call__(self) -> int:
        """0 when all trials are trained; else the exit code of the first worker that gave up."""
        from jaxformer.config import files
        from jaxformer.verbs.report import sweep_page, training_words
        from jaxformer.verbs.train import run_name

        config, sweep = files.read(self.config, self.overrides), self.read()
        folder = self.workdir or Path("sweeps") / run_name(self.config)
        with without_accelerators(), working() as console:
            from jaxformer.sweeps.view import best_lines

            source = {"config": self.config, "overrides": dict(self.overrides or {})}
            study, code = trained(folder, config, sweep, source, self.workers, console)
            if code:
                return code
            outcome, page = study.finish(), sweep_page(study)
        for line in best_lines(study, outcome):
            print_line(line)
        if len(outcome["objectives"]) > 1:
            print_line(f"front: trials {', '.join(map(str, outcome['front']))}")
        if outcome["best"] is not None:
            print_line(f"train: {shlex.join(training_words(study, outcome['best']))}")
        print_line(f"report: {page}")
        return 0 if outcome["best"] is not None else 1

    def read(self) -> "Space":
        """What is swept: what the file says, and in its place what flags do."""
        from jaxformer.sweeps.reading import read_lists, read_sweep
        from jaxformer.sweeps.spaces import Halving, Sweep

        swept = read_sweep(self.config, self.sweep) if self.sweep or not self.set else Sweep()
        lists = read_lists(self.set)
        lists["parameters"] = {**swept.parameters, **lists["parameters"]}
        given = {name: getattr(self, name) for name in GIVEN}
        several = self.metric is not None and "," in self.metric
        given["metric"] = tuple((self.metric or "").split(",")) if several else self.metric
        lists |= {name: value for name, value in given.items() if value is not None}
        if halving := {name: value for name in HALVING if (value := getattr(self, name))}:
            if swept.halving is None and self.rungs is None:
                raise UserError(f"{min(halving)}: is for successive halving; give `rungs`, too")
            lists["halving"] = replace(swept.halving or Halving(), **halving)
        return replace(swept, **lists)


def trained(
    folder: Path, config: Mapping[str, Any], sweep: "Space", source: Any, workers: int, console: Any
) -> tuple["Study", int]:
    """Begins a sweep, or goes on with it, with workers on this machine, until nothing is left.

    Returns:
      The sweep, and 0; or the exit code of the first worker that gave up.
    """
    from jaxformer.sweeps.samplers import most_at_once
    from jaxformer.sweeps.slots import check_count
    from jaxformer.sweeps.study import Study

    check_count(workers, sweep)
    study = Study.begin(folder, config, sweep, source)
    if sweep.on_timing:
        print_note(sweep.on_timing)
    if sweep.is_open and workers > (most := most_at_once(sweep) * len(study.rules.seeds)):
        print_note(
            f"workers={workers}: {most} trainings are under way at most (at_once), so that some workers wait"
        )
    if not sweep.is_open and len(study.values) < (sweep.trials or 0):
        print_note(f"trials={sweep.trials}: there are {len(study.values)} combinations, and no more trials")
    if study.due():
        return study, Crew(study, workers).run(console)
    print_note(f"{folder} is finished: nothing to do")
    return study, 0


@contextmanager
def without_accelerators() -> Iterator[None]:
    """This process looks at a CPU only, if JAX is not loaded yet: accelerators are for the workers."""
    before = dict(os.environ)
    os.environ.update(cpu_devices(1))
    try:
        import jax

        jax.devices()
    finally:
        os.environ.clear()
        os.environ.update(before)
    yield


class Crew:
    """The workers of this machine, in processes of their own; one that is killed is started again.

    Args:
      study: the sweep.
      count: how many workers.
    """

    def __init__(self, study: "Study", count: int):
        from jaxformer.sweeps.view import View
        from jaxformer.verbs.children import Child

        self.study, self.child, self.view = study, Child, View(study)
        self.workers = [self.worker(index) for index in range(count)]
        self.deaths, self.results, self.code = 0, len(study.results()), 0

    def worker(self, index: int) -> Any:
        """A new process."""
        return self.child(["sweep", "work", str(self.study.folder)], f"worker {index}", {})

    def run(self, console: Any) -> int:
        """Waits until the sweep is over or no worker is left; returns 0, or why the first of them left."""
        from rich.live import Live
        from rich.text import Text

        try:
            with Live(console=console, auto_refresh=False, transient=False) as live:
                while any(worker is not None for worker in self.workers):
                    for index, worker in enumerate(self.workers):
                        if worker is not None and (code := worker.process.poll()) is not None:
                            self.workers[index] = self.after(index, code)
                    if console.is_terminal:
                        live.update(Text(self.view.text()), refresh=True)
                    time.sleep(SHOWN_EVERY if console.is_terminal else 0.2)
        except (Preempted, KeyboardInterrupt):
            self.leave()
            print_note(f"{self.study.folder} keeps what is trained; the same command goes on with it")
            raise
        finally:
            for worker in self.workers:
                if worker is not None:
                    worker.kill()
        if not console.is_terminal:
            print_text(self.view.text() + "\n\n")
        return self.code if self.study.due() else 0

    def after(self, index: int, code: int) -> Any:
        """What takes the place of a worker that has ended: a new one where it was killed; None where it left."""
        if (results := len(self.study.results())) > self.results:
            self.deaths, self.results = 0, results
        if code >= 0 or not self.study.due():
            self.code = self.code or code
            return None
        self.deaths += 1
        name = signal.Signals(-code).name
        if self.deaths > DEATHS:
            print_note(
                f"worker {index}: ended by {name}, as {self.deaths - 1} workers before it without a new result"
            )
            self.code = self.code or 128 - code
            return None
        print_note(f"worker {index}: ended by {name}; another one goes on where it stopped")
        return self.worker(index)

    def leave(self) -> None:
        """Has all workers save and leave."""
        from jaxformer.verbs.children import SAVING, first_code

        there = [worker for worker in self.workers if worker is not None]
        for worker in there:
            worker.process.send_signal(signal.SIGTERM)
        first_code(there, SAVING)


@dataclass(frozen=True, kw_only=True)
class SweepWork(Verb):
    """Work at a sweep that was begun in a folder, beside other workers on any number of machines, until nothing is
    left."""

    folder: Path = argument("DIR")
    """The folder of the sweep, which all machines share."""

    def __call__(self) -> None:
        from jaxformer.sweeps.study import Study

        study = Study.open(self.folder)
        if not study.due():
            print_note(f"{self.folder} is finished: nothing to do")
            return
        with working():
            from jaxformer.sweeps.slots import slot
            from jaxformer.sweeps.workers import check_place, work

            with slot(study):
                check_place(study)
                work(study)
