"""Which of several processes this one is: told by flags or the environment, or found out from the cluster."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from jax._src import clusters

from jaxformer.errors import UserError
from jaxformer.parallel.mesh import Timeouts
from jaxformer.preemption import UNAVAILABLE

VARIABLES = {name: f"JAXFORMER_{name.upper()}" for name in ("coordinator", "processes", "process")}


class Unavailable(UserError):
    """Other processes, or what tells of them, cannot be reached, or a port is taken: a later attempt may succeed."""

    code = UNAVAILABLE


@dataclass(frozen=True)
class Place:
    """A process's place among those that train together."""

    coordinator: str
    """HOST:PORT, at which process 0 listens."""
    count: int
    """The number of processes."""
    index: int
    """The number of this one, from 0."""
    devices: tuple[int, ...] | None = None
    """Which of the GPUs that it sees are its own; None or () for all."""


def find_place(
    coordinator: str | None, processes: int | None, process: int | None, timeouts: Timeouts
) -> Place | None:
    """This process's place, as its arguments say, or the environment, or the cluster that it is on.

    Args:
      coordinator: HOST:PORT of process 0; or in JAXFORMER_COORDINATOR.
      processes: how many there are; or in JAXFORMER_PROCESSES.
      process: the number of this one, from 0; or in JAXFORMER_PROCESS.
      timeouts: how long to wait for the name of the coordinator.

    Returns:
      The place; None where there is one process alone.

    Raises:
      UserError: one of the three is missing or impossible.
    """
    told = {name: os.environ[variable] for name, variable in VARIABLES.items() if variable in os.environ}
    told |= {
        name: str(value)
        for name, value in zip(VARIABLES, (coordinator, processes, process))
        if value is not None
    }
    if not told:
        return place_in_cluster(timeouts)
    for name, variable in VARIABLES.items():
        if name not in told:
            raise UserError(f"{name}: is missing beside `{min(told)}`; give it, or set {variable}")
        if name != "coordinator" and not told[name].isdecimal():
            raise UserError(f"{name}={told[name]!r}: expected a number (it may stand in {variable})")
    place = Place(told["coordinator"], int(told["processes"]), int(told["process"]))
    if place.index >= place.count:
        last = place.count - 1
        raise UserError(f"process={place.index}: of {place.count} processes the last has the number {last}")
    return place if place.count > 1 else None


def place_in_cluster(timeouts: Timeouts) -> Place | None:
    """The place on a TPU pod, in a step of Slurm or under Open MPI; None where there is one process alone.

    JAX's detection of Kubernetes needs a package and rights of its own, and is left out: there, name the place.

    Raises:
      Unavailable: there is a cluster, and it does not answer.
    """
    kinds = (kind for kind in clusters.ClusterEnv._cluster_types if kind.name and not kind.opt_in_only_method)
    try:
        cluster = next((kind for kind in kinds if kind.is_env_present()), None)
        if cluster is None or (processes := cluster.get_process_count()) < 2:
            return None
        coordinator = os.environ.get("JAX_COORDINATOR_ADDRESS") or cluster.get_coordinator_address(
            timeout_secs=timeouts.start, override_coordinator_port=os.environ.get("JAX_COORDINATOR_PORT")
        )
        local, index = cluster.get_local_process_id(), cluster.get_process_id()
    except (OSError, RuntimeError) as error:
        unsaid = "the cluster does not tell the place of this process"
        raise Unavailable(f"{unsaid} ({error}); give `coordinator`, `processes` and `process`") from error
    devices: tuple[int, ...] | None = None if local is None else (local,)
    if "JAX_LOCAL_DEVICE_IDS" in os.environ:
        devices = None  # JAX reads it
    elif cluster.name == "slurm":
        devices = devices_in_slurm(os.environ)
    return Place(coordinator, processes, index, devices)


def devices_in_slurm(variables: Mapping[str, str]) -> tuple[int, ...]:
    """Which of the GPUs that a task of Slurm sees are its own; () for all.

    The tasks of a machine share those that all of them see; a task that is bound to its own sees no others.
    """
    node, tasks = int(variables.get("SLURM_NODEID", 0)), 1
    for part in variables.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):  # "2(x3),1": 2, 2, 2, 1
        each, _, times = part.partition("(x")
        node -= int(times.rstrip(")") or 1)
        if node < 0:
            tasks = int(each)
            break
    local, visible = int(variables["SLURM_LOCALID"]), variables.get("CUDA_VISIBLE_DEVICES")
    if tasks == 1 or "SLURM_GPUS_PER_TASK" in variables:
        return ()
    if visible is None:
        return (local,)
    seen = len(visible.split(","))
    share = seen // tasks
    return () if seen == 1 else tuple(range(local * share, (local + 1) * share)) or (local % seen,)
