"""Reports of what was trained: of a run, of a sweep, and of several runs side by side."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jaxformer.verbs.common import print_line, print_text
from jaxformer.verbs.options import Verb, argument, flag

if TYPE_CHECKING:
    from jaxformer.sweeps.study import Study


def page_of_run(folder: Path) -> Path:
    """Writes the page of a run."""
    from jaxformer.observe.report import write_report

    return write_report(folder)


def training_words(study: "Study", trial: int) -> list[str]:
    """The command that trains a trial again, by itself; no words of a sweep that was begun in Python."""
    from jaxformer.verbs.train import Train

    if (source := study.about.get("source")) is None:
        return []
    changed = {**source["overrides"], **study.values[trial], "seed": study.rules.seeds[0]}
    return ["jaxformer", *Train(config=source["config"], overrides=changed).words()]


def sweep_page(study: "Study") -> Path:
    """Writes the report of a sweep, with the command that trains its best trial."""
    from jaxformer.sweeps.report import write_report

    best = study.outcome()["best"]
    return write_report(study, None if best is None else training_words(study, best))


def page_of_sweep(folder: Path) -> Path:
    """Writes the page of a sweep."""
    from jaxformer.sweeps.study import Study

    return sweep_page(Study.read(folder))


PAGES = {"config.json": page_of_run, "sweep.json": page_of_sweep}
"""The file that tells what kind of folder it is -> what writes its page."""


def write_page(folder: Path) -> Path:
    """Writes the page of a folder, whatever it holds; of one that holds neither it is said what a run lacks."""
    return next((PAGES[name] for name in PAGES if (folder / name).exists()), page_of_run)(folder)


@dataclass(frozen=True, kw_only=True)
class Report(Verb):
    """Write the report.html of a run or of a sweep anew, or compare several runs."""

    runs: tuple[Path, ...] = argument("RUN")
    """The folder of a run or of a sweep; or those of several runs."""
    output: Path | None = flag(None)
    """The file of the comparison (default: comparison.html)."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if len(self.runs) == 1 and self.output is not None:
            yield "output: is for comparisons of several runs; a run's report is RUN/report.html"
        if twice := [run for run, count in Counter(self.runs).items() if count > 1]:
            yield f"{twice[0]}: is there twice; name different runs"

    def __call__(self) -> None:
        from jaxformer.observe.comparison import compare_runs

        if len(self.runs) > 1:
            written = self.output or Path("comparison.html")
            print_text(f"{compare_runs(self.runs, written)}\n")
        else:
            written = write_page(self.runs[0])
        print_line(str(written))
