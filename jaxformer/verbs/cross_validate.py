"""Cross-validation: a config is trained once for each part of its training split, which is held out."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from jaxformer.config.fields import at_most, between
from jaxformer.verbs.common import print_json, working
from jaxformer.verbs.options import Verb, flag
from jaxformer.verbs.sweep import trained, without_accelerators

FOLDS = "2 to 100 folds; of one fold nothing would be left to train on"


@dataclass(frozen=True, kw_only=True)
class CrossValidate(Verb):
    """Train a config once for each of several parts of its training split, and evaluate on the part that is held out;
    go on where it stopped."""

    config: str = flag(metavar="FILE[:ARG]")
    """A config file, or a shipped config's name."""
    folds: Annotated[int, between(2, 100, FOLDS)] = 5
    """How many parts; each has the same share of every class."""
    workdir: Path | None = flag(None, "DIR")
    """The folder of the trainings, a sweep (default: sweeps/CONFIG_NAME-folds)."""
    workers: Annotated[int, at_most(1024)] = 1
    """How many folds are trained at a time on this machine."""
    overrides: Mapping[str, Any] | None = None
    """Leaves of the config and their values, the same in all trainings."""

    def __call__(self) -> int:
        """Prints the mean and the standard deviation over the folds as a line of JSON; 0 when all are trained."""
        from jaxformer.config import files
        from jaxformer.data.folds import FOLD
        from jaxformer.sweeps.spaces import Sweep, choice
        from jaxformer.verbs.report import sweep_page
        from jaxformer.verbs.train import run_name

        overrides = {**(self.overrides or {}), "eval.split": FOLD, "data.fold": f"1/{self.folds}"}
        config = files.read(self.config, overrides)
        sweep = Sweep(
            {"data.fold": choice([f"{number}/{self.folds}" for number in range(1, self.folds + 1)])}
        )
        folder = self.workdir or Path("sweeps") / f"{run_name(self.config)}-folds"
        with without_accelerators(), working() as console:
            source = {"config": self.config, "overrides": overrides}
            study, code = trained(folder, config, sweep, source, self.workers, console)
            if code:
                return code
            outcome, page = study.finish(), sweep_page(study)
        values = {trial["values"]["data.fold"]: trial["value"] for trial in outcome["trials"]}
        known = [value for value in values.values() if value is not None]
        print_json(
            {
                "metric": outcome["metric"],
                "mean": statistics.fmean(known) if known else None,
                "deviation": statistics.stdev(known) if len(known) > 1 else None,
                "folds": dict(sorted(values.items(), key=lambda item: int(item[0].partition("/")[0]))),
                "report": str(page),
            }
        )
        return 0 if len(known) == self.folds else 1
