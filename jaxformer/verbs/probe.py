"""Classifiers on what a frozen encoder makes of a dataset."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxformer.config.fields import PositiveFloat, PositiveInt
from jaxformer.verbs.common import print_json, working
from jaxformer.verbs.options import Verb, flag


@dataclass(frozen=True, kw_only=True)
class Probe(Verb):
    """Learn a dataset's classes from the features of a config's model as it begins, with model.pretrained."""

    config: str = flag(metavar="FILE[:ARG]")
    """A config file, or a shipped config's name."""
    head: Literal["logistic", "knn"] = "logistic"
    """What learns: scikit-learn's logistic regression, or the nearest neighbours by cosine."""
    neighbors: PositiveInt = 20
    """How many neighbours vote."""
    penalty: PositiveFloat = 1.0
    """The strength of logistic regression's L2 penalty."""
    overrides: Mapping[str, Any] | None = None
    """Leaves of the config and their values."""

    def __call__(self) -> None:
        """Prints the accuracy as a line of JSON; features are kept in JAXFORMER_CACHE."""
        from jaxformer.config import files

        config = files.read(self.config, self.overrides)
        with working():
            from jaxformer.config.sections import resolve
            from jaxformer.evaluation.features import probe
            from jaxformer.experiment import Experiment

            experiment = Experiment(resolve(config))
            experiment.check()
            print_json(probe(experiment, self.head, self.neighbors, self.penalty))
