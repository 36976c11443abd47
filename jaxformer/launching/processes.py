"""Processes of this machine: which ones a session has, and that they are dead.

Linux tells of them in /proc; elsewhere a process group is all that is known of a session.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from jaxformer.errors import UserError, counted

PROC = Path("/proc")
STATE, SESSION, STARTED = 0, 3, 19  # places in /proc/NUMBER/stat behind the name, see proc_pid_stat(5)
PATIENCE = 60.0  # seconds that killed processes may take to be gone


def stat(number: int | str) -> list[str]:
    """What /proc says of a process, behind its name; [] if there is none."""
    with suppress(OSError):
        return (PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
    return []


def family(number: int) -> list[int]:
    """A process and those that its main thread started, where the system tells these."""
    children = ""
    with suppress(OSError):
        children = (PROC / str(number) / "task" / str(number) / "children").read_text()
    return [number, *map(int, children.split())]


def boot() -> str:
    """What tells this start of the machine from its other ones; "" where that is not known."""
    with suppress(OSError):
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    return ""


def identity(number: int) -> str | None:
    """What tells a process from later ones with the same number; None if there is none."""
    return fields[STARTED] if (fields := stat(number)) else None


def alive(session: int) -> list[int]:
    """The processes of a session that live."""
    numbers = [path.name for path in PROC.glob("[0-9]*")]
    found = {number: fields for number in numbers if (fields := stat(number))}
    return [int(n) for n, f in found.items() if f[SESSION] == str(session) and f[STATE] not in "ZX"]


def end_session(session: int) -> None:
    """Kills all processes of a session, and returns when none is left.

    Raises:
      UserError: one cannot be killed.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(session, signal.SIGKILL)
    until = time.monotonic() + PATIENCE
    while left := alive(session):
        for number in left:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        if time.monotonic() > until:
            stuck = f"process {left[0]} does not die {counted(round(PATIENCE), 'second')} after SIGKILL"
            raise UserError(f"{stuck}: it waits for a disk or a device", "start the machine anew")
        time.sleep(0.02)
