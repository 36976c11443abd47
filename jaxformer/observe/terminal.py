"""A run on the terminal: log lines of the first process, and its progress (a log line at intervals elsewhere)."""

import logging
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from jaxformer.errors import printable
from jaxformer.observe import text
from jaxformer.observe.device import DeviceMemory, device_memory, is_first_process

logger = logging.getLogger("jaxformer")
NOISY = ("absl", "orbax", "etils", "matplotlib", "PIL", "tensorboardX")
BUDGET = 0.003  # the share of the time that drawing may take
LOG_BYTES = 2**22  # of a process's log; as many of before are kept
PACE_STEPS = 50  # examples/s are those of the median of so many steps


def make_console() -> Any:
    """A rich Console on stderr, to share between log lines and the progress bar; stdout is for results."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextmanager
def terminal_logging(console: Any = None) -> Iterator[None]:
    """Shows what "jaxformer" logs on stderr, and only errors of the NOISY libraries; undone on leaving.

    Args:
      console: the rich Console that a progress bar draws on, if there is one, so that lines appear above it.
    """
    import absl.logging  # before its level is set: it makes a logger class of its own

    handler, absl_verbosity, propagate = make_handler(console), absl.logging.get_verbosity(), logger.propagate
    before = {name: logging.getLogger(name).level for name in (*NOISY, logger.name)}
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    absl.logging.set_verbosity(absl.logging.ERROR)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.propagate = propagate
        absl.logging.set_verbosity(absl_verbosity)
        for name, level_before in before.items():
            logging.getLogger(name).setLevel(level_before)


def make_handler(console: Any = None) -> logging.Handler:
    """Time, level and message; in colour on a terminal."""
    console = console or make_console()
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    form = "%(asctime)s %(levelname).1s %(message)s"
    if console.is_terminal:
        from rich.logging import RichHandler

        form = "%(message)s"
        handler = RichHandler(console=console, show_path=False, log_time_format="%H:%M:%S", markup=False)
    handler.setFormatter(logging.Formatter(form, "%H:%M:%S"))
    return handler


class LogFile(RotatingFileHandler):
    """A log that loses lines where the file takes no more, on a full disk, and says nothing of it."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def process_log(file: Path, alone: bool) -> Iterator[None]:
    """Logs to a file as well, which begins anew at LOG_BYTES; an exception that ends the process comes last in it.

    Args:
      file: the file.
      alone: whether it is the only place: elsewhere, nothing but errors is shown then.
    """
    file.parent.mkdir(exist_ok=True)
    handler = LogFile(file, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s"))
    shown = [(each, each.level) for each in logger.handlers if alone]
    for each, _ in shown:
        each.setLevel(logging.ERROR)
    logger.addHandler(handler)
    try:
        yield
    except BaseException as error:
        handler.emit(logger.makeRecord(logger.name, logging.ERROR, "", 0, "%r", (error,), sys.exc_info()))
        raise
    finally:
        logger.removeHandler(handler)
        handler.close()
        for each, level in shown:
            each.setLevel(level)


class Progress:
    """Shows step, epoch, metrics, examples/s, time left and device memory.

    `advance` is called when a step is done and costs a few microseconds; `show` where metrics were read from
    the device. Drawing is rationed to BUDGET of the time, however slow the terminal is.

    Args:
      total_steps: where training ends.
      start_step: where this process starts.
      batch_size: examples a step, over all devices.
      steps_per_epoch: for the epoch that is shown; None shows no epoch.
      console: the rich Console to draw on, stderr if None; where it is no terminal, progress is logged.
      enabled: whether anything is shown; None: on the first process alone.
      log_seconds: the least time between two log lines.
      memory: gives the devices' memory; None where it is not known.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int = 0,
        batch_size: int = 1,
        steps_per_epoch: float | None = None,
        console: Any = None,
        *,
        enabled: bool | None = None,
        log_seconds: float = 10.0,
        memory: Callable[[], DeviceMemory | None] = device_memory,
    ):
        self.total_steps, self.step, self.batch_size = total_steps, start_step, batch_size
        self.steps_per_epoch, self.log_seconds, self.memory = steps_per_epoch, log_seconds, memory
        self.enabled = is_first_process() if enabled is None else enabled
        self.values: dict[str, float] = {}
        self.doing = ""
        self._step_seconds: deque[float] = deque(maxlen=PACE_STEPS)
        self._first: tuple[int, float] | None = None  # step and time that the time left is reckoned from
        self._last = self._next = 0.0  # when the last step was done, and when something is shown again
        self._live: Any = None
        console = console or make_console()
        if self.enabled and console.is_terminal:
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Live
            from rich.table import Column

            line = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1))
            self._live = Live(BarColumn(12), line, console=console, auto_refresh=False, expand=True)
            self._task = self._live.add_task("", total=total_steps)

    def advance(self, step: int) -> None:
        """Notes that `step` steps are done."""
        if not self.enabled:
            return
        now = time.monotonic()
        if self._first is None:
            self._first = step, now
        elif step > self.step:
            self._step_seconds.append((now - self._last) / (step - self.step))
        self.step, self._last = step, now
        if self._live is not None and now >= self._next:
            self._draw()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Notes metrics, and shows them if it is time to.

        Args:
          step: steps done.
          values: name -> number; "train/" is left out of names, and a value stays until it is given anew.
            Norms are not shown (the curves have them), counts of skipped updates only when there are any.
        """
        if not self.enabled:
            return
        self.values |= values
        self.advance(step)
        if self._live is None and (time.monotonic() >= self._next or step >= self.total_steps):
            self._next = time.monotonic() + self.log_seconds
            logger.info("%s", self.line())

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs the metrics of an evaluation, in a line that stays."""
        if self.enabled:
            found = "  ".join(f"{name} {text.number(value)}" for name, value in metrics.items())
            logger.info("evaluation at step %s: %s%s", f"{step:,}", found, text.doubt(metrics))

    @contextmanager
    def activity(self, name: str) -> Iterator[None]:
        """Shows the name of an activity ("compiling", "evaluating") while it lasts."""
        self.doing = name
        self._draw()
        try:
            yield
        finally:
            self.doing = ""
            self._draw()

    def line(self) -> str:
        """All that is known, in a line, the most important first."""
        parts = [f"step {self.step:,}/{self.total_steps:,}"]
        if self.doing:
            parts.append(self.doing)
        if self.steps_per_epoch:
            parts.append(f"epoch {self.step / self.steps_per_epoch:.1f}")
        if (left := self.seconds_left()) is not None:
            parts.append(f"{text.duration(left)} left")
        if (pace := self.examples_per_second()) is not None:
            parts.append(f"{text.number(pace)} examples/s")
        parts += [
            f"{name.removeprefix('train/')} {text.number(value)}"
            for name, value in self.values.items()
            if not name.endswith(("_norm", "examples_per_second")) and ("skipped" not in name or value)
        ]
        if (memory := self.memory()) is not None:
            parts.append(f"memory {text.data_size(memory.used)} of {text.data_size(memory.limit)}")
        return "  ".join(parts)

    def examples_per_second(self) -> float | None:
        """The pace of the median of the last steps, so that evaluations in between do not count."""
        if not self._step_seconds:
            return None
        return self.batch_size / max(statistics.median(self._step_seconds), 1e-9)

    def seconds_left(self) -> float | None:
        """The time left at the pace since the first step, evaluations included; None if not known."""
        if self._first is None or self.step <= self._first[0] or self.step >= self.total_steps:
            return None
        pace = (time.monotonic() - self._first[1]) / (self.step - self._first[0])
        return pace * (self.total_steps - self.step)

    @contextmanager
    def _while_there(self) -> Iterator[None]:
        """Nothing more is drawn once the terminal is gone; what runs goes on."""
        try:
            yield
        except OSError:
            self._live = None

    def _draw(self) -> None:
        if self._live is None:
            return
        with self._while_there():
            start = time.monotonic()
            line = printable(self.line().removeprefix("step "), keep="")
            self._live.update(self._task, completed=self.step, description=line)
            self._live.refresh()
            end = time.monotonic()
            self._next = end + max(0.1, (end - start) / BUDGET)

    def __enter__(self) -> "Progress":
        if self._live is not None:
            with self._while_there():
                self._live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._draw()
        if self._live is not None:
            with self._while_there():
                self._live.stop()
