"""What a run's folder holds, read for people: whatever is there, and what is not is None."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxformer.config.upgrades import upgraded
from jaxformer.errors import UserError
from jaxformer.files import read_json
from jaxformer.observe.samples import read_samples
from jaxformer.observe.writers import Curves, read_metrics


@dataclass(frozen=True)
class RunFolder:
    """A run as its folder tells it."""

    folder: Path
    """Where it is."""
    about: dict[str, Any]
    """config.json: the config, the command, versions, the git revision."""
    result: dict[str, Any] | None
    """result.json; None while the run goes on, or if it was killed."""
    evaluation: dict[str, Any] | None
    """evaluation.json; None before the run has ended with one."""
    curves: Curves
    """Metric name -> (steps, values)."""
    samples: list[dict[str, Any]]
    """What samples.json files hold, with their "folder"."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config, as this version names its fields."""
        return upgraded(self.about["config"])

    @property
    def monitor(self) -> str | None:
        """The metric that decides which checkpoint is best."""
        return self.leaves.get("eval.monitor")

    @property
    def leaves(self) -> dict[str, Any]:
        """The config's leaves: "optimizer.learning_rate" -> 0.001."""
        return dict(config_leaves(self.config))

    @property
    def status(self) -> str:
        """ "completed", "stopped early", "preempted" or "failed"; "not finished" if no result was written."""
        return "not finished" if self.result is None else self.result["status"]

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics; without a result, the evaluation's or the curves' latest."""
        if self.result is not None and self.result["final"]:
            return numbers(self.result["final"])
        if self.evaluation is not None:
            return numbers(self.evaluation["metrics"])
        found = {n.removeprefix("eval/"): v for n, (_, v) in self.curves.items() if n.startswith("eval/")}
        return {name: float(values[-1]) for name, values in found.items()}

    @property
    def step(self) -> int | None:
        """The last step that is known of."""
        if self.result is not None:
            return self.result["step"]
        return max((int(steps[-1]) for steps, _ in self.curves.values()), default=None)


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as JSON holds them ("NaN" is a string there), as numbers."""
    return {name: float(value) for name, value in metrics.items()}


def open_run(folder: Path) -> RunFolder:
    """Reads a run's folder.

    Raises:
      UserError: it is not a run's folder, or a file in it is not what it should be.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; runs are made by `jaxformer train`")
    about = read_json(folder / "config.json", needs=("config",))
    if about is None:
        raise UserError(
            f"{folder}: not a run's folder (no config.json in it); runs are made by `jaxformer train`"
        )
    result_keys = ("status", "step", "final", "best", "seconds", "examples_per_second", "mfu", "device")
    return RunFolder(
        folder,
        about,
        read_json(folder / "result.json", needs=result_keys),
        read_json(folder / "evaluation.json", needs=("step", "metrics")),
        read_metrics(folder),
        read_samples(folder),
    )


def config_leaves(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (path, value) of every leaf: "data.transforms[0].padding", 1."""
    if isinstance(config, Mapping) and config:
        for key, value in config.items():
            yield from config_leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(config, (list, tuple)) and config and isinstance(config[0], Mapping):
        for index, value in enumerate(config):
            yield from config_leaves(value, f"{path}[{index}]")
    else:
        yield path, config
