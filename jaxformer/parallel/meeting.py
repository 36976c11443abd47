"""Processes wait for each other before JAX does: where one is missing, JAX ends the others and does not say which.

Process 0 listens at the coordinator's address until every other one has said its number there; then it lets all of them
go, and leaves the address to JAX's coordination service.
"""

import json
import logging
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from jaxformer.errors import UserError
from jaxformer.parallel.places import Place, Unavailable

logger = logging.getLogger("jaxformer")
SAID_EVERY = 10.0  # seconds
ANSWER = 5.0  # seconds in which a process that has come says its number


def meet(place: Place, seconds: float) -> None:
    """Returns when all processes are there; logs every SAID_EVERY seconds who is missing.

    Raises:
      Unavailable: some are missing after so many seconds, or another program has the port.
      UserError: the processes do not agree on how many they are.
    """
    host, _, port = place.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"coordinator={place.coordinator!r}: expected HOST:PORT, as in 10.0.0.1:6002")
    if place.index == 0:
        wait_for_all(place, int(port), seconds)
    else:
        wait_for_first(place, (host.strip("[]"), int(port)), seconds)


def wait_for_all(place: Place, port: int, seconds: float) -> None:
    """Process 0's part."""
    waiting, there, problem = Waiting(seconds), dict[int, socket.socket](), None
    with ExitStack() as stack:
        try:
            server = stack.enter_context(listening(port, place.count))
        except OSError as error:
            remedy = "end the program that has it, or choose another port"
            raise Unavailable(f"coordinator={place.coordinator!r}: {error.strerror}; {remedy}") from error
        while problem is None and (missing := {*range(1, place.count)} - there.keys()):
            absent = f"{numbered(sorted(missing))} of {place.count}"
            if waiting.over(absent):
                raise Unavailable(
                    f"{absent} did not come to {place.coordinator} in {seconds:g} s (parallel.timeouts.start)",
                    "look at what they say, and whether this address can be reached from there",
                )
            server.settimeout(waiting.left())
            with suppress(OSError, ValueError, TypeError):  # nobody comes, or a probe of a load balancer
                connection = stack.enter_context(server.accept()[0])
                connection.settimeout(ANSWER)
                index, count = json.loads(connection.makefile().readline(100))
                there[index] = connection
                if count != place.count:
                    problem = f"processes: {count} on process {index}, {place.count} on process 0; give all the same"
        for connection in there.values():
            with suppress(OSError):
                connection.sendall(json.dumps(problem).encode() + b"\n")
                connection.recv(1)  # who closes first keeps the port busy for a minute
    if problem is not None:
        raise UserError(problem)


def listening(port: int, count: int) -> socket.socket:
    """A socket that listens on all of this machine's addresses, as JAX's service does."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=count, dualstack_ipv6=True)
    return socket.create_server(("", port), backlog=count)


def wait_for_first(place: Place, address: tuple[str, int], seconds: float) -> None:
    """The part of every process but process 0."""
    waiting = Waiting(seconds)
    while not waiting.over(f"process 0 at {place.coordinator}"):
        with suppress(OSError, ValueError), socket.create_connection(address, timeout=ANSWER) as connection:
            connection.sendall(json.dumps([place.index, place.count]).encode() + b"\n")
            connection.settimeout(seconds)
            if (problem := json.loads(connection.makefile().readline(1000))) is None:
                return
            raise UserError(problem)
        time.sleep(min(1.0, waiting.left()))
    raise Unavailable(
        f"process 0 of {place.count} cannot be reached at {place.coordinator} ({seconds:g} s)",
        "look whether it runs, and whether its name and its port can be reached from here",
    )


class Waiting:
    """How long a process has been waiting."""

    def __init__(self, seconds: float):
        now = time.monotonic()
        self.end, self.next = now + seconds, now + SAID_EVERY

    def over(self, what: str) -> bool:
        """Whether the time is over; logs what is waited for when it is time to."""
        now = time.monotonic()
        if now >= self.next:
            self.next = now + SAID_EVERY
            logger.info("waiting for %s", what)
        return now >= self.end

    def left(self) -> float:
        """Seconds until something is to be said, or the time is over."""
        return max(0.001, min(self.next, self.end) - time.monotonic())


def numbered(processes: Sequence[int]) -> str:
    """Numbers in order as people write them: "processes 1-3, 5", "process 2"."""
    parts: list[list[int]] = []
    for number in processes:
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    listed = ", ".join("-".join(map(str, part)) for part in parts)
    return f"process{'es' * (len(processes) != 1)} {listed}"
