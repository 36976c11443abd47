"""Progress of a run: a live line on a terminal, a log line at intervals elsewhere."""

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jaxformer.observe import text
from jaxformer.observe.device import DeviceMemory, device_memory, is_first_process
from jaxformer.observe.logs import make_console

logger = logging.getLogger("jaxformer")

BUDGET = 0.003  # the share of the time that drawing may take
PACE_STEPS = 50  # examples/s are those of the median of so many steps


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
            from rich.live import Live

            self._live = Live(console=console, auto_refresh=False, get_renderable=self._renderable)

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
            logger.info("evaluation at step %s: %s", f"{step:,}", found)

    @contextmanager
    def activity(self, name: str) -> Iterator[None]:
        """Shows the name of what happens meanwhile ("compiling", "evaluating")."""
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
            if telling(name, value)
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

    def _renderable(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(width=12)
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        bar = ProgressBar(total=self.total_steps, completed=self.step, width=12)
        grid.add_row(bar, Text(text.printable(self.line().removeprefix("step "))))
        return grid

    def _draw(self) -> None:
        if self._live is not None and self._live.is_started:
            start = time.monotonic()
            self._live.refresh()
            end = time.monotonic()
            self._next = end + max(0.1, (end - start) / BUDGET)

    def __enter__(self) -> "Progress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._live is not None:
            self._next = 0.0
            self._draw()
            self._live.stop()


def telling(name: str, value: float) -> bool:
    """Whether a metric is worth showing in the line, which has the pace already."""
    return not name.endswith(("_norm", "examples_per_second")) and not ("skipped" in name and value == 0)
