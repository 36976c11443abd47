"""Several processes of one training, started on this machine: what a pod does, on CPU devices, to be looked at.

And the processes that they are, which the workers of a sweep are, too.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

from jaxformer.launching.decisions import kind_of, meaning
from jaxformer.preemption import EXIT_CODE, UNAVAILABLE, Preempted
from jaxformer.verbs.common import cpu_devices, print_note

LEAVING = 10.0  # seconds in which the others leave when one has ended with an error
SAVING = 120.0  # seconds in which all are saved and leave after a signal
ATTEMPTS = 3  # to find a port that nobody takes meanwhile
NOISE = "connected peer ranks is"  # what Gloo, which connects CPU devices, prints for each
BEGIN = "import runpy; runpy.run_module('jaxformer', run_name='__main__')"
if sys.platform == "linux":  # a process whose parent is killed is killed, too: 1 is PR_SET_PDEATHSIG
    BEGIN = f"import ctypes; ctypes.CDLL(None).prctl(1, {signal.SIGKILL:d}); {BEGIN}"


def train_together(words: Sequence[str], count: int, devices: int) -> int:
    """Runs a command in several processes of one training.

    Args:
      words: those behind "jaxformer".
      count: the number of processes.
      devices: CPU devices of each.

    Returns:
      The exit code of the first that ended with another one than 0; 128 + N for signal N.
    """
    for _ in range(ATTEMPTS):
        with socket.create_server(("localhost", 0)) as server:
            port = server.getsockname()[1]
        children = [
            Child(words, f"process {index}", place(index, count, port) | cpu_devices(devices))
            for index in range(count)
        ]
        try:
            code = end_of(children)
        finally:
            for child in children:
                child.kill()
        if code != UNAVAILABLE:
            break
    return code


def place(index: int, count: int, port: int) -> dict[str, str]:
    """The environment that tells a process which one it is."""
    told = {"COORDINATOR": f"localhost:{port}", "PROCESSES": str(count), "PROCESS": str(index)}
    return {f"JAXFORMER_{name}": value for name, value in told.items()}


class Child:
    """A process that runs a command of ours; its lines are shown with its name.

    Args:
      words: those behind "jaxformer".
      name: what stands before its lines.
      environment: variables beside those of this process.
    """

    def __init__(self, words: Sequence[str], name: str, environment: Mapping[str, str]):
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-c", BEGIN, *words],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        )
        assert self.process.stdout is not None
        self.reader = threading.Thread(target=show, args=(self.process.stdout, name), daemon=True)
        self.reader.start()

    def kill(self) -> None:
        """Ends the process, if it runs, and waits until all that it said is shown."""
        self.process.kill()
        self.process.wait()
        self.reader.join(1)


def show(lines: IO[str], name: str) -> None:
    """Prints what a process says, line by line."""
    with lines:
        for line in lines:
            if NOISE not in line:
                print_note(f"{name}: {line.rstrip()}")


def end_of(children: Sequence[Child]) -> int:
    """Waits until all processes have ended; passes signals on; returns the first exit code that is not 0."""
    try:
        return first_code(children)
    except (Preempted, KeyboardInterrupt):
        for child in children:
            child.process.send_signal(signal.SIGTERM)
        if (code := first_code(children, SAVING)) in (0, EXIT_CODE):
            raise
        return code


def first_code(children: Sequence[Child], seconds: float = float("inf")) -> int:
    """Waits until all have ended, or `seconds` are over, or one has ended with an error and the others do not leave.

    It says which one died first.
    """
    first, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        codes = [child.process.poll() for child in children]
        failed = next((index for index, code in enumerate(codes) if code), None)
        if failed is not None and not first:
            first = codes[failed] or 0
            code = first if first > 0 else 128 - first
            if code >= 128 and kind_of(code) == "infrastructure":  # the others say why they end
                print_note(f"jaxformer: {children[failed].name} died first: {meaning(code)}")
            end = min(end, time.monotonic() + (LEAVING if first > 0 else 0.0))
        if None not in codes:
            break
        time.sleep(0.05)
    else:
        first = first or -signal.SIGKILL
    return first if first >= 0 else 128 - first
