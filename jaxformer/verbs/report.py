"""Reports of runs."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxformer.verbs.options import Verb, argument, flag


@dataclass(frozen=True, kw_only=True)
class Report(Verb):
    """Write the report.html of a run anew, or compare several runs."""

    runs: tuple[Path, ...] = argument("RUN")
    """The folders of runs."""
    output: Path | None = flag(None)
    """The file of the comparison (default: comparison.html)."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if len(self.runs) == 1 and self.output is not None:
            yield "output: is for comparisons of several runs; a run's report is RUN/report.html"

    def __call__(self) -> int:
        from jaxformer.observe.comparison import compare_runs
        from jaxformer.observe.report import write_report

        if len(self.runs) > 1:
            written = self.output or Path("comparison.html")
            sys.stdout.write(f"{compare_runs(self.runs, written)}\n")
        else:
            written = write_report(self.runs[0])
        sys.stdout.write(f"{written}\n")
        return 0
