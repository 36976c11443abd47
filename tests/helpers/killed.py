"""Runs of the command line in processes of their own that are killed, without any cleaning up, at a chosen moment.

`python -m helpers.killed` imports everything once, and starts no backend; each run is a fork of it, so that a start
costs a second and not six. It reads a request a line from stdin (see `Killer.run`) and answers with a line. A process
that ends by an exception has the exit code FAILED, and its traceback comes through the pipe, which no kill cuts.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FAILED = 70
SYNCED = "fsync"
CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink")


class Killer(contextlib.AbstractContextManager):
    """The process that starts the others.

    Args:
      roots: the folders below which operations on files are counted.
      environment: further environment variables.
    """

    def __init__(self, roots, environment):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "helpers.killed", *map(str, roots)],
            env={**os.environ, "XLA_FLAGS": "", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __exit__(self, *_):
        self.process.communicate(timeout=60)

    def run(self, argv, output, operation=None, seconds=None, power=False):
        """Runs the command line; returns its exit code (-9 if it was killed) and what it did to files, in order.

        Args:
          argv: the words behind "jaxformer".
          output: the file that takes stdout and stderr.
          operation: it is killed just before this operation on files below the roots (numbered from 0).
          seconds: it is killed so long after its first operation there.
          power: the power fails: once it is dead, all that no fsync has brought to the disk is lost from the files.
        """
        request = {"argv": argv, "output": str(output), "at": [operation, seconds, power]}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


class Watch:
    """Counts the operations that change files below `roots`, and dies at one of them.

    Python tells a hook of every operation just before it happens, on all threads, whichever library asks for it.
    """

    def __init__(self, roots, pipe, operation):
        self.roots, self.pipe, self.operation, self.count = roots, pipe, operation, 0
        self.fsync, os.fsync = os.fsync, self.noting
        sys.addaudithook(self.hook)

    def hook(self, event, arguments):
        if event not in CHANGES or (event == "open" and not arguments[2] & WRITING):
            return
        path = arguments[0]
        if isinstance(path, int):
            return
        path = os.fsdecode(path)
        folder = arguments[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
        if not os.path.isabs(path):
            with contextlib.suppress(OSError):
                path = os.path.join(
                    os.getcwd() if folder == -1 else os.readlink(f"/proc/self/fd/{folder}"), path
                )
        root = next((root for root in self.roots if path.startswith(root)), None)
        if root is None:
            return
        number, self.count = self.count, self.count + 1
        if number == self.operation:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(self.pipe, f"{event.removeprefix('os.')} {path[len(root) :]}\n".encode())

    def noting(self, descriptor):
        self.fsync(descriptor)
        found = os.fstat(descriptor)
        os.write(self.pipe, f"{SYNCED} {found.st_dev} {found.st_ino} {found.st_size}\n".encode())


def sizes(roots):
    """Each file below the roots, by device and inode: its path and its size."""
    files = [path for root in roots for path in Path(root).rglob("*") if path.is_file()]
    return {(found.st_dev, found.st_ino): (path, found.st_size) for path in files for found in [path.stat()]}


def lose(roots, before, synced):
    """Cuts every file down to what an fsync has brought to the disk, or to what was there before."""
    for file, (path, size) in sizes(roots).items():
        if size > (kept := synced.get(file, before.get(file, (path, 0))[1])):
            os.truncate(path, kept)


def child(request, roots, pipe):
    """The forked process: runs the command line, and leaves with its exit code."""
    with open(request["output"], "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    Watch(roots, pipe, request["at"][0])
    from jaxformer import cli

    code = cli.main(request["argv"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def parent(pid, pipe, seconds):
    """Reads what the child does until it ends, and kills it when its time has come; returns the lines."""
    said, until = b"", None
    while True:
        if not select.select([pipe], [], [], until and max(0.0, until - time.monotonic()))[0]:
            os.kill(pid, signal.SIGKILL)
            seconds = until = None
        elif block := os.read(pipe, 65536):
            if seconds is not None and until is None:
                until = time.monotonic() + seconds
            said += block
        else:
            return said.decode().splitlines()


def main(roots):
    """Answers requests until there are no more."""
    load()
    for line in sys.stdin:
        request = json.loads(line)
        before = sizes(roots)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            try:
                child(request, roots, writer)
            except BaseException:
                os.write(writer, traceback.format_exc().encode())
            finally:
                os._exit(FAILED)
        os.close(writer)
        operations = parent(pid, reader, request["at"][1])
        os.close(reader)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        notes = [each.split() for each in operations if each.startswith(f"{SYNCED} ")]
        operations = [each for each in operations if not each.startswith(f"{SYNCED} ")]
        if request["at"][2] and code == -signal.SIGKILL:
            lose(roots, before, {(int(device), int(inode)): int(size) for _, device, inode, size in notes})
        sys.stdout.write(json.dumps([code, operations]) + "\n")
        sys.stdout.flush()


def load():
    """Imports what a run imports; nothing here may start a thread or JAX's backend."""
    import cv2  # noqa: F401
    import tensorboardX  # noqa: F401

    import jaxformer.data.digits
    import jaxformer.evaluation.samples
    import jaxformer.observe.report
    import jaxformer.verbs.train  # noqa: F401
    from jaxformer import train  # noqa: F401


if __name__ == "__main__":
    main([os.path.abspath(root) for root in sys.argv[1:]])
