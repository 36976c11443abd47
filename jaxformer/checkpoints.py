"""Checkpoints: saved in the background, verified before they are believed. The one file that knows Orbax.

A checkpoint is a folder STEP/ that holds its items apart: `params` and `optimizer` (trees of arrays),
`progress` (JSON) and, if an evaluation came with it, `metrics` (JSON). Orbax writes it under a temporary name
and renames it when it is whole. Just before that, on the thread that writes, the size and the crc32 of every
file go into STEP/digests.json: a folder either has all of its files and their digests, or not yet its name.
What it replaces is deleted after that.

No random key is ever saved: keys derive from (seed, step).
"""

import contextlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import checkpoint_managers as policies

from jaxformer.config.durations import Duration
from jaxformer.digests import damage, write_digests
from jaxformer.errors import UserError
from jaxformer.files import write_json
from jaxformer.paths import leaves_by_path

logger = logging.getLogger("jaxformer")

Tree = Any

PROGRESS, METRICS = "progress", "metrics"  # the JSON items; Orbax chose the second name
TEMPORARY = ".orbax-checkpoint-tmp"
NONE, ALL_DAMAGED = -1, -2  # what process 0 tells the others instead of a step
LEAST_PART = 2**20  # bytes of the smallest part that a device writes of an array that others have, too


@dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are saved and how many are kept. One is always saved at the end, and on SIGTERM."""

    every: Duration | None = Duration.parse("1 epoch")
    """How often, in training; None saves by the clock only."""
    every_minutes: float | None = None
    """How often, by the clock, in addition; None saves by progress only."""
    keep: int = 2
    """How many of the latest checkpoints are kept. With 2, one that is damaged can be done without."""
    keep_best: int = 1
    """How many of the best by eval.monitor are kept beside the latest; 0 keeps none for its metric."""

    def problems(self) -> Iterator[str]:
        """Yields a line for every impossible combination."""
        if self.every is not None and self.every.amount <= 0:
            yield f'every="{self.every}": expected more than nothing, as in "1 epoch", or None'
        if self.every_minutes is not None and not self.every_minutes > 0:
            yield f"every_minutes={self.every_minutes}: expected more than 0, or None"
        if self.keep < 1:
            yield f"keep={self.keep}: expected at least 1, or nothing could be resumed; 2 is a good choice"
        if self.keep_best < 0:
            yield f"keep_best={self.keep_best}: expected 0 or more"


class Restored(NamedTuple):
    """What a checkpoint held."""

    items: dict[str, Tree]
    """The trees that were asked for, as arrays laid out as the targets said."""
    progress: dict[str, Any]
    """What was given to `save`, with "step" in it."""


class Checkpoints:
    """The checkpoints of one run. With several processes, all of them make the same calls.

    Args:
      directory: where they are, on a file system that all processes share.
      config: how many are kept. (When to save is the caller's to decide.)
      monitor: the metric that decides which one is best; None keeps the latest only.
      mode: whether more of it is better ("max") or less ("min").
      read_only: for evaluation: nothing in the folder is changed.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        config: CheckpointConfig = CheckpointConfig(),
        monitor: str | None = None,
        mode: Literal["max", "min"] = "max",
        read_only: bool = False,
    ):
        self.directory = Path(directory).absolute()
        self.config = config
        self.monitor = monitor
        self.mode = mode
        self.read_only = read_only
        self._damaged: dict[int, str] = {}  # steps that stay where they are and are not believed
        self._saving: int | None = None  # the step that is being written, until it is known to be committed
        self._manager: ocp.CheckpointManager | None = None
        logging.getLogger("absl").addFilter(_to_debug)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Saving

    def save(
        self,
        step: int,
        items: Mapping[str, Tree],
        progress: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> bool:
        """Begins to save a checkpoint; returns as soon as the arrays may be donated.

        Args:
          step: train steps taken.
          items: trees of jax.Arrays by name ("params", "optimizer"); None, {} and () in them hold nothing.
          progress: JSON values, small.
          metrics: of an evaluation at this very step. Without the monitored metric, or with NaN for it, the
            checkpoint is never "best" and never costs the best one its place.

        Returns:
          Whether a save began; False if this step is saved already.

        Raises:
          UserError: this save or the one before it failed; good checkpoints are all still there.
        """
        self.wait()
        if agreed(lambda: step in self.steps()):
            return False
        arguments: dict[str, Any] = {PROGRESS: ocp.args.JsonSave({**progress, "step": step})}
        for name, tree in items.items():
            if arrays := named_arrays(tree):  # Orbax has no empty trees, and plain SGD keeps no state
                arguments[name] = ocp.args.PyTreeSave(traverse_util.unflatten_dict(arrays, sep="/"))
        self._saving = step
        score = self._score(step, metrics or {})
        with self._failures_explained():
            self._open().save(step, args=ocp.args.Composite(**arguments), metrics=score, force=True)
        return True

    def rate(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds to a checkpoint the evaluation of its step, which had not ended when it was saved."""
        self.close()  # the manager would not notice
        score, folder = self._score(step, metrics), self.directory / str(step)
        if score is not None and jax.process_index() == 0:
            write_json(folder / METRICS / "metrics", score)
            write_digests(folder)

    def _score(self, step: int, metrics: Mapping[str, float]) -> dict[str, float] | None:
        """What ranks a checkpoint, as it is written; None without a finite value of the monitored metric."""
        value = math.nan if self.monitor is None else float(metrics.get(self.monitor, math.nan))
        return {"value": value, "step": step} if math.isfinite(value) else None

    def wait(self) -> None:
        """Waits until the last save is committed, and what it replaces is deleted.

        Raises:
          UserError: that save failed; good checkpoints are all still there.
        """
        if self._manager is not None:
            with self._failures_explained():
                self._manager.wait_until_finished()
            self._saving = None

    def close(self) -> None:
        """Waits as `wait` does, and ends the threads."""
        try:
            self.wait()
        finally:
            if self._manager is not None:
                self._manager.close()
                self._manager = None

    def _open(self) -> ocp.CheckpointManager:
        """The manager, made at the first save. It reads every step's metrics, so damaged ones go first."""
        if self._manager is not None:
            return self._manager
        if jax.process_index() == 0:
            for step in self.steps():
                if problem := damage(self.directory / str(step), [PROGRESS, METRICS]):
                    self._set_aside(step, problem)
        multihost_utils.sync_global_devices("jaxformer: checkpoints are looked through")
        keep: list[policies.PreservationPolicy] = [policies.LatestN(self.config.keep)]
        if self.monitor is not None and self.config.keep_best:
            best = policies.BestN(
                get_metric_fn=self._rank, n=self.config.keep_best, keep_checkpoints_without_metrics=False
            )
            keep.append(best)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(keep),
            best_fn=self._rank,  # makes Orbax write the metrics; what is kept is for the policy to say
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(
                post_finalization_callback=self._write_digests,
                # In the background, a folder that cannot be made leaves threads that wait for it 10 minutes.
                create_directories_asynchronously=False,
            ),
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options, handler_registry=handlers())
        return self._manager

    def _rank(self, score: Mapping[str, float]) -> tuple[float, float]:
        """Sorts the better after the worse; of equals the earlier is the better."""
        return (score["value"] if self.mode == "max" else -score["value"], -score["step"])

    def _write_digests(self) -> None:
        """Orbax calls this when all files are written and before it renames the folder, on process 0."""
        temporary = list(self.directory.glob(f"{self._saving}{TEMPORARY}*"))
        write_digests(temporary[0] if temporary else self.directory / str(self._saving))

    @contextlib.contextmanager
    def _failures_explained(self) -> Iterator[None]:
        """Says what the file system refused in two lines, and drops the manager: it forgot what it kept."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            failed, self._manager = self._saving, None
            good = ", ".join(str(step) for step in self.steps() if step != failed) or "none"
            raise UserError(
                f"{self.directory}: checkpoint {failed} could not be saved: {reason(error)}",
                f"good ones there: {good}; make room or let it be written, and give the same command again",
            ) from error

    # Restoring

    def steps(self) -> list[int]:
        """The steps that have a checkpoint on disk, in order; damaged ones are among them until found out."""
        try:
            names = [entry.name for entry in os.scandir(self.directory) if entry.is_dir()]
        except FileNotFoundError:
            return []
        return sorted(step for name in names if name.isdecimal() and (step := int(name)) not in self._damaged)

    def latest_step(self) -> int | None:
        """The latest step that has a checkpoint on disk; `restore` may find that it is damaged."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """The step whose checkpoint has the best metric; None if none has one."""
        return next(iter(self._by_rank()), None)

    def restore(self, targets: Mapping[str, Tree], step: int | None = None) -> Restored | None:
        """Reads the latest good checkpoint (or `step`'s), and of it the items in `targets` only.

        A step that is damaged is moved aside, to STEP.corrupt, with a warning, and the one before it is read.

        Args:
          targets: a tree for each item to read, of jax.ShapeDtypeStructs with shardings, over any number of
            devices (one device where there is none). `{"params": tree}` reads no byte of the optimizer's.
          step: read this one and no other.

        Returns:
          What was read; None if there is no checkpoint.

        Raises:
          UserError: names, shapes or dtypes differ from the targets', so the config is not the one that was
            saved with; or there are checkpoints and all of them are damaged; or `step` has none.
        """
        self.close()  # the manager would not notice a step that is moved aside
        if step is not None and step not in self.steps():
            there = ", ".join(map(str, self.steps())) or "none"
            raise UserError(f"{self.directory}: there is no checkpoint of step {step}; there are: {there}")
        return self._restore(self.steps()[::-1] if step is None else [step], targets)

    def restore_best(self, targets: Mapping[str, Tree]) -> Restored | None:
        """As `restore`, from the checkpoint with the best metric; None if no checkpoint has one."""
        self.close()
        return self._restore(self._by_rank(), targets)

    def _by_rank(self) -> list[int]:
        """The steps that have a metric, the best first."""
        scores = {}
        for step in self.steps():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                path = self.directory / str(step) / METRICS / "metrics"
                scores[step] = self._rank(json.loads(path.read_text()))
        return sorted(scores, key=scores.__getitem__, reverse=True)

    def _restore(self, candidates: Sequence[int], targets: Mapping[str, Tree]) -> Restored | None:
        step = agreed(lambda: self._first_good(candidates, targets))
        if step == NONE:
            return None
        if step == ALL_DAMAGED:
            raise UserError(
                f"{self.directory}: no good checkpoint: {named_problems(self._damaged)}",
                "bring one back from a copy, or move them away to start anew",
            )
        folder = self.directory / str(step)
        with contextlib.closing(ocp.StandardCheckpointer()) as reader:
            differences: list[str] = []
            for name in sorted(targets, key="params".__ne__):  # the model's before what follows from them
                differences += unlike(written_arrays(reader, folder / name), named_arrays(targets[name]))
            if differences:
                more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
                raise UserError(
                    f"{folder}: {'; '.join(differences[:3])}{more}",
                    "the config has changed since this was saved: go back to that, or use another folder",
                )
            items = {name: read_item(reader, folder / name, tree) for name, tree in targets.items()}
        return Restored(items, json.loads((folder / PROGRESS / "metadata").read_text()))

    def _first_good(self, candidates: Iterable[int], targets: Iterable[str]) -> int:
        """The first candidate whose files are as they were written; the damaged ones before it go aside."""
        problems: dict[int, str] = {}
        for step in candidates:
            problem = damage(self.directory / str(step), [*targets, PROGRESS, METRICS])
            if problem is None:
                for damaged, why in problems.items():
                    self._set_aside(damaged, why)
                if problems:
                    logger.warning("going on from checkpoint %d instead", step)
                return step
            problems[step] = problem
        if not problems:
            return NONE
        self._damaged.update(problems)
        return ALL_DAMAGED

    def _set_aside(self, step: int, problem: str) -> None:
        """Takes a damaged step out of the way, so that the same step can be saved again."""
        folder = self.directory / str(step)
        aside = folder.with_name(f"{step}.corrupt")
        self._damaged[step] = problem
        if self.read_only:
            logger.warning("checkpoint %s is damaged and passed over: %s", folder, problem)
            return
        try:
            shutil.rmtree(aside, ignore_errors=True)  # an earlier one of the same step
            folder.rename(aside)
            del self._damaged[step]
            logger.warning("checkpoint %s is damaged and now named %s: %s", folder, aside.name, problem)
        except OSError as error:
            logger.warning(
                "checkpoint %s is damaged (%s) and cannot be moved: %s", folder, problem, reason(error)
            )


def handlers() -> Any:
    """Orbax's for saving, but that an array of which each device has a copy is written by all of them only if large.

    By its default all of them are cut into a part a device, for which the caller of `save` waits 2 to 5 times as long.
    """
    arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=LEAST_PART)
    types = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    registry.add(None, ocp.args.PyTreeSave, ocp.PyTreeCheckpointHandler(type_handler_registry=types))
    registry.add(None, ocp.args.JsonSave, ocp.JsonCheckpointHandler())
    return registry


def named_arrays(tree: Tree) -> dict[str, Any]:
    """The leaves of a tree by their path, as in "params/encoder/block_0/mlp/up/kernel".

    Raises:
      TypeError: a leaf is a random key.
    """
    named = leaves_by_path(tree)
    for name, leaf in named.items():
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(f"{name}: a random key is never saved; derive it from (seed, step)")
    return named


def laid_out(leaf: Any) -> jax.ShapeDtypeStruct:
    """The target of a restore, on one device if it does not say where."""
    sharding = getattr(leaf, "sharding", None) or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def written_arrays(reader: ocp.StandardCheckpointer, folder: Path) -> dict[str, Any]:
    """Shapes and dtypes of an item's arrays by their path; {} if it is not there, as it had none."""
    if not folder.exists():
        return {}
    return traverse_util.flatten_dict(reader.metadata(folder).item_metadata.tree, sep="/")


def read_item(reader: ocp.StandardCheckpointer, folder: Path, target: Tree) -> Tree:
    """An item's arrays in the structure and the layout of `target`, whose names and shapes they have."""
    wanted = {name: laid_out(leaf) for name, leaf in named_arrays(target).items()}
    nested = traverse_util.unflatten_dict(wanted, sep="/")
    read = traverse_util.flatten_dict(reader.restore(folder, nested) if nested else {}, sep="/")
    return jax.tree.unflatten(jax.tree.structure(target), [read[name] for name in wanted])


def unlike(saved: Mapping[str, Any], target: Mapping[str, Any]) -> Iterator[str]:
    """Yields how saved arrays differ from those the config wants, a phrase for each."""
    for name in sorted(saved.keys() | target.keys()):
        if name not in target:
            yield f"{name} is in the checkpoint, and not in this config's model or optimizer"
        elif name not in saved:
            yield f"{name} is not in the checkpoint, and this config needs it"
        else:
            old, new = saved[name], target[name]
            if old.shape != new.shape:
                yield f"{name} is {list(old.shape)} in the checkpoint, {list(new.shape)} by this config"
            elif np.dtype(old.dtype) != np.dtype(new.dtype):
                yield f"{name} is {old.dtype} in the checkpoint, {np.dtype(new.dtype)} by this config"


def agreed(decide: Callable[[], int]) -> int:
    """What process 0 decides, told to every process."""
    if jax.process_count() == 1:
        return decide()
    return int(multihost_utils.broadcast_one_to_all(np.int32(decide() if jax.process_index() == 0 else 0)))


def named_problems(problems: Mapping[int, str]) -> str:
    """Damaged steps and what is wrong with them, in a line."""
    return "; ".join(f"{step}: {problem}" for step, problem in sorted(problems.items()))


def reason(error: BaseException) -> str:
    """An error in a line: what the operating system said, if it said anything."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    from_system = re.search(r"os_error_code='(\d+)'", text)  # as tensorstore says it, after a list of paths
    return os.strerror(int(from_system[1])) if from_system else text or type(error).__name__


def _to_debug(record: logging.LogRecord) -> bool:
    """Sends Orbax's own lines to our log at level DEBUG: what matters of them is said here in fewer words."""
    if f"{os.sep}orbax{os.sep}" not in record.pathname:
        return True
    logger.debug("orbax: %s", record.getMessage())
    return False
