"""A run's folder: its files, their contents, and the experiment that it belongs to."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from jaxformer.config import schema
from jaxformer.config.fields import address, no_address
from jaxformer.config.upgrades import as_begun, upgraded
from jaxformer.data.base import record
from jaxformer.errors import ConfigError, UserError
from jaxformer.files import clear_incomplete, is_at, locked, made, remove, write_json, writing_to
from jaxformer.launching import ATTEMPTS, LEDGERS
from jaxformer.observe.writers import METRICS, Curves, read_metrics
from jaxformer.reading import IMAGE_EXTENSIONS, as_written, named, read_json

if TYPE_CHECKING:
    from jaxformer.config.sections import ExperimentConfig

# Leaves that may differ when a run is resumed: none of them changes a result beyond rounding.
MAY_CHANGE = (
    *("parallel", "checkpoint", "watchdog", "eval.mode", "train.log_every", "train.stop_after_skipped"),
    *("data.data_dir", "data.cache", "data.read_threads", "data.prefetch", "data.eval_batch_size"),
    *("task.distillation.run", "task.distillation.checkpoint"),
)
PACKAGES = [
    "jaxformer",
    "jax",
    "jaxlib",
    "libtpu",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
]
LOCK, LOGS = ".lock", "logs"
# What is there before anything is saved.
BEGUN = ("config.json", "data.json", "tokenizer.json", METRICS, "tensorboard", LOGS)
OWN = (*BEGUN, "evaluation.json", "report.html")
BESIDE = 5  # plain files of the user's own that may lie in a folder in which a run begins
RESULT: dict[str, type] = {"status": str, "step": int}
RESULT |= dict.fromkeys(("final", "best", "seconds", "examples_per_second", "mfu", "device"), object)
ANOTHER = "choose another folder"
BRING_BACK = "copy it from a backup, or train again in a new folder"


class Inside:
    """A path in the folder of a run."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, run: "Run", owner: type) -> Path:
        return run.folder / self.name


@dataclass(frozen=True)
class Run:
    """A run's folder: the paths in it, and the contents of its files. A file is read when it is first asked for."""

    folder: Path
    held: IO[str] | None = field(default=None, repr=False, compare=False)
    """The lock, while a training holds it."""

    config_file = Inside("config.json")
    """The resolved config, the command, versions and git revision (JSON)."""
    data_file = Inside("data.json")
    """Facts about the dataset that do not need it: sizes of arrays, names of classes (JSON)."""
    checkpoints = Inside("checkpoints")
    """A folder for each saved step."""
    tokenizer_file = Inside("tokenizer.json")
    """The tokenizer of a model of text (JSON, as Hugging Face's libraries read it)."""
    metrics_file = Inside(METRICS)
    """The metrics, step by step (JSON lines)."""
    result_file = Inside("result.json")
    """Status, final and best metrics, seconds (JSON)."""
    attempts_file = Inside(ATTEMPTS)
    """The attempts at the training, and where their time went (JSON lines)."""
    evaluation_file = Inside("evaluation.json")
    """The last evaluation's metrics and tables (JSON)."""
    logs = Inside(LOGS)
    """What each of several processes has logged."""

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """The run in a folder.

        Raises:
          UserError: it is not a run's folder.
        """
        run = cls(named(folder))
        run.about  # noqa: B018 - reads it
        return run

    # The contents of the files

    @cached_property
    def about(self) -> dict[str, Any]:
        """config.json: the config, the command, versions, the git revision."""
        found = read_json(self.config_file, {"config": dict}, BRING_BACK)
        if found is None:
            is_file = "it is a file" if self.folder.is_file() else "there is no such folder"
            lacks = "no config.json in it" if self.folder.is_dir() else is_file
            raise UserError(f"{self.folder}: not a run's folder ({lacks}); training makes one")
        return found

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config, as this version names its fields."""
        with as_written(self.config_file, BRING_BACK):
            return upgraded(self.about["config"])

    @cached_property
    def leaves(self) -> dict[str, Any]:
        """The config's leaves: "optimizer.learning_rate" -> 0.001."""
        return dict(config_leaves(self.config))

    @cached_property
    def result(self) -> dict[str, Any] | None:
        """result.json; None while the run trains, or if it was killed."""
        return read_json(self.result_file, needs=RESULT)

    @cached_property
    def evaluation(self) -> dict[str, Any] | None:
        """evaluation.json; None before the run has ended with one."""
        return read_json(self.evaluation_file, needs={"step": int, "metrics": dict})

    @cached_property
    def curves(self) -> Curves:
        """Metric name -> (steps, values)."""
        with as_written(self.metrics_file):
            return read_metrics(self.folder)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def status(self) -> str:
        """ "completed", "stopped early", "paused", "preempted" or "failed"; "not finished" if no result was written."""
        return "not finished" if self.result is None else self.result["status"]

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics; without a result, the evaluation's or the curves' latest."""
        if self.result is not None and self.result["final"]:
            found = self.result["final"]
        elif self.evaluation is not None:
            found = self.evaluation["metrics"]
        else:
            found = {n[5:]: values[-1] for n, (_, values) in self.curves.items() if n.startswith("eval/")}
        with as_written(self.evaluation_file if self.result is None else self.result_file):
            return {name: float(value) for name, value in found.items()}  # NaN is a string in JSON

    def metrics_at(self, step: int) -> dict[str, float]:
        """What the evaluation at a step gave; nothing if there was none."""
        with as_written(self.metrics_file):
            evaluated = {
                n[5:]: dict(zip(*curve)) for n, curve in self.curves.items() if n.startswith("eval/")
            }
        return {name: float(values[step]) for name, values in evaluated.items() if step in values}

    @property
    def step(self) -> int | None:
        """The last step that was recorded."""
        if self.result is not None:
            return self.result["step"]
        return max((int(steps[-1]) for steps, _ in self.curves.values()), default=None)

    @property
    def holds_something(self) -> bool:
        """Whether anything was measured or saved; else the run failed before that, and nothing is lost with it."""
        measured = self.metrics_file.exists() and self.metrics_file.stat().st_size > 0
        saved = self.checkpoints.exists() and any(self.checkpoints.iterdir())
        return measured or saved or self.result_file.exists()

    def finished(self) -> dict[str, Any] | None:
        """The result of a run that is over; None if there is more to train."""
        result = read_json(self.result_file, needs={"status": str, "step": int})
        return result if result and result["status"] in ("completed", "stopped early") else None

    def read_config(self) -> "ExperimentConfig":
        """The config as dataclasses.

        Raises:
          UserError: the folder is not a run's, or its config is of another version.
        """
        from jaxformer.config.sections import resolve  # takes seconds, and a report does without

        try:
            return resolve(self.config)
        except ConfigError as error:
            lost = [line for line in error.lines if "cannot be imported" in line]  # a class of the user's own
            wrote = f"the one that wrote it (git revision {self.about.get('git_revision') or 'unknown'})"
            version = f"is not a config of this version of jaxformer; read it with {wrote}"
            said = "; ".join(error.lines[:3]) + " ..." * (len(error.lines) > 3)
            first, *others = lost or [version, said]
            raise UserError(f"{self.config_file}: {first}", *others) from error

    # Training in the folder

    @contextmanager
    def lock(self) -> Iterator["Run"]:
        """Makes the folder, and keeps other trainings out of it for as long as the context lasts.

        What killed processes were writing there is cleared away. If the context ends with an error before anything is
        measured or saved, the folder is left as if the training had never begun.

        Yields:
          This run, which knows the lock that it holds.

        Raises:
          UserError: another training is in it, or it cannot be written.
        """
        new = not self.config_file.exists()
        busy = f"{self.folder}: another training is running in this folder"
        with ExitStack() as stack:
            with writing_to(self.folder, ANOTHER):
                stack.enter_context(made(self.folder))
                refusal = UserError(busy, "wait until it ends, or give this run a folder of its own")
                lock = stack.enter_context(locked(self.folder / LOCK, refusal))
            for folder in (self.folder, self.folder / "samples"):
                clear_incomplete(folder, everything=True)
            try:
                yield replace(self, held=lock)
            except BaseException:
                if new and is_at(lock, self.folder / LOCK) and not self.holds_something:
                    for name in BEGUN:
                        remove(self.folder / name)
                raise

    def check_place(self) -> None:
        """Makes sure that the folder is still the one that was locked.

        Raises:
          UserError: it was moved, removed or replaced meanwhile.
        """
        if self.held is not None and not is_at(self.held, self.folder / LOCK):
            moved = f"{self.folder}: was moved, removed or replaced while the run trained in it"
            raise UserError(f"{moved}; bring it back, and the same command goes on")

    def check(self, config: "ExperimentConfig") -> "ExperimentConfig":
        """Refuses a folder that is not for this experiment; nothing is written.

        Returns:
          The config; a run that an earlier version began goes on as that version would have.

        Raises:
          UserError: it holds another experiment, or files that are no run's, or a file of the run's is broken.
        """
        if not no_address(self.folder):
            kept = "is an address, and runs are kept in folders"
            raise UserError(
                f"{address(self.folder)}: {kept}; name a folder, and checkpoint.bucket to have it copied there"
            )
        given = str(self.folder)
        with writing_to(Path(f"{given[:60]} ..." if len(given) > 255 else given), ANOTHER):
            for place in (self.folder, *self.folder.parents):
                if place.is_symlink() and not place.exists():
                    raise UserError(f"{place}: is a link to nowhere ({os.readlink(place)}); {ANOTHER}")
        saved = self.result_file.exists() or self.checkpoints.exists()
        if saved and not self.config_file.exists():
            raise UserError(
                f"{self.folder}: holds checkpoints or a result, and no config.json that names their experiment",
                "restore that file, or give this run a folder of its own",
            )
        if not self.config_file.exists() and (others := self._others()):
            found = f"{self.folder}: is no run's folder, and holds other files, such as {min(others)!r}"
            raise UserError(f"{found}; give this run a folder of its own")
        if self.holds_something and (before := read_json(self.config_file, {"config": dict}, BRING_BACK)):
            begun = upgraded(before["config"])
            config = as_begun(config, begun)
            changed = differences([with_defaults(begun), schema.to_dict(config)])
            lines = (f"{path}: {old!r} -> {new!r}" for path, (old, new) in changed.items())
            if refused := [line for line in lines if not line.startswith(MAY_CHANGE)]:
                more = " ..." * (len(refused) > 5)
                raise UserError(
                    f"{self.folder} holds another experiment: {'; '.join(refused[:5])}{more}",
                    "give this run a folder of its own, or delete that one",
                )
        return config

    def _others(self) -> list[str]:
        """What in the folder a run would overwrite or be mistaken for; logs and notes, a few plain files, are not."""
        found = [path for path in self.folder.glob("[!.]*") if not path.match(LEDGERS)]
        other = [p for p in found if p.is_dir() or p.name in OWN or p.suffix.lower() in IMAGE_EXTENSIONS]
        return [path.name for path in other or (found if len(found) > BESIDE else [])]

    def enter(self, config: "ExperimentConfig") -> "ExperimentConfig":
        """Writes the config into the folder, and returns it as `check` does.

        Raises:
          UserError: as of `check`; or the folder cannot be written.
        """
        config = self.check(config)
        with writing_to(self.folder, ANOTHER):
            write_json(self.config_file, {"config": schema.to_dict(config), **environment()})
        return config

    def keep_data(self, train: Any, evaluation: Any) -> None:
        """Saves facts about the two splits' batches, and the tokenizer, so that the model works without the dataset.

        A tokenizer that the run was begun with stays, and is compared with the one of now.

        Args:
          train: the training split's batches.
          evaluation: the evaluation split's batches.

        Raises:
          UserError: the run was begun with another tokenizer.
        """
        tokenizer, kept = train.tokenizer, self.tokenizer_file.exists() and self.holds_something
        again = "delete it, and the same command writes it anew"
        if tokenizer and kept and type(tokenizer).load(self.tokenizer_file, again).digest != tokenizer.digest:
            raise UserError(
                f"data.tokenizer: makes other tokens than {self.tokenizer_file}, with which the run was begun",
                "restore the data or the file that it is made from, or start a new run in another folder",
            )
        if tokenizer and not kept:
            tokenizer.save(self.tokenizer_file)
        write_json(self.data_file, {"train": record(train), "evaluation": record(evaluation)})


def with_defaults(begun: dict[str, Any]) -> dict[str, Any]:
    """A run's config with the defaults of fields that came later; as it is if this version cannot read it."""
    from jaxformer.config.sections import resolve

    try:
        return schema.to_dict(resolve(begun))
    except ConfigError:
        return begun


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


def differences(configs: Sequence[Any], absent: Any = None) -> dict[str, list[Any]]:
    """The leaves in which configs are not all the same: path -> each config's value, `absent` where it has none."""
    leaves = [dict(config_leaves(config)) for config in configs]
    found = {path: [each.get(path, absent) for each in leaves] for path in dict.fromkeys(chain(*leaves))}
    return {path: values for path, values in found.items() if any(value != values[0] for value in values)}


def environment() -> dict[str, Any]:
    """The command, the versions and the git revision of this process."""
    return {"command": shlex.join(["jaxformer", *sys.argv[1:]]), **loaded_code()}


@cache
def loaded_code() -> dict[str, Any]:
    """Python, the versions of packages, and the git revision: what they were when it was first asked."""
    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {"python": platform.python_version(), "versions": versions, "git_revision": git_revision()}


def git_revision() -> str | None:
    """The revision of the checkout that this code is in, with "+changes" if it was edited.

    Outside of one, what a launcher says of the checkout that it has copied (JAXFORMER_REVISION), or None.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.check_output(command, text=True, timeout=10, stderr=subprocess.DEVNULL).strip()

    try:
        git("ls-files", "--error-unmatch", __file__)
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("JAXFORMER_REVISION")
