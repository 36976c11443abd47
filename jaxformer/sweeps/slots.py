"""The cores and the accelerator of a worker: as many as a trial is given, however many workers there are.

Results depend on the number of cores in their last bits, so that a worker sees no more of them than others do.
"""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from jaxformer.errors import UserError
from jaxformer.files import locked
from jaxformer.sweeps.study import SLOTS, Study

OTHER_DEVICES = ("accel[0-9]*", "vfio/[0-9]*")  # of TPUs, in /dev


class Taken(Exception):
    """Another worker has this slot."""


@contextmanager
def slot(study: Study) -> Iterator[int]:
    """Within this context the process has the first free slot of its machine, and its cores or its GPU.

    Nothing may have asked JAX for its devices before.

    Raises:
      UserError: all GPUs are taken, or there are fewer cores than a trial is given.
    """
    with ExitStack() as held:
        for index in count():
            try:
                held.enter_context(locked(study.folder / SLOTS / f"{socket.gethostname()}-{index}", Taken()))
                break
            except Taken:
                continue
        confine(index, study.sweep.cores_per_trial)
        yield index


def gpus() -> list[str]:
    """The names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    if os.environ.get("JAX_PLATFORMS", "") == "cpu":
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(index) for index, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def check_count(workers: int) -> None:
    """Refuses more workers than there are GPUs on this machine.

    Raises:
      UserError: there are more.
    """
    if (found := gpus()) and workers > len(found):
        raise UserError(
            f"workers={workers}: each has a GPU, and there are {len(found)} here; use {len(found)}"
        )


def confine(index: int, cores: int) -> None:
    """Gives this process the GPU of a slot, or else its cores; of TPUs one worker has all that its machine has."""
    if found := gpus():
        if index >= len(found):
            raise UserError(
                f"there is a worker for each of the {len(found)} GPUs; start no more on this machine"
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = found[index]
    elif sys.platform == "linux" and not any(
        path for each in OTHER_DEVICES for path in Path("/dev").glob(each)
    ):
        os.sched_setaffinity(0, cores_of(index, cores, sorted(os.sched_getaffinity(0))))


def cores_of(index: int, cores: int, there: list[int]) -> set[int]:
    """The cores of a slot; where there are more workers than cores, they share them.

    Raises:
      UserError: there are fewer than a trial is given.
    """
    if cores > len(there):
        has = f"this process may use {len(there)} of this machine's"
        raise UserError(f"cores_per_trial={cores}: {has}; sweeps with fewer cores give other last bits")
    return {there[(index * cores + each) % len(there)] for each in range(cores)}
