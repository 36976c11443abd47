"""The wall-clock time of a run, by phase."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up seconds by phase; phases may nest, and a second counts for the innermost one alone."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.seconds: dict[str, float] = {}
        self.counts: dict[str, int] = {}
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
            own = taken - self.inner.pop()
            self.seconds[name] = self.seconds.get(name, 0.0) + own
            self.counts[name] = self.counts.get(name, 0) + 1
            if self.inner:
                self.inner[-1] += taken

    def count(self, name: str) -> int:
        """How often a phase was entered."""
        return self.counts.get(name, 0)

    def seconds_of(self, name: str) -> float:
        """Seconds in a phase so far."""
        return self.seconds.get(name, 0.0)

    def summary(self) -> dict[str, float]:
        """Seconds by phase, "other" for what no phase covers, and "total"."""
        total = time.monotonic() - self.start
        known = {name: round(seconds, 3) for name, seconds in self.seconds.items()}
        return {**known, "other": round(max(0.0, total - sum(known.values())), 3), "total": round(total, 3)}
