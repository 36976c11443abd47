"""The wall-clock time of a run, by phase."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


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
