"""Traces of a few train steps, as in profile="10:15", for XProf and TensorBoard."""

import logging
import re
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError

logger = logging.getLogger("jaxformer")


def parse_steps(steps: str) -> tuple[int, int]:
    """The first and the last step of "FIRST:LAST", both traced.

    Raises:
      UserError: it is not such a range.
    """
    match = re.fullmatch(r"\s*([0-9_]+)\s*:\s*([0-9_]+)\s*", steps)
    if not match:
        raise UserError(f'profile="{steps}": expected "FIRST:LAST", two steps, as in "10:15"')
    first, last = int(match[1]), int(match[2])
    if not 1 <= first <= last:
        raise UserError(f'profile="{steps}": expected 1 <= FIRST <= LAST, as in "10:15"; steps count from 1')
    return first, last


class Profile:
    """Traces the steps FIRST to LAST into RUN/profile; view it with `xprof RUN/profile` or TensorBoard.

    A run that resumes within the range traces the rest of it. Leaving the `with` ends a trace that is still open.

    Args:
      steps: "FIRST:LAST", or None to trace nothing.
      run_dir: the run's folder.

    Raises:
      UserError: `steps` is not such a range.
    """

    def __init__(self, steps: str | None, run_dir: Path):
        self.range = None if steps is None else parse_steps(steps)
        self.folder = Path(run_dir) / "profile"
        self.tracing = False
        self.traced = False
        self._annotation: Any = None

    def before(self, step: int) -> None:
        """Is called before a step; starts the trace when it is due."""
        if self.range is None or not self.range[0] <= step <= self.range[1]:
            return
        import jax

        if not self.tracing:
            jax.profiler.start_trace(str(self.folder))
            self.tracing = self.traced = True
        self._annotation = jax.profiler.StepTraceAnnotation("train", step_num=step)
        self._annotation.__enter__()

    def after(self, step: int, outputs: Any = None) -> None:
        """Is called after a step; ends the trace after the last one.

        Args:
          outputs: arrays of the step; the last step's are waited for, so that the trace holds all of it.
        """
        if not self.tracing:
            return
        self._annotation.__exit__(None, None, None)
        self._annotation = None
        if self.range is not None and step >= self.range[1]:
            import jax

            jax.block_until_ready(outputs)
            self._stop()

    def _stop(self) -> None:
        import jax

        self.tracing = False
        jax.profiler.stop_trace()
        logger.info("profile written to %s (view it with `xprof %s`)", self.folder, self.folder)

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._annotation is not None:
            self._annotation.__exit__(*exception)
            self._annotation = None
        if self.tracing:
            self._stop()
        if self.range is not None and not self.traced:
            logger.warning(
                'profile="%d:%d": none of these steps was taken, so there is no trace', *self.range
            )
