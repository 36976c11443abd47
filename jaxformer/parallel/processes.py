"""Several processes that train one model: they begin together, have the same in common, and end together.

The one file that knows JAX's coordination service. Every process makes the same calls in the same order.
"""

import hashlib
import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax._src import cache_key, distributed

from jaxformer.errors import NoRoom, UserError
from jaxformer.parallel.mesh import Timeouts

if TYPE_CHECKING:
    from jaxformer.parallel.places import Place

TOGETHER = 5.0  # seconds: a mistake that all processes make ends them within this time
LATE = "DEADLINE_EXCEEDED"  # what JAX says where nobody is dead, but not all have come
DAY = 24 * 60 * 60 * 1000  # milliseconds; a process that died ends the others' waiting long before
calls = count()


@contextmanager
def joined(place: "Place | None", timeouts: Timeouts) -> Iterator[None]:
    """Within this context the process is one of several. It comes before anything that asks JAX for devices.

    It ends when all processes do: they have trained to the end, or are saved after a signal. If a mistake of the
    user's ends it, they are waited for a few seconds, so that all can say it; where a disk is full, they are not. If a
    computation failed, the reason may be that another process has died: then JAX ends this one while it waits. Another
    error ends this process, and thereby all of them.

    Args:
      place: this process's; None if it is alone: then nothing happens.
      timeouts: how long processes wait for each other.

    Raises:
      UserError: as `meet`.
    """
    if place is None:
        yield
        return
    from jaxformer.parallel.meeting import meet  # one process alone does without

    meet(place, timeouts.start)
    jax.distributed.initialize(
        place.coordinator,
        place.count,
        place.index,
        local_device_ids=place.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=timeouts.start,
        heartbeat_timeout_seconds=timeouts.heartbeat,
        shutdown_timeout_seconds=timeouts.shutdown,
    )
    share_programs()
    try:
        yield
    except NoRoom:
        raise
    except (UserError, SystemExit, jax.errors.JaxRuntimeError) as end:
        seconds = timeouts.shutdown if isinstance(end, SystemExit) else TOGETHER
        if isinstance(end, jax.errors.JaxRuntimeError):
            seconds += timeouts.heartbeat
        try:
            service().wait_at_barrier("jaxformer/end", int(seconds * 1000))
            jax.distributed.shutdown()
        except jax.errors.JaxRuntimeError as error:
            if isinstance(end, jax.errors.JaxRuntimeError) and LATE not in str(error):
                # Another one is dead. This thread may hear of it before the one of JAX that ends the process for it.
                time.sleep(timeouts.heartbeat)
        raise end
    jax.distributed.shutdown()


def share_programs() -> None:
    """Has processes on one machine find the programs that process 0 has compiled for CPU devices and kept.

    JAX finds a program by a key with a fingerprint of the devices in it, and process 0 alone keeps programs. On CPUs
    that fingerprint differs from process to process: the others would compile everything anew at each start.
    """
    if jax.default_backend() != "cpu":
        return
    fingerprint = hashlib.sha256()
    with suppress(AttributeError):  # another version of JAX has no such function
        cache_key._hash_accelerator_config(fingerprint, np.array(jax.devices()))
        here, name = [socket.gethostname(), fingerprint.hexdigest()], "jaxformer/programs"
        if jax.process_index() == 0:
            service().key_value_set(name, json.dumps(here))
        host, found = json.loads(service().blocking_key_value_get(name, DAY))

        def same(hash_obj: Any, accelerators: Any) -> None:
            hash_obj.update(found.encode())

        if host == here[0]:
            cache_key._hash_accelerator_config = same


@contextmanager
def together() -> Iterator[dict[str, Any]]:
    """What all processes do before they go on: a mistake of the user's that one finds ends all of them.

    Computations of several processes have no place in it: one that has found a mistake would not take part.

    Yields:
      A dict for what has to be the same on all processes: words -> JSON values.

    Raises:
      UserError: this process's; or what another process's says; or what differs.
    """
    facts: dict[str, Any] = {}
    if jax.process_count() == 1:
        yield facts
        return
    said: dict[str, Any] = {"facts": facts, "mistake": ()}
    try:
        yield facts
    except UserError as error:
        said |= {"mistake": error.lines, "code": error.code}
    lines, code = judged(said)
    if lines:
        verdict = UserError(*lines)
        verdict.code = code
        raise verdict


def service() -> Any:
    """The client of JAX's coordination service."""
    return distributed.global_state.client


def judged(said: Mapping[str, Any]) -> tuple[list[str], int]:
    """Process 0's judgement of what all processes say, on every process: see `disagreements`; and an exit code."""
    client, processes, key = service(), jax.process_count(), f"jaxformer/{next(calls)}"
    client.key_value_set(f"{key}/{jax.process_index()}", json.dumps(said))
    if jax.process_index() == 0:
        every = [
            json.loads(client.blocking_key_value_get(f"{key}/{index}", DAY)) for index in range(processes)
        ]
        code = next((each["code"] for each in every if each["mistake"]), UserError.code)
        client.key_value_set(f"{key}/verdict", json.dumps([disagreements(every), code]))
    return json.loads(client.blocking_key_value_get(f"{key}/verdict", DAY))


def say_to_all(topic: str, value: Any) -> None:
    """Has the coordination service keep a JSON value of this process, in the place of the one before; waits for none.

    Raises:
      JaxRuntimeError: the service cannot be reached.
    """
    key = f"jaxformer/{topic}/{jax.process_index()}"
    service().key_value_set(key, json.dumps(value), allow_overwrite=True)


def said_by_all(topic: str) -> dict[int, Any]:
    """What each process has said last: number -> JSON value; without those that have said nothing yet.

    Raises:
      JaxRuntimeError: the service cannot be reached.
    """
    found = service().key_value_dir_get(f"jaxformer/{topic}/")
    return {int(key.rpartition("/")[2]): json.loads(value) for key, value in found}


def disagreements(every: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of the first process that found a mistake, and a line for each fact that differs.

    Args:
      every: {"facts": {words: JSON value}, "mistake": [a line, ...]} of each process.
    """
    mistaken = next((index for index, said in enumerate(every) if said["mistake"]), 0)
    lines, facts = list(every[mistaken]["mistake"]), [said["facts"] for said in every]
    if lines and any(said["mistake"] != lines for said in every):
        lines[0] = f"on process {mistaken}: {lines[0]}"
    for name in dict.fromkeys(name for each in facts for name in each):
        values = [each.get(name) for each in facts]
        if others := [index for index, value in enumerate(values) if value != values[0]]:
            more = f", and {len(others) - 1} more that differ" if len(others) > 1 else ""
            differs = f"{values[0]!r} on process 0, {values[others[0]]!r} on process {others[0]}{more}"
            lines.append(f"{name}: {differs}; all processes of a run need the same")
    return lines
