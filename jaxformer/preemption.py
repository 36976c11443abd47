"""SIGTERM as a request to save and to stop."""

import signal
import threading
from types import FrameType
from typing import Any

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again


class Preemption:
    """Within this context SIGTERM sets `requested` instead of ending the process; the loop saves and stops.

    Signal handlers belong to the main thread: anywhere else, SIGTERM does what it did before.
    """

    def __init__(self) -> None:
        self.requested = False
        self.previous: Any = None

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGTERM, self.request)
        return self

    def __exit__(self, *exception: object) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGTERM, self.previous)

    def request(self, number: int, frame: FrameType | None) -> None:
        """Notes the request; the loop checks it after every step."""
        self.requested = True
