"""Budgets of hours and FLOPs: whether one more trial can be trained to its end."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxformer.analysis.flops import training_flops
from jaxformer.config import sections
from jaxformer.errors import ConfigError, counted
from jaxformer.experiment import Experiment
from jaxformer.sweeps.checks import SECTIONS, shape_of
from jaxformer.sweeps.halving import Results, Rules
from jaxformer.sweeps.spaces import Sweep


def why_no_more(sweep: Sweep, rules: Rules, results: Results, flops: Sequence[float]) -> str | None:
    """Why a sweep has no more trials than it has; None if one more can be trained. There is always a first one.

    Args:
      sweep: the sweep.
      rules: its rules, with the trials that it has.
      results: what is there, each with its "seconds".
      flops: what each trial takes, with one seed, and at the end the one in question.
    """
    if not rules.trials:
        return None
    trainings = replace(rules, trials=rules.trials + 1, is_open=False).left({})
    more = counted(rules.trials + 1, "trial")
    if sweep.hours is not None and (trained := trained_so_far(rules, results)):
        hours = sum(result.get("seconds", 0.0) for result in results.values()) / trained * trainings / 3600
        if hours > sweep.hours:
            return f"{more} would take {hours:.3g} hours, and hours={sweep.hours:g}"
    if sweep.flops is not None:
        needed = sum(flops) / len(flops) * trainings
        if needed > sweep.flops:
            return f"{more} would take {needed:.3g} FLOPs, and flops={sweep.flops:g}"
    return None


def trained_so_far(rules: Rules, results: Results) -> float:
    """How much was trained, in whole trainings."""
    shares, trained = rules.shares, 0.0
    for task in results:
        if task.trial < rules.trials:
            trained += shares[task.rung]
            trained -= shares[task.rung - 1] if task.rung > rules.first(task.trial) else 0.0
    return trained


class Costs:
    """The FLOPs of trainings; those that differ in fractions alone cost the same, and are counted once."""

    def __init__(self) -> None:
        self.known: dict[str, float] = {}

    def flops(self, config: Mapping[str, Any]) -> float:
        """FLOPs of a whole training: forward and backward passes by the analysis of the model, without evaluations.

        Args:
          config: nested dicts. One that is impossible costs nothing: its trial will fail, and say why.
        """
        try:
            resolved = sections.resolve(config)
            key = shape_of({name: getattr(resolved, name) for name in SECTIONS})
            if key not in self.known:
                experiment = Experiment(resolved)
                steps, rows = experiment.total_steps, experiment.train_data.batch_size
                self.known[key] = float(training_flops(experiment.forward_flops) * rows * steps)
        except ConfigError:
            return 0.0
        return self.known[key]
