"""The best trial of a sweep: which it is, and whether it beats the config that the sweep changed."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from jaxformer.config.fields import at_most, between
from jaxformer.errors import UserError
from jaxformer.verbs.common import print_line, working
from jaxformer.verbs.options import Verb, argument, flag
from jaxformer.verbs.report import sweep_page, training_words

if TYPE_CHECKING:
    from jaxformer.sweeps.study import Study


@dataclass(frozen=True, kw_only=True)
class SweepBest(Verb):
    """Say which trial of a sweep is the best; with --train train it and the config anew, and compare them."""

    folder: Path = argument("DIR")
    """The folder of the sweep."""
    train: bool = False
    """Train the best trial and the sweep's own config with the same new seeds, and compare them; a command that was
    killed goes on. --config.train.total='60 epochs' makes both longer."""
    seeds: Annotated[int, between(1, 1000)] | None = flag(None, "N")
    """How many seeds, none of them the sweep's (default: 5)."""
    workers: Annotated[int, at_most(1024)] = 1
    """How many trainings at a time on this machine."""
    workdir: Path | None = flag(None, "DIR")
    """The folder of the comparison (default: DIR/best)."""
    overrides: Mapping[str, Any] | None = None
    """Leaves of both configs and their values."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        given = [name for name in ("seeds", "workdir") if getattr(self, name) is not None]
        if not self.train and (given or self.overrides):
            yield f"{(given or sorted(self.overrides or ()))[0]}: is for the comparison; give `train`, too"

    def __call__(self) -> int:
        from jaxformer.sweeps.study import Study
        from jaxformer.sweeps.view import best_lines

        study = Study.read(self.folder)
        outcome = study.outcome()
        if outcome["best"] is None:
            others = (
                "try other values"
                if study.is_over
                else f"`jaxformer sweep work {self.folder}` goes on with it"
            )
            raise UserError(f"{self.folder}: {best_lines(study, outcome)[0]}; {others}")
        for line in best_lines(study, outcome):
            print_line(line)
        if words := training_words(study, outcome["best"]):
            print_line(f"train: {shlex.join(words)}")
        return self.compared(study, outcome["best"]) if self.train else 0

    def compared(self, study: "Study", trial: int) -> int:
        """Trains the two, and says what came of it."""
        from jaxformer.sweeps.study import SWEEP, Study
        from jaxformer.sweeps.winner import BEST, compares, comparison, verdict_lines
        from jaxformer.verbs.sweep import trained, without_accelerators

        changes, source = self.overrides or {}, study.about.get("source")
        config, sweep = comparison(study, trial, self.seeds or 5, changes)
        folder = self.workdir or self.folder / BEST
        if (folder / SWEEP).exists() and not compares(Study.read(folder), study, trial):
            remedy = "give this comparison a folder of its own, as `workdir`"
            raise UserError(f"{folder}: compares another trial, which was the best one then; {remedy}")
        source = source and {**source, "overrides": {**source["overrides"], **changes}}
        with without_accelerators(), working() as console:
            both, code = trained(folder, config, sweep, source, self.workers, console)
            if code:
                return code
            both.finish()
            sweep_page(both)
        for line in verdict_lines(both):
            print_line(line)
        if folder == self.folder / BEST:
            print_line(f"report: {sweep_page(study)}")
        return 0
