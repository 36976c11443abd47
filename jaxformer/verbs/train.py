"""Training, and where its time went."""

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxformer.config.fields import NonNegativeInt, PositiveFloat, PositiveInt
from jaxformer.errors import UserError
from jaxformer.launching import HEARTBEATS
from jaxformer.verbs.common import print_json, print_line, print_note, print_text, working
from jaxformer.verbs.options import OVERRIDE, Verb, argument, flag, in_flags

TOLD = {"JAXFORMER_COORDINATOR", "JAXFORMER_PROCESS"}


@dataclass(frozen=True, kw_only=True)
class Train(Verb):
    """Train a model, or go on with a run where it stopped; --config.train.total='10 epochs' overrides any leaf."""

    config: str = flag(metavar="FILE[:ARG]")
    """A config file, or a shipped config's name."""
    workdir: Path | None = flag(None, "DIR", "--workdir", "--run")
    """The folder of the run (default: runs/CONFIG_NAME)."""
    profile: str | None = flag(None, "FIRST:LAST")
    """The steps to trace for XProf, as in 10:15."""
    start_from: Path | None = flag(None, "CHECKPOINT")
    """A checkpoint of another run, RUN/checkpoints/STEP, to begin a new run with: parameters, optimizer and step."""
    debug: bool = False
    """Train nothing; look for faults in the config's tiny form, in seconds on a CPU."""
    rehearse: bool = False
    """Keep nothing; take three steps, evaluate a batch, save, and take the third step again in a new process."""
    processes: PositiveInt | None = None
    """How many processes train together. Without --coordinator they are started here, on CPU devices."""
    devices_per_process: PositiveInt | None = None
    """How many devices each process that is started here has (default: 1)."""
    coordinator: str | None = flag(None, "HOST:PORT")
    """Where process 0 of several listens, where no cluster tells (or JAXFORMER_COORDINATOR, _PROCESSES, _PROCESS)."""
    process: NonNegativeInt | None = None
    """Which of several processes this is, from 0."""
    overrides: Mapping[str, Any] | None = None
    """Leaves of the config and their values."""

    @property
    def starts_others(self) -> bool:
        """Whether this process starts those that train."""
        return (
            self.processes is not None
            and self.process is self.coordinator is None
            and not TOLD & {*os.environ}
        )

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if self.devices_per_process is not None and not self.starts_others:
            yield "devices_per_process: is for processes that are started here; give `processes`, and no `coordinator`"
        places = ("processes", "process", "coordinator")
        if self.debug and (given := self.given("workdir", "profile", "start_from", "rehearse", *places)):
            yield f"debug: keeps no run, and takes one process; leave `{given[0]}` out"
        elif self.rehearse and (given := self.given("profile", "start_from")):
            yield f"rehearse: takes the first three steps, and keeps nothing; leave `{given[0]}` out"

    def given(self, *names: str) -> list[str]:
        """Which of these options are given."""
        return [name for name in names if getattr(self, name) not in (None, False)]

    def __call__(self) -> int:
        """1 if too many updates were skipped or a fault was found."""
        from jaxformer.config import files

        if self.starts_others:
            from jaxformer.verbs.children import train_together

            count, devices = self.processes or 1, self.devices_per_process or 1
            if HEARTBEATS not in os.environ:  # before a supervisor starts, `launch` has done it
                from jaxformer.config.sections import check_devices, resolve

                check_devices(resolve(files.read(self.config, self.overrides)), count * devices)
            return train_together(self.words(), count, devices)
        from jaxformer.verbs.debug import PART, REHEARSAL, print_findings, rehearse

        config = files.read(self.config, self.overrides)
        folder = self.workdir or Path("runs") / run_name(self.config)
        if self.debug:
            return print_findings(self.config, config)
        if self.rehearse and PART not in os.environ:
            return rehearse([*self.words(), *self.place()], folder)
        with working() as console:
            from jaxformer.config.sections import resolve
            from jaxformer.experiment import Experiment
            from jaxformer.parallel.places import find_place
            from jaxformer.parallel.processes import joined
            from jaxformer.runs import Run
            from jaxformer.train import NotFinite, train

            experiment = Experiment(resolve(config))
            timeouts = experiment.config.parallel.timeouts
            options = {"profile": self.profile, "start_from": self.start_from, "console": console}
            try:
                place = find_place(self.coordinator, self.processes, self.process, timeouts)
                with joined(place, timeouts):
                    if self.rehearse:
                        from jaxformer.debugging.rehearsal import Rehearsal

                        part = Rehearsal(experiment, Run(folder), folder / REHEARSAL, print_line)
                        part.begin() if os.environ[PART] == "begin" else part.again()
                    else:
                        train(experiment, folder, **options)
            except NotFinite as error:
                what, *others = [f"jaxformer: {in_flags(Train, line)}" for line in error.lines]
                print_note(what)
                again = ["jaxformer", "replay", str(folder), "--step", str(error.step)]
                print_note(f"  {shlex.join(again)}")
                for line in others:
                    print_note(line)
                if error.checkpoint is not None:
                    lower = experiment.config.optimizer.learning_rate / 10
                    print_note(f"  {self.from_checkpoint(error.checkpoint, lower)}")
                return error.code
        return 0

    def words(self) -> list[str]:
        """This command without what it says of processes."""
        from jaxformer.config.files import literal

        leaves = (self.overrides or {}).items()
        overrides = (f"{OVERRIDE}{leaf}={v if literal(str(v)) == v else repr(v)}" for leaf, v in leaves)
        flags = {"--workdir": self.workdir, "--profile": self.profile, "--start-from": self.start_from}
        rehearse = ["--rehearse"] * self.rehearse
        return ["train", "--config", self.config, *overrides, *in_words(flags), *rehearse]

    def place(self) -> list[str]:
        """What this command says of processes."""
        return in_words(
            {"--processes": self.processes, "--process": self.process, "--coordinator": self.coordinator}
        )

    def from_checkpoint(self, checkpoint: Path, learning_rate: float) -> str:
        """The command that goes on from a checkpoint, in a new folder, at another learning rate."""
        rate = "optimizer.learning_rate"
        changed = {**{k: v for k, v in (self.overrides or {}).items() if k != rate}, rate: learning_rate}
        folder = checkpoint.parent.parent
        new = folder.with_name(f"{folder.name}-from-{checkpoint.name}")
        again = Train(config=self.config, workdir=new, start_from=checkpoint, overrides=changed)
        return shlex.join(["jaxformer", *again.words()])


def in_words(flags: Mapping[str, Any]) -> list[str]:
    """Flags and their values as words; those without a value are left out."""
    return [word for name, value in flags.items() if value is not None for word in (name, str(value))]


def run_name(config: str) -> str:
    """ "configs/vit_digits.py:small" as "vit_digits-small"."""
    name, _, argument = config.partition(":")
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in argument)
    return Path(name).stem + (f"-{safe}" if safe else "")


@dataclass(frozen=True, kw_only=True)
class Goodput(Verb):
    """Show where every second of a run went, over all attempts, and what its devices cost."""

    run: Path = argument("RUN")
    """A run's folder."""
    price: PositiveFloat | None = flag(None, "DOLLARS")
    """What an hour of a device costs."""
    json: bool = False
    """One line of JSON, with the names of ml_goodput_measurement."""

    def __call__(self) -> None:
        from jaxformer.observe.goodput import goodput_of
        from jaxformer.observe.text import notes
        from jaxformer.runs import Run

        run = Run.open(self.run)
        found = goodput_of(run)
        if found is None:
            raise UserError(
                f"{run.attempts_file}: no attempt is noted there; a training of this version notes them"
            )
        if self.json:
            print_json(found.to_json(self.price))
        else:
            print_text(notes(found.lines(self.price)) + "\n")
