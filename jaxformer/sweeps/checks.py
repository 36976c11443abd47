"""What is checked before a sweep starts: paths, values and combinations, by the schema of configs, all at once."""

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jaxformer.config import files, schema, sections
from jaxformer.errors import ConfigError
from jaxformer.experiment import Experiment
from jaxformer.sweeps.halving import Rules, rung_steps
from jaxformer.sweeps.kept import program_key
from jaxformer.sweeps.points import MOST, points
from jaxformer.sweeps.samplers import FIRST, check_packages
from jaxformer.sweeps.spaces import Choice, Parameters, Sweep

if TYPE_CHECKING:
    from jaxformer.config.sections import ExperimentConfig

SHOWN = 8  # mistakes


@dataclass(frozen=True)
class Checked:
    """What a sweep does, with all that it leaves to the config filled in."""

    objectives: dict[str, str]
    """Metric -> whether more of it is better ("max") or less ("min")."""
    seeds: list[int]
    """The seeds of each trial."""


def config_of(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A config, nested dicts, with values by path."""
    changed = deepcopy(dict(config))
    files.apply_overrides(changed, values)
    return changed


def check(config: Mapping[str, Any], sweep: Sweep) -> Checked:
    """Holds a sweep against its config; nothing is trained.

    Args:
      config: nested dicts.
      sweep: the sweep.

    Raises:
      ConfigError: a line for everything that is wrong with paths, values and combinations of them.
      UserError: the dataset is not prepared.
    """
    if errors := schema.problems(sweep):
        raise refused(errors)
    check_packages(sweep.method)
    base = sections.resolve(config)
    values = points(replace(sweep, sampler="sobol", trials=FIRST) if sweep.is_open else sweep)
    if len(values) > MOST:
        raise ConfigError(f"parameters: more than {MOST:,} combinations; use sampler='sobol' with `trials`")
    lines = dict.fromkeys(wrong_values(config, sweep.parameters))
    trials = {}
    for number, chosen in enumerate(values):
        try:
            trials[number] = sections.resolve(config_of(config, chosen))
        except ConfigError as error:
            lines |= dict.fromkeys(error.lines)
    lines |= dict.fromkeys(population_problems(base, list(trials.values()), sweep))
    if lines:
        raise refused(list(lines))
    objectives = check_experiments([base, *trials.values()], sweep)
    seeds = sweep.seeds if isinstance(sweep.seeds, tuple) else range(base.seed, base.seed + sweep.seeds)
    return Checked(objectives, list(seeds))


def refused(lines: list[str]) -> ConfigError:
    """The error that says what is wrong, the first SHOWN mistakes of it."""
    more = [f"and {len(lines) - SHOWN} more mistakes"] if len(lines) > SHOWN else []
    return ConfigError(*lines[:SHOWN], *more)


def wrong_values(
    config: Mapping[str, Any], parameters: Parameters, above: Mapping[str, Any] = {}
) -> Iterator[str]:
    """Yields a line for each value that its field does not take: all values of choices, and both ends of ranges.

    Args:
      config: nested dicts.
      parameters: the spaces.
      above: the values that these parameters depend on.
    """
    for path, space in parameters.items():
        for value in space.ends():
            chosen = {**above, path: value}
            try:
                sections.resolve(config_of(config, chosen))
            except ConfigError as error:
                yield from (line for line in error.lines if line.startswith(path) and ": expected " in line)
            if isinstance(space, Choice):
                yield from wrong_values(config, space.below(value), chosen)


def population_problems(
    base: "ExperimentConfig", trials: "list[ExperimentConfig]", sweep: Sweep
) -> Iterator[str]:
    """Yields why trials cannot be trained at once, where `Sweep.population` wants that."""
    if sweep.population == 1:
        return
    said = f"population={sweep.population}"
    if base.parallel.mode != "jit":
        yield f"{said}: is for parallel.mode='jit'"
    for axis, size in base.parallel.mesh.items():
        if size not in (1, -1):
            yield f"{said}: each training is on one device; leave parallel.mesh.{axis}={size} out"
    if base.task.distillation is not None:
        yield f"{said}: there is none with a teacher (task.distillation)"
    if sweep.seeds == 1 and len({program_key(config) for config in trials}) == len(trials):
        swept = ", ".join(sweep.parameters)
        alike = "trained at once is what differs in numbers such as rates alone"
        yield f"{said}: each trial is another program ({swept}), and {alike}; leave `population` out"


def check_experiments(configs: "list[ExperimentConfig]", sweep: Sweep) -> dict[str, str]:
    """Builds and checks the experiments that differ in more than fractions and seeds; returns metrics and modes.

    Args:
      configs: the config without changes, then those of all trials.
      sweep: the sweep.
    """
    lines: dict[str, None] = {}
    metrics = sweep.objectives or (configs[0].eval.monitor,)
    modes: dict[str, set[str]] = {metric: set() for metric in metrics}
    data: dict[str, tuple[Any, Any]] = {}
    for config in distinct(configs):
        key = shape_of({"data": config.data, "split": config.eval.split})
        train_data, eval_data = data.get(key, (None, None))
        experiment = Experiment(config, train_data=train_data, eval_data=eval_data)
        try:
            experiment.check()
            problems = [problem for metric in metrics for problem in metric_problems(experiment, metric)]
            problems += rung_problems(experiment, sweep)
            lines |= dict.fromkeys(problems)
            for metric in metrics if not problems else ():
                modes[metric].add(experiment.task.direction(metric))
        except ConfigError as error:
            lines |= dict.fromkeys(error.lines)
        data[key] = (experiment.train_data, experiment.eval_data)
    if lines:
        raise refused(list(lines))
    for metric, found in modes.items():
        if len(found) > 1:
            raise ConfigError(
                f"metric={metric!r}: some trials want more of it, and others less; choose another one"
            )
    return {metric: found.pop() for metric, found in modes.items()}


def distinct(configs: "list[ExperimentConfig]") -> "list[ExperimentConfig]":
    """One of each kind of configs: those that differ in fractions alone, such as learning rates, build the same."""
    found = {
        shape_of({name: getattr(config, name) for name in SECTIONS}): config for config in reversed(configs)
    }
    return list(reversed(found.values()))


SECTIONS = [name for name in schema.config_fields(sections.ExperimentConfig) if name != "seed"]


def shape_of(parts: Mapping[str, Any]) -> str:
    """A key of sections of a config without the fractions in them."""

    def masked(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: masked(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [masked(inner) for inner in value]
        return "a fraction" if isinstance(value, float) else value

    fields = schema.config_fields(sections.ExperimentConfig)
    choices = {name: fields[name].metadata.get("choices") if name in fields else None for name in parts}
    return json.dumps(masked({name: schema.named(part, choices[name]) for name, part in parts.items()}))


def metric_problems(experiment: Experiment, metric: str) -> Iterator[str]:
    """Yields a line if an experiment does not measure a metric."""
    task, names = experiment.task, experiment.task.metric_names
    absent = task.absent_metrics(experiment.bare_model, experiment.eval_data)
    if metric not in names:
        yield f"metric={metric!r}: not a metric of this task; {schema.did_you_mean(metric, names)}"
    elif metric in absent:
        yield f"metric={metric!r}: {absent[metric]}; choose another one"


def rung_problems(experiment: Experiment, sweep: Sweep) -> Iterator[str]:
    """Yields a line if rungs of a training end at the same step."""
    total = experiment.total_steps
    steps = rung_steps(Rules(1, (0,), "max", sweep.halving).shares, total)
    if len(set(steps)) < len(steps):
        ends = ", ".join(map(str, steps))
        rungs = f"of a training of {total} steps the rungs end after steps {ends}"
        yield f"halving: {rungs}; use fewer rungs, or a smaller eta"
