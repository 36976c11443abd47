"""What watches over a training from inside: a heartbeat, and a watchdog that ends it when it hangs.

One thread does both, once a second. The heartbeat is a file that a supervisor looks at: it stops when the process is
stopped, or when Python stands still. The watchdog looks at the phase that the clock says the training is in: it sees a
training that waits for ever while threads go on, for a batch, a device or another process.
"""

import faulthandler
import os
import threading
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxformer.launching import HEARTBEATS, HUNG

if TYPE_CHECKING:
    from jaxformer.config.sections import WatchdogConfig
    from jaxformer.observe.timing import Clock

STACKS = "stacks.txt"
BEAT = 1.0  # seconds
LATE = 5.0  # seconds after which a beat shows that the process stood still
GRACE = 10.0  # seconds beyond a limit in which this thread has written the stacks, or cannot


class Watchdog(AbstractContextManager["Watchdog"]):
    """Within this context, a phase that takes longer than its limit ends the process with exit code HUNG.

    The stacks of all threads are written to RUN/stacks.txt and to standard error. Time in which the process itself was
    stopped, as by Ctrl-Z, does not count.

    Args:
      limits: seconds by phase.
      clock: knows the phase.
      folder: the run's folder.
    """

    def __init__(self, limits: "WatchdogConfig", clock: "Clock", folder: Path):
        self.limits, self.clock, self.stacks = limits, clock, folder / STACKS
        beats = os.environ.get(HEARTBEATS)
        self.heartbeat = Path(beats) / str(os.getpid()) if beats else None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, name="watchdog", daemon=True)
        self.enabled = False

    def __enter__(self) -> "Watchdog":
        if not faulthandler.is_enabled():
            with suppress(OSError, ValueError):  # standard error is closed
                faulthandler.enable(2)  # what the supervisor's SIGABRT brings about
                self.enabled = True
        self.thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.over.set()
        self.thread.join()
        faulthandler.cancel_dump_traceback_later()
        if self.enabled:
            faulthandler.disable()
        if self.heartbeat is not None:
            self.heartbeat.unlink(missing_ok=True)

    def watch(self) -> None:
        """Beats and looks at the clock, until the context ends."""
        woke = before = time.monotonic()
        while not self.over.is_set():
            if self.heartbeat is not None:
                with suppress(OSError):  # the supervisor is gone
                    self.heartbeat.write_text(str(self.clock.counts["compile"] + self.clock.counts["train"]))
            now = time.monotonic()
            woke, before = now if now - before > BEAT + LATE else woke, now
            phase, since = self.clock.current
            if (limit := self.limits.seconds(phase, self.clock.pace.median)) is None:
                faulthandler.cancel_dump_traceback_later()
            elif (left := limit - (now - max(since, woke))) <= 0:
                self.end(phase, limit)
            else:  # if Python stands still by then, this writes the stacks nevertheless
                self.later(left + GRACE)
            self.over.wait(BEAT)

    def later(self, seconds: float, leave: bool = False) -> None:
        """Has the stacks written to standard error in so many seconds, if that is a file."""
        with suppress(OSError, ValueError, RuntimeError):
            faulthandler.dump_traceback_later(seconds, exit=leave, file=2)

    def end(self, phase: str, limit: float) -> None:
        """Writes the stacks and ends the process."""
        self.later(GRACE, leave=True)  # if the run's folder hangs, too, writing there never returns
        said = f"{phase!r} took longer than {limit:.0f} s: the training hangs and is ended; its threads:\n"
        with suppress(OSError), self.stacks.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}, process {os.getpid()}: {said}")
            file.flush()
            faulthandler.dump_traceback(file)
        with suppress(OSError, ValueError):
            os.write(2, f"jaxformer: {said}".encode())
            faulthandler.dump_traceback(2)
        os._exit(HUNG)
