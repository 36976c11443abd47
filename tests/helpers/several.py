"""Trainings by several processes on this machine, each a fork of a process that has imported everything.

`python -m helpers.several` imports once and starts no backend; a process of a training then takes a second to start,
not six. It reads a request a line from stdin, and answers with a line: what starts processes with their numbers, what
waits with their exit codes.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from helpers import full_disk, killed

DEADLINE = 120  # seconds


class Several(contextlib.AbstractContextManager):
    """The process that starts the others.

    Args:
      folder: takes what the processes say, in files named "0.0": of the start and the process.
    """

    def __init__(self, folder):
        self.folder, self.starts = folder, 0
        root = Path(__file__).parent.parent.parent
        path = os.pathsep.join([str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "helpers.several"],
            env={
                **os.environ,
                "PYTHONPATH": path,
                "JAX_COMPILATION_CACHE_DIR": str(root / ".jax_cache"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # most starts compile what one before has compiled
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __exit__(self, *_):
        self.process.communicate(timeout=60)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, commands, devices, told=None, faults=None):
        """Starts `jaxformer WORDS` for each of the lists of words, each with so many devices; returns their numbers.

        Args:
          commands: the lists of words.
          devices: of each process.
          told: a phase, and how many seconds after its first beginning each process gets SIGTERM; the moment is the
            time of its file ("0.0.told" beside its output).
          faults: of each process None, or the name of a function in helpers/full_disk.py, which it calls before.
        """
        with socket.create_server(("localhost", 0)) as server:
            coordinator = f"localhost:{server.getsockname()[1]}"
        self.files = [self.folder / f"{self.starts}.{index}" for index in range(len(commands))]
        self.starts += 1
        files = [str(file) for file in self.files]
        faults = faults or [None] * len(commands)
        request = {"commands": commands, "devices": devices, "coordinator": coordinator, "files": files}
        return self.ask(**request, told=told, faults=faults)

    def run(self, commands, devices, faults=None):
        """Starts processes and waits for them; returns their exit codes."""
        return self.ask(wait=self.start(commands, devices, faults=faults))

    def wait_for(self, text, process=0):
        """Returns when a process has said so; fails if it has not in DEADLINE seconds."""
        end = time.monotonic() + DEADLINE
        while text not in self.said(process):
            assert time.monotonic() < end, self.said(process)
            time.sleep(0.02)

    def said(self, process=0):
        """What a process of the last start has said."""
        return self.files[process].read_text() if self.files[process].exists() else ""


def tell(phase, seconds, file):
    """Has this process get SIGTERM so many seconds after a phase of its training has begun."""
    from jaxformer.observe.timing import Clock

    enter = Clock.phase

    def end():
        Path(file + ".told").touch()
        os.kill(os.getpid(), signal.SIGTERM)

    def entered(clock, name):
        if name == phase and not clock.counts[f"told of {phase}"]:
            clock.counts[f"told of {phase}"] += 1
            timer = threading.Timer(seconds, end)
            timer.daemon = True
            timer.start()
        return enter(clock, name)

    Clock.phase = entered


def child(words, environment, file, told, fault):
    """A forked process: runs the command line as `python -m jaxformer` does."""
    with open(file, "wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.update(environment)
    sys.argv = ["jaxformer", *words]
    signal.alarm(DEADLINE)
    if fault is not None:
        getattr(full_disk, fault)()
    from jaxformer.__main__ import main

    if told is not None:
        tell(*told, file)
    main()
    sys.stdout.flush()
    os._exit(0)


def serve():
    """Answers requests until there are no more."""
    from jaxformer.verbs.common import cpu_devices

    killed.load()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in request["wait"]]
        else:
            count, answer = len(request["commands"]), []
            for index, words in enumerate(request["commands"]):
                place = {"COORDINATOR": request["coordinator"], "PROCESSES": count, "PROCESS": index}
                environment = {f"JAXFORMER_{name}": str(value) for name, value in place.items()}
                if (pid := os.fork()) == 0:
                    environment |= cpu_devices(request["devices"])
                    fault = request["faults"][index]
                    child(words, environment, request["files"][index], request["told"], fault)
                answer.append(pid)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
