"""What SIGTERM, SIGHUP and Ctrl-C do: they end what runs, and training saves first."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

EXIT_CODE = 75  # after SIGTERM and SIGHUP; EX_TEMPFAIL of sysexits.h: try again
UNAVAILABLE = 69  # other processes cannot be reached; EX_UNAVAILABLE
INTERRUPTED = 130  # after Ctrl-C: 128 + SIGINT
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Preempted(SystemExit):
    """SIGTERM or SIGHUP came while a function of this package ran; a training has been saved.

    Like KeyboardInterrupt it is no Exception, so that a loop of trainings with `except Exception` ends, too. A script
    that does not catch it leaves with exit code 75 and without a traceback.
    """

    def __init__(self, name: str):
        super().__init__(EXIT_CODE)
        self.name = name

    def __str__(self) -> str:
        return f"ended by {self.name}"


class Preemption:
    """Within this context SIGTERM and SIGHUP raise Preempted, and Ctrl-C KeyboardInterrupt; `deferred` has them wait.

    What a library makes of that, as Orbax does while it reads, is raised as what it was.

    A signal that is ignored, as nohup has it, stays ignored. Handlers belong to the main thread: in another one, the
    signals do what they did before.

    Attributes:
      requested: the first signal that came.
    """

    signals: tuple[signal.Signals, ...] = SIGNALS

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self.interrupts = 0
        self.deferring = self.raised = False
        self.previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():
            for number in self.signals:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self.previous[number] = signal.signal(number, self.answer)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for number, previous in self.previous.items():
            signal.signal(number, previous)
        if self.raised and self.requested is not None and isinstance(error, Exception):
            raise meant_by(self.requested) from error

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Signals set `requested`, and are raised at the end; but a second Ctrl-C at once."""
        self.raise_requested()  # by a signal whose exception came where Python cannot raise one
        self.deferring = True
        try:
            yield
        finally:
            self.deferring = False
        self.raise_requested()

    def due(self) -> bool:
        """Whether the training is to end here, saved."""
        return self.requested is not None

    def raise_requested(self) -> None:
        """Raises what the first signal asked for, if one came."""
        if self.requested is not None:
            raise meant_by(self.requested)

    def answer(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal."""
        came = signal.Signals(number)
        self.requested = self.requested or came
        self.interrupts += came == signal.SIGINT
        if self.deferring and self.interrupts < 2:
            return
        self.raised = True
        if callable(previous := self.previous[came]):
            previous(number, frame)
        raise meant_by(came)


class SharedPreemption(Preemption):
    """The same where several processes train together: a signal to any of them ends all of them after the same step.

    SIGTERM is JAX's coordination service's: a handler of ours would keep it from telling the others. What the terminal
    sends one process is passed on to it. `due` has to be asked by all processes equally often.
    """

    signals = (signal.SIGHUP, signal.SIGINT)

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def due(self) -> bool:
        """Whether the training is to end here: for all processes at the same call."""
        if self.requested is None:
            from jax.experimental import multihost_utils

            self.asked += 1
            if multihost_utils.reached_preemption_sync_point(self.asked):
                self.requested = signal.SIGTERM
        return self.requested is not None

    def answer(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal."""
        os.kill(os.getpid(), signal.SIGTERM)


def meant_by(came: signal.Signals) -> KeyboardInterrupt | Preempted:
    """What a signal raises."""
    return KeyboardInterrupt() if came == signal.SIGINT else Preempted(came.name)


class ProcessSignals(Preemption):
    """Within this context, that of the whole command line, nothing hides what a signal raises.

    Libraries turn exceptions in what they import into others, or go on without it: a process that is importing ends at
    once, as nothing is half-made then. So it does where Python cannot raise an exception (in a destructor, say), and at
    the second Ctrl-C, which a thread hears even while the main thread compiles.
    """

    def __enter__(self) -> "ProcessSignals":
        super().__enter__()
        sys.unraisablehook = unraisable
        heard, told = os.pipe()
        os.set_blocking(told, False)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        threading.Thread(target=leave_at_the_second, args=(heard,), daemon=True).start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for number in self.previous:  # all is done; what is left takes no time
            signal.signal(number, signal.SIG_IGN)

    def answer(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal."""
        inner = frame
        while inner is not None and not inner.f_code.co_filename.startswith("<frozen importlib"):
            inner = inner.f_back
        if inner is not None:
            leave(farewell(meant_by(signal.Signals(number))))
        super().answer(number, frame)


def leave_at_the_second(heard: int) -> None:
    """Reads the numbers of the signals that come, and ends the process at the second Ctrl-C."""
    interrupts = 0
    while interrupts < 2:
        interrupts += os.read(heard, 1)[0] == signal.SIGINT
    os.write(2, b"jaxformer: interrupted\n")
    os._exit(INTERRUPTED)


def unraisable(ignored: Any) -> None:
    """Takes what Python cannot raise, as of a destructor.

    TensorStore's threads may report that a file is written when Orbax waits no more, since another one could not be:
    that is raised where the checkpoint is saved, and nothing of it is shown here.
    """
    if isinstance(ignored.exc_value, (KeyboardInterrupt, Preempted)):
        leave(farewell(ignored.exc_value))
    if str(ignored.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(ignored)


def farewell(stop: KeyboardInterrupt | Preempted) -> int:
    """Says in a line what ends the process; returns its exit code."""
    interrupted = isinstance(stop, KeyboardInterrupt)
    with suppress(OSError, RuntimeError):
        sys.stderr.write(f"jaxformer: {'interrupted' if interrupted else stop}\n")
    return INTERRUPTED if interrupted else EXIT_CODE


def leave(code: int) -> NoReturn:
    """Ends the process without a look back: to tear XLA down while it compiles in the background can crash."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, RuntimeError):
            stream.flush()
    os._exit(code)
