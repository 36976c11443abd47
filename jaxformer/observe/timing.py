"""Where the time of a run goes: seconds by phase, and traces of a few train steps for XProf and TensorBoard."""

import logging
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax

from jaxformer.errors import UserError

logger = logging.getLogger("jaxformer")


class Clock:
    """Adds up seconds by phase; phases may nest, and a second counts for the innermost one alone.

    Attributes:
      seconds: seconds in each phase so far.
      counts: how often each phase was entered and left.
    """

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()
        self.inner: list[float] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times the body of a `with`."""
        start = time.monotonic()
        self.inner.append(0.0)
        try:
            yield
        finally:
            taken = time.monotonic() - start
            self.seconds[name] += taken - self.inner.pop()
            self.counts[name] += 1
            if self.inner:
                self.inner[-1] += taken

    def summary(self) -> dict[str, float]:
        """Seconds by phase, "other" for the time outside of phases, and "total"."""
        total = time.monotonic() - self.start
        known = {name: round(seconds, 3) for name, seconds in self.seconds.items()}
        return {**known, "other": round(max(0.0, total - sum(known.values())), 3), "total": round(total, 3)}


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

    A run that resumes within the range traces the rest of it. Leaving the `with` ends a trace that is still open.

    Args:
      steps: "FIRST:LAST", or None to trace nothing.
      run_dir: the run's folder.

    Raises:
      UserError: `steps` is not such a range.
    """

    def __init__(self, steps: str | None, run_dir: Path):
        self.first, self.last = (1, 0) if steps is None else parse_steps(steps)
        self.folder = Path(run_dir) / "profile"
        self.tracing = self.traced = False
        self._annotation = ExitStack()

    def before(self, step: int) -> None:
        """Is called before a step; starts the trace when it is due."""
        if not self.first <= step <= self.last:
            return
        if not self.tracing:
            jax.profiler.start_trace(str(self.folder))
            self.tracing = self.traced = True
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
        except (OSError, jax.errors.JaxRuntimeError) as error:
            logger.warning("%s: the profile cannot be written there: %s", self.folder, error)
            return
        logger.info("profile written to %s (view it with `xprof %s`)", self.folder, self.folder)

    def __exit__(self, *exception: Any) -> None:
        self._annotation.close()
        if self.tracing:
            self._stop()
        if self.last and not self.traced:
            steps = f'profile="{self.first}:{self.last}"'
            logger.warning("%s: none of these steps was taken, so there is no trace", steps)
