"""A run's folder: what is in it, and whose it is."""

import fcntl
import logging
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from jaxformer.config.sections import ExperimentConfig, resolve, to_dict
from jaxformer.config.upgrades import upgraded
from jaxformer.errors import ConfigError, UserError
from jaxformer.files import read_json, write_json
from jaxformer.observe.writers import METRICS

logger = logging.getLogger("jaxformer")

# What may differ when a run goes on: none of it changes what is computed beyond rounding.
MAY_CHANGE = (
    "parallel",
    "checkpoint",
    "data.data_dir",
    "data.cache",
    "data.read_threads",
    "data.prefetch",
    "data.eval_batch_size",
    "task.distillation.run",
    "task.distillation.checkpoint",
    "train.log_every",
    "train.stop_after_skipped",
)
VERSIONS = (
    "jaxformer",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
)


@dataclass(frozen=True)
class Run:
    """The paths in a run's folder."""

    folder: Path

    @property
    def config(self) -> Path:
        """The resolved config, the command, versions and git revision (JSON)."""
        return self.folder / "config.json"

    @property
    def data(self) -> Path:
        """What is known of the dataset without it: sizes of arrays, names of classes (JSON)."""
        return self.folder / "data.json"

    @property
    def checkpoints(self) -> Path:
        """A folder a saved step."""
        return self.folder / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer of a model of text (JSON, as Hugging Face's libraries read it)."""
        return self.folder / "tokenizer.json"

    @property
    def metrics(self) -> Path:
        """What was measured, step by step (JSON lines)."""
        return self.folder / METRICS

    @property
    def result(self) -> Path:
        """Status, final and best metrics, seconds (JSON)."""
        return self.folder / "result.json"

    @property
    def evaluation(self) -> Path:
        """The last evaluation's metrics and tables (JSON)."""
        return self.folder / "evaluation.json"

    @property
    def holds_something(self) -> bool:
        """Whether anything was measured or saved; else the run failed before that, and nothing is lost with it."""
        measured = self.metrics.exists() and self.metrics.stat().st_size > 0
        saved = self.checkpoints.exists() and any(self.checkpoints.iterdir())
        return measured or saved or self.result.exists()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps other trainings out of a run's folder for as long as the context lasts.

    Raises:
      UserError: another training is in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except OSError as error:
        raise UserError(
            f"--run {folder}: cannot write there ({error.strerror}); choose another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"--run {folder}: another training is running in this folder",
                "wait until it ends, or give this one its own folder with --run",
            ) from error
        yield


def open_for_training(folder: Path, experiment: ExperimentConfig) -> Run:
    """Makes a run's folder, or enters one that holds the same experiment, or one in which nothing was saved yet.

    Raises:
      UserError: the folder holds another experiment, or cannot be written.
    """
    run = Run(folder)
    described = to_dict(experiment)
    before = read_json(run.config, needs=("config",))
    if before is None and (run.result.exists() or run.checkpoints.exists()):
        raise UserError(
            f"--run {folder}: holds checkpoints or a result, and no config.json that says whose they are",
            "restore that file, or give this one its own folder with --run",
        )
    if before is not None and run.holds_something:
        changes = list(differences(upgraded(before["config"]), described))
        refused = [line for path, line in changes if not path.startswith(MAY_CHANGE)]
        if refused:
            raise UserError(
                f"--run {folder} holds another experiment: {'; '.join(refused[:5])}"
                + " ..." * (len(refused) > 5),
                "give this one its own folder with --run, or delete that one",
            )
    try:
        write_json(run.config, {"config": described, **environment()})
    except OSError as error:
        raise UserError(
            f"--run {folder}: cannot write there ({error.strerror}); choose another folder"
        ) from error
    return run


def read_experiment(folder: Path) -> tuple[Run, ExperimentConfig]:
    """The experiment that a run's folder holds.

    Raises:
      UserError: the folder is not a run's, or its config is of another version.
    """
    run = Run(folder)
    about = read_json(run.config, needs=("config",))
    if about is None:
        raise UserError(
            f"{folder}: not a run's folder (no config.json in it); runs are made by `jaxformer train`"
        )
    try:
        return run, resolve(upgraded(about["config"]))
    except ConfigError as error:
        raise UserError(
            f"{run.config}: is not a config of this version of jaxformer; read it with the one that wrote it "
            f"(git revision {about.get('git_revision') or 'unknown'})",
            *error.lines,
        ) from error


def finished(run: Run) -> dict[str, Any] | None:
    """The result of a run that is over; None if it is to go on."""
    result = read_json(run.result, needs=("status", "step"))
    return result if result and result["status"] in ("completed", "stopped early") else None


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields (path, "path: old -> new") for every leaf in which two configs differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, f"{path}: {old!r} -> {new!r}"


def environment(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The command, the versions and the git revision of this process."""
    return {
        "command": shlex.join(["jaxformer", *(sys.argv[1:] if argv is None else argv)]),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS},
        "git_revision": git_revision(),
    }


def version(package: str) -> str | None:
    """An installed package's version."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_revision() -> str | None:
    """The revision of the checkout that this code is in, with "+changes" if it was edited; None outside of one."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        tracked = git("ls-files", "--error-unmatch", __file__)
        return (
            git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
            if tracked
            else None
        )
    except (OSError, subprocess.SubprocessError):
        return None
