"""Slurm: a batch script that is submitted, and goes back into the queue as long as there is something to train.

Options and variables: https://slurm.schedmd.com/sbatch.html, srun.html, job_array.html.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from jaxformer.config.fields import NonNegativeInt, PositiveInt, at_most
from jaxformer.launching.base import (
    PLACEHOLDER,
    Job,
    Launcher,
    Plan,
    Word,
    exported,
    flags,
    launched,
    matching,
)

BODY = Path(__file__).with_suffix(".sh")
TASK = "SLURM_ARRAY_TASK_ID"
NUMBERS = matching(
    r"\d+(-\d+(:[1-9]\d*)?)?(,\d+(-\d+(:[1-9]\d*)?)?)*(%[1-9]\d*)?", "numbers, as in 0-31%8 or 1,3,5-9:2"
)
OPTION = matching(r"[a-z][a-z-]*(=[\w.,:/@%+=&|*-]+)?", "NAME or NAME=VALUE, as in mem=64G")


@dataclass(frozen=True, kw_only=True)
class Slurm(Launcher):
    """Launch as a batch job of Slurm, which goes back into the queue after it was told to end, and goes on."""

    program: ClassVar[str] = "sbatch"
    remedy: ClassVar[str] = "launch from a login node of the cluster"

    nodes: PositiveInt = 1
    """How many machines."""
    gpus: NonNegativeInt = 0
    """GPUs of each machine."""
    gpus_per_process: PositiveInt = 1
    """GPUs of each process: those of a machine are shared out among its processes."""
    processes_per_node: PositiveInt | None = None
    """Processes of each machine (default: GPUs by GPUs of a process, or 1)."""
    cpus_per_task: PositiveInt | None = None
    """Processor cores of each process."""
    time: (
        Annotated[str, matching(r"(\d+-)?\d+(:\d+){0,2}", "a time limit, as in 30, 24:00:00 or 2-12")] | None
    ) = None
    """After which time Slurm ends the job; the job then goes back into the queue."""
    partition: Word | None = None
    """The cluster's part to run on."""
    account: Word | None = None
    """Who pays."""
    array: Annotated[str, NUMBERS] | None = None
    """Trainings side by side, one for each number: {task} in an override and in the folder's name stands for it."""
    chain: Annotated[int, at_most(1000)] = 1
    """How often to submit it, one after the other: for clusters that end jobs without letting them queue again."""
    grace: PositiveInt = 120
    """Seconds before its end at which the job is told to save."""
    option: tuple[Annotated[str, OPTION], ...] = ()
    """Another option of sbatch, as in mem=64G; may be given several times."""
    setup: str | None = None
    """A command of the script before training, as in "module load cuda"."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if self.gpus % self.gpus_per_process:
            yield f"gpus_per_process={self.gpus_per_process}: does not divide the {self.gpus} GPUs of a machine"
        elif self.gpus and self.processes_per_node is not None:
            yield "processes_per_node: follows from `gpus` and `gpus_per_process`; leave it out"
        if not self.gpus and self.gpus_per_process > 1:
            yield "gpus_per_process: give `gpus`, too"
        for first, last in re.findall(r"(\d+)-(\d+)", self.array or ""):
            if int(first) > int(last):
                yield f"array={self.array!r}: goes from {first} down to {last}; write {last}-{first}"
        yield from super().problems()

    def tasks_of_a_node(self) -> int:
        """Processes of each machine."""
        return self.processes_per_node or max(1, self.gpus // self.gpus_per_process)

    def devices(self) -> int:
        """Those of CPUs are one a process."""
        return self.nodes * (self.gpus or self.tasks_of_a_node())

    def tasks(self) -> list[str]:
        return [] if self.array is None else [re.findall(r"\d+", self.array)[0]]

    def render(self, job: Job) -> Plan:
        """A batch script and the command that submits it."""
        options = flags(
            job_name=job.name,
            nodes=self.nodes,
            ntasks_per_node=self.tasks_of_a_node(),
            gres=f"gpu:{self.gpus}" if self.gpus else None,
            cpus_per_task=self.cpus_per_task,
            time=self.time,
            partition=self.partition,
            account=self.account,
            array=self.array,
            dependency="singleton" if self.chain > 1 else None,
            requeue=True,
            open_mode="append",
            signal=f"TERM@{self.grace}",
            output=launched(job.name, "%A_%a.log" if self.array else "%j.log"),
        )
        options += flags(
            **dict(text.partition("=")[::2] if "=" in text else (text, True) for text in self.option)
        )
        head = "".join(
            f"{line}\n" for line in ("#!/usr/bin/env bash", *(f"#SBATCH {option}" for option in options))
        )
        settings = [
            "set -uo pipefail\n",
            'export PATH="$PWD/.venv/bin:$PATH"\n',
            exported(self.variables()),
            f"{self.setup}\n" if self.setup else "",
            f"command=({' '.join(map(with_task, self.supervised(job)))})\n\n",
        ]
        path = launched(job.name, "job.sbatch")
        submit = ("sbatch", *flags(parsable=True), path)
        return Plan({path: head + "".join(settings) + BODY.read_text()}, (submit,) * self.chain)


def with_task(word: str) -> str:
    """A word of the command for bash; the number of the array's task stands where the word says so."""
    quoted = (shlex.quote(part) if part else "" for part in word.split(PLACEHOLDER))
    return f'"${TASK}"'.join(quoted) or "''"
