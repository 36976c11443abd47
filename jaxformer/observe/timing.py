"""Where the time of a run goes: seconds by phase, and traces of a few train steps for XProf and TensorBoard."""

import logging
import re
import statistics
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax

from jaxformer.errors import UserError
from jaxformer.files import remove
from jaxformer.observe import text

Item = TypeVar("Item")
SLOW = 10  # times the median
SLOW_SECONDS = 1.0  # less is not worth a line
PARTS = ("data", "dispatch", "the device")  # what a step waits for
FEW, LATEST = 5, 50  # the median is that of so many steps, at least and at most
logger = logging.getLogger("jaxformer")


class Clock:
    """Adds up seconds by phase; phases may nest, and a second counts for the innermost one alone.

    Attributes:
      began: when it was made, in seconds since 1970.
      seconds: seconds in each phase so far.
      counts: how often each phase was entered and left.
      latest: seconds of the last time that each phase was there, phases inside of it included.
      current: the innermost phase now, "other" outside of phases, and since when, by the monotonic clock. The watchdog
        looks at it from its own thread.
      pace: what train steps take.
    """

    def __init__(self) -> None:
        self.start, self.began = time.monotonic(), time.time()
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()
        self.latest: dict[str, float] = {}
        self.inner: list[float] = []
        self.current = ("other", self.start)
        self.pace = Pace()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times the body of a `with`."""
        start, (outer, _) = time.monotonic(), self.current
        self.current = (name, start)
        self.inner.append(0.0)
        try:
            yield
        finally:
            self.current = (outer, now := time.monotonic())
            taken = self.latest[name] = now - start
            self.seconds[name] += taken - self.inner.pop()
            self.counts[name] += 1
            if self.inner:
                self.inner[-1] += taken

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yields items; what they are waited for counts for a phase."""
        iterator = iter(items)
        while True:
            with self.phase(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def renew(self) -> bool:
        """Says that the phase of now goes on: its time begins anew for the watchdog. Returns False: nothing ends."""
        self.current = (self.current[0], time.monotonic())
        return False

    def summary(self) -> dict[str, float]:
        """Seconds by phase, "other" for the time outside of phases, and "total"."""
        total = time.monotonic() - self.start
        known = {name: round(seconds, 3) for name, seconds in self.seconds.items()}
        return {**known, "other": round(max(0.0, total - sum(known.values())), 3), "total": round(total, 3)}


class Pace:
    """What the latest train steps took, and a line about one that took SLOW times as long.

    Attributes:
      median: seconds of a step; None while there were few.
    """

    def __init__(self) -> None:
        self.latest: deque[tuple[float, float, float]] = deque(maxlen=LATEST)
        self.median: float | None = None
        self.shapes: set[tuple[tuple[int, ...], ...]] = set()

    def compiles(self, batch: Mapping[str, Any]) -> bool:
        """Whether the next train step is compiled first: its batch has arrays of shapes that none had before."""
        shapes = tuple(array.shape for array in batch.values())
        new = shapes not in self.shapes
        self.shapes.add(shapes)
        return new

    def took(self, step: int, data: float, dispatch: float, device: float) -> None:
        """Notes a train step that compiled nothing.

        Args:
          step: the step.
          data: seconds that its batch was waited for.
          dispatch: seconds until it was handed to the devices.
          device: seconds that the devices were waited for.
        """
        whole = data + dispatch + device
        if self.median is not None and whole > max(SLOW * self.median, SLOW_SECONDS):
            parts = zip((data, dispatch, device), PARTS)
            waited = ", ".join(f"{text.duration(value)} for {name}" for value, name in parts)
            usual = f"{whole / self.median:.0f} times the median of {text.duration(self.median)}"
            logger.warning("step %s took %s, %s: %s", f"{step:,}", text.duration(whole), usual, waited)
        self.latest.append((data, dispatch, device))
        if len(self.latest) >= FEW:
            self.median = statistics.median(map(sum, self.latest))

    def medians(self) -> dict[str, float] | None:
        """Medians of what the latest steps waited for, by name; None while there were few. Any thread may ask."""
        latest = self.latest.copy()
        return dict(zip(PARTS, map(statistics.median, zip(*latest)))) if len(latest) >= FEW else None


def parse_steps(steps: str) -> tuple[int, int]:
    """The first and the last step of "FIRST:LAST", both traced.

    Raises:
      UserError: it is not such a range.
    """
    match = re.fullmatch(r"\s*([0-9_]{1,18})\s*:\s*([0-9_]{1,18})\s*", steps)
    if not match:
        raise UserError(f'profile="{steps}": expected "FIRST:LAST", two steps, as in "10:15"')
    first, last = map(int, match.groups())
    if not 1 <= first <= last:
        raise UserError(f'profile="{steps}": expected 1 <= FIRST <= LAST, as in "10:15"; steps count from 1')
    return first, last


class Profile(AbstractContextManager["Profile"]):
    """Traces the steps FIRST to LAST into RUN/profile; view it with `xprof RUN/profile` or TensorBoard.

    There the trace is "steps-FIRST-LAST", and each process of the training a host, "process-0000". A run that resumes
    within the range traces the rest of it. Leaving the `with` ends a trace that is still open.

    Args:
      steps: "FIRST:LAST", or None to trace nothing.
      run_dir: the run's folder.

    Raises:
      UserError: `steps` is not such a range.
    """

    def __init__(self, steps: str | None, run_dir: Path):
        self.first, self.last = (1, 0) if steps is None else parse_steps(steps)
        self.folder = Path(run_dir) / "profile"
        self.tracing, self.traced = False, 0  # the first step that was traced
        self._annotation = ExitStack()

    def before(self, step: int) -> None:
        """Is called before a step; starts the trace when it is due."""
        if not self.first <= step <= self.last:
            return
        if not self.tracing:
            jax.profiler.start_trace(str(self._own))
            self.tracing, self.traced = True, step
        self._annotation.enter_context(jax.profiler.StepTraceAnnotation("train", step_num=step))

    def after(self, step: int, outputs: Any = None) -> None:
        """Is called after a step; ends the trace after the last one.

        Args:
          step: the step.
          outputs: arrays of the step; the last step's are waited for, so that the trace holds all of it.
        """
        self._annotation.close()
        if self.tracing and step >= self.last:
            jax.block_until_ready(outputs)
            self._stop()

    def _stop(self) -> None:
        self.tracing = False
        try:
            jax.profiler.stop_trace()
            self._put_beside_others()
        except (OSError, jax.errors.JaxRuntimeError) as error:
            logger.warning("%s: the profile cannot be written there: %s", self.folder, error)
            return
        logger.info("profile written to %s (view it with `xprof %s`)", self.folder, self.folder)

    @property
    def _own(self) -> Path:
        """Where JAX writes: processes of one machine would write the same files, named by machine and second."""
        return self.folder / f".process-{jax.process_index():04}"

    def _put_beside_others(self) -> None:
        """Renames what JAX wrote to the names by which XProf knows the machines of one trace."""
        together = self.folder / "plugins" / "profile" / f"steps-{self.traced}-{self.last}"
        together.mkdir(parents=True, exist_ok=True)
        for kind in ("xplane.pb", "trace.json.gz"):
            for file in self._own.rglob(f"*.{kind}"):
                file.replace(together / f"{self._own.name[1:]}.{kind}")
        remove(self._own)

    def __exit__(self, *exception: Any) -> None:
        self._annotation.close()
        if self.tracing:
            self._stop()
        if self.last and not self.traced:
            steps = f'profile="{self.first}:{self.last}"'
            logger.warning("%s: none of these steps was taken, so there is no trace", steps)
