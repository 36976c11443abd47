"""The cores or the accelerators of a worker: as many as a trial is given, however many workers there are.

Results depend on the number of cores in their last bits, so that a worker sees no more of them than others do.
"""

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import NamedTuple

from jaxformer.errors import UserError
from jaxformer.files import locked
from jaxformer.sweeps.spaces import Sweep
from jaxformer.sweeps.study import SLOTS, Study

DEVICES = "/dev"
PORT = 8476  # of the first TPU worker; the others have those behind it


class Kind(NamedTuple):
    """A kind of accelerator."""

    name: str
    variable: str
    """The variable of the environment with the names of those that a process may use."""
    files: tuple[str, ...]
    """What Linux calls them in /dev."""
    package: str
    """The package without which JAX does not see them."""
    bounds: Mapping[int, str] | None = None
    """How so many of a host lie that are a slice by themselves (jax/_src/test_multiprocess.py has the same); None: they
    are used in any number."""


KINDS = (
    Kind("GPU", "CUDA_VISIBLE_DEVICES", ("nvidia[0-9]*",), "jaxlib"),
    Kind(
        "TPU chip",
        "TPU_VISIBLE_CHIPS",
        ("accel[0-9]*", "vfio/[0-9]*"),
        "libtpu",
        {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"},
    ),
)


class Taken(Exception):
    """Another worker has this slot."""


@contextmanager
def slot(study: Study) -> Iterator[int]:
    """Within this context the process has the first free slot of its machine, and its cores or its accelerators.

    Nothing may have asked JAX for its devices before.

    Raises:
      UserError: all accelerators are taken, or there are fewer of them, or of cores, than a trial is given.
    """
    with ExitStack() as held:
        for index in count():
            try:
                held.enter_context(locked(study.folder / SLOTS / f"{socket.gethostname()}-{index}", Taken()))
                break
            except Taken:
                continue
        confine(index, study.sweep)
        yield index


def accelerators() -> tuple[Kind | None, list[str]]:
    """The kind of accelerators that this process may use, and their names; None and none where it trains on CPUs."""
    if os.environ.get("JAX_PLATFORMS", "") != "cpu":
        for kind in KINDS:
            if kind.variable in os.environ:
                found = [name for name in os.environ[kind.variable].split(",") if name]
            else:
                files = [path for each in kind.files for path in Path(DEVICES).glob(each)]
                found = [str(index) for index in range(len(files))]
            if found and find_spec(kind.package):
                return kind, found
    return None, []


def slots_of(kind: Kind, found: list[str], each: int) -> list[list[str]]:
    """The accelerators of each slot, by their names.

    Raises:
      UserError: there are fewer than a trial is given, or so many TPU chips are no slice.
    """
    counts = [count for count in kind.bounds or range(1, len(found) + 1) if count <= len(found)]
    if each not in counts:
        raise UserError(
            f"accelerators_per_trial={each}: there are {len(found)} {kind.name}s here; use "
            + " or ".join(map(str, counts))
        )
    return [found[first : first + each] for first in range(0, len(found) - each + 1, each)]


def check_count(workers: int, sweep: Sweep) -> None:
    """Refuses what this machine does not have.

    Raises:
      UserError: there are fewer cores or accelerators than a trial is given, or than there are workers for.
    """
    kind, found = accelerators()
    each = sweep.accelerators_per_trial
    if kind is None:
        cores_here(0, sweep)
    elif workers > (most := len(slots_of(kind, found, each))):
        has = f"each has {each} of the {len(found)} {kind.name}s here"
        raise UserError(f"workers={workers}: {has}; use {most}")


def confine(index: int, sweep: Sweep) -> None:
    """Gives this process the accelerators of a slot, or else its cores."""
    kind, found = accelerators()
    if kind is None:
        if cores := cores_here(index, sweep):
            os.sched_setaffinity(0, cores)
        return
    slots = slots_of(kind, found, each := sweep.accelerators_per_trial)
    if index >= len(slots):
        raise UserError(
            f"there is a worker for each {each} of the {len(found)} {kind.name}s; start no more on this machine"
        )
    os.environ[kind.variable] = ",".join(slots[index])
    if kind.bounds is not None:  # it does not look for other hosts, and leaves the other chips alone
        os.environ.update(
            TPU_PROCESS_BOUNDS="1,1,1",
            TPU_CHIPS_PER_PROCESS_BOUNDS=kind.bounds[each],
            TPU_PROCESS_ADDRESSES=f"localhost:{PORT + index}",
            TPU_PROCESS_PORT=str(PORT + index),
            CLOUD_TPU_TASK_ID="0",
            ALLOW_MULTIPLE_LIBTPU_LOAD="1",
        )


def cores_here(index: int, sweep: Sweep) -> set[int]:
    """The cores of a slot of this machine; none where processes cannot be bound to cores."""
    if sys.platform != "linux":
        return set()
    return cores_of(index, sweep.cores_per_trial, sorted(os.sched_getaffinity(0)))


def cores_of(index: int, cores: int, there: list[int]) -> set[int]:
    """The cores of a slot; where there are more workers than cores, they share them.

    Raises:
      UserError: there are fewer than a trial is given.
    """
    if cores > len(there):
        has = f"this process may use {len(there)} of this machine's"
        raise UserError(f"cores_per_trial={cores}: {has}; sweeps with fewer cores give other last bits")
    return {there[(index * cores + each) % len(there)] for each in range(cores)}
