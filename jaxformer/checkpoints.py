"""Checkpoints: saved in the background, verified before they are believed.

A checkpoint is a folder STEP/ that holds its items apart: `params` and `optimizer` (trees of arrays),
`progress` (JSON) and, if an evaluation came with it, `metrics` (JSON). Orbax writes it under a temporary name
and renames it when it is whole. Just before that, on the thread that writes, the size and the crc32 of every
file go into STEP/digests.json: a folder either has all of its files and their digests, or not yet its name.
What it replaces is deleted after that; one that is not good (see `save`) replaces no other. This file decides which
steps are saved, kept, believed and restored; `checkpoint_items.py` knows the files.

No random key is ever saved: keys derive from (seed, step).
"""

import contextlib
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxformer import checkpoint_items as disk
from jaxformer.config.checkpoints import CheckpointConfig
from jaxformer.errors import NoRoom, UserError, data_size
from jaxformer.files import clear_incomplete, delete_at_once, explained, flush, remove, write_json
from jaxformer.reading import load_json, named

logger = logging.getLogger("jaxformer")
warn_once = cache(logger.warning)

Tree = Any

NOT_GOOD = {"good": False}  # in the progress of a checkpoint
NONE, ALL_DAMAGED = -1, -2  # process 0 sends these to the others instead of a step


class Restored(NamedTuple):
    """The content of a checkpoint."""

    items: dict[str, Tree]
    """The trees that were asked for, as arrays laid out as the targets are."""
    progress: dict[str, Any]
    """The JSON values that were given to `save`, and "step"."""


class Checkpoints(contextlib.AbstractContextManager["Checkpoints"]):
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
        self.config, self.monitor, self.mode, self.read_only = config, monitor, mode, read_only
        self._damaged: dict[int, str] = {}  # steps that stay where they are and are not believed
        self._saving: int | None = None  # the step that is being written, until it is known to be committed
        self._size = 0  # of its arrays, in bytes
        self._manager: Any = None  # Orbax's, from the first save on
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        # Is done when the last save is committed and what it replaces is deleted.
        self._kept: Future[None] | None = None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(*([UserError] if kind else ())):  # the first error is the one to tell
            self.close()

    # Saving

    def save(
        self,
        step: int,
        items: Mapping[str, Tree],
        progress: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        good: bool = True,
    ) -> bool:
        """Begins to save a checkpoint; returns when the arrays may be donated, or it is whole (`config.background`).

        It waits for the one before: at most one is being written.

        Args:
          step: train steps taken.
          items: trees of jax.Arrays by name ("params", "optimizer"); None, {} and () in them hold nothing.
          progress: JSON values, small.
          metrics: of an evaluation at this very step. Without the monitored metric, or with NaN for it, the
            checkpoint is never "best" and never costs the best one its place.
          good: whether one could go on from it: its numbers are finite, and its latest update was not skipped.
            One that is not stays only until the next is saved, and never costs a good one its place.

        Returns:
          Whether a save began; False if this step is saved already.

        Raises:
          UserError: this save or the one before it failed; good checkpoints are all still there.
        """
        self.wait()
        if agreed(lambda: step in self.steps()):
            return False
        marked = {**progress, "step": step} | ({} if good else NOT_GOOD)
        arguments = disk.save_arguments(items, marked)
        score, self._saving = self._score(step, metrics or {}), step
        self._size = sum(leaf.nbytes for leaf in jax.tree.leaves(dict(items)))
        with self._failures_explained():
            self._open().save(step, args=arguments, metrics=score, force=True)
        self._kept = self._thread.submit(self._commit, self._manager)
        if not self.config.background:
            self.wait()
        return True

    def _commit(self, manager: Any) -> None:
        """Waits until a save is committed, and deletes what it replaces."""
        manager.wait_until_finished()
        if jax.process_index() == 0:
            flush(self.directory)
            self._delete_old()

    def _delete_old(self) -> None:
        """Deletes the checkpoints that are neither among the latest good ones, nor among the best, nor the last."""
        steps, keep_best = self.steps(), self.config.keep_best if self.monitor else 0
        kept = {*self.good_steps()[-self.config.keep :], *self.by_rank()[:keep_best], *steps[-1:]}
        for step in sorted({*steps} - kept):
            try:
                delete_at_once(self.directory / str(step))
            except OSError as error:
                logger.warning("checkpoint %d cannot be deleted: %s", step, disk.reason(error))

    def _clear_away(self) -> None:
        """Removes what a killed process was saving or deleting."""
        clear_incomplete(self.directory, everything=True)
        for unfinished in self.directory.glob(f"*{disk.TEMPORARY}*"):
            remove(unfinished)

    def rate(self, step: int, metrics: Mapping[str, float], good: bool = True) -> None:
        """Adds to a checkpoint the evaluation of its step, which had not ended when it was saved."""
        self.close()  # the manager would not notice
        score, folder = self._score(step, metrics), self.directory / str(step)
        if jax.process_index() == 0:
            if score is not None:
                write_json(folder / disk.METRICS_FILE, score)  # as Orbax would have written it
            if not good:
                write_json(folder / disk.PROGRESS_FILE, self._progress(step) | NOT_GOOD)
            disk.write_digests(folder)

    def _score(self, step: int, metrics: Mapping[str, float]) -> dict[str, float] | None:
        """The score that ranks a checkpoint; None without a finite value of the monitored metric."""
        value = math.nan if self.monitor is None else float(metrics.get(self.monitor, math.nan))
        return {"value": value, "step": step} if math.isfinite(value) else None

    def check(self) -> None:
        """Raises what `wait` does, if it is known by now; costs nothing, and does not wait."""
        if self._kept is not None and self._kept.done():
            self.wait()

    def wait(self) -> None:
        """Waits until the last save is committed, and the checkpoints that it replaces are deleted.

        Raises:
          UserError: that save failed; good checkpoints are all still there.
        """
        if self._manager is not None:
            with self._failures_explained():
                self._manager.wait_until_finished()
                if self._kept is not None:
                    self._kept.result()
            self._saving = self._kept = None

    def close(self) -> None:
        """Waits as `wait` does, and ends the threads."""
        try:
            self.wait()
        finally:
            if self._manager is not None:
                self._manager.close()
                self._manager = None

    def _open(self) -> Any:
        """The manager, made at the first save. It reads every step's metrics, so damaged ones go first."""
        if self._manager is None:
            if jax.process_index() == 0:
                for step in self.steps():
                    if problem := self._damage(step, ()):
                        self._set_aside(step, problem)
            multihost_utils.sync_global_devices("jaxformer: checkpoints are looked through")
            self._manager = disk.open_manager(self.directory, self._write_digests)
        return self._manager

    def _rank(self, score: disk.Score) -> tuple[float, float]:
        """Sorts the better after the worse; of equals the earlier is the better."""
        return (score["value"] if self.mode == "max" else -score["value"], -score["step"])

    def _damage(self, step: int, items: Iterable[str]) -> str | None:
        """The damage to a checkpoint's JSON and to these items, in a few words."""
        return disk.damage(self.directory / str(step), [*items, disk.PROGRESS, disk.METRICS])

    def _write_digests(self) -> None:
        """Orbax calls this when all files are written and before it renames the folder, on process 0.

        The folder has a temporary name then, or the step's own where Orbax uses none.
        """
        temporary = self.directory.glob(f"{self._saving}{disk.TEMPORARY}*")
        disk.write_digests(next(temporary, self.directory / str(self._saving)))

    @contextlib.contextmanager
    def _failures_explained(self) -> Iterator[None]:
        """Turns a failed save into a UserError of two lines; the manager does not survive it.

        Where another process has died, its error stays what it is: that is no mistake of the user's.
        """
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            cause = error.__cause__ or error  # Orbax makes a TimeoutError of what a barrier raises
            if isinstance(cause, jax.errors.JaxRuntimeError) and jax.process_count() > 1:
                raise cause from None  # another process has died
            failed, self._manager, self._kept = self._saving, None, None
            kind, why = explained(disk.from_system(error), self.directory)
            what = f"{self.directory}: checkpoint {failed} could not be saved: {why}"
            if kind is NoRoom:
                it_takes = f"it takes {data_size(self._size)} and more"
                raise NoRoom(f"{what}; {it_takes}; make room, and train again in the same folder") from error
            good = ", ".join(str(step) for step in self.good_steps() if step != failed) or "none"
            again = "let it be written, and train again in the same folder"
            raise UserError(what, f"good ones there: {good}; {again}") from error

    # Restoring

    def steps(self) -> list[int]:
        """The steps that have a checkpoint on disk, in order; damaged ones are among them until found out."""
        names = [path.name for path in self.directory.glob("*/")]  # none where there is no such folder
        return sorted({int(name) for name in names if name.isdecimal()} - self._damaged.keys())

    def good_steps(self) -> list[int]:
        """The steps whose checkpoints are good, in order."""
        return [step for step in self.steps() if self.is_good(step)]

    def latest_step(self) -> int | None:
        """The latest step that has a checkpoint on disk; `restore` may find that it is damaged."""
        return max(self.steps(), default=None)

    def is_good(self, step: int) -> bool:
        """Whether one could go on from a checkpoint, as `save` was told; False if that cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            return self._progress(step).get("good", True)
        return False

    def _progress(self, step: int) -> dict[str, Any]:
        progress = load_json(self.directory / str(step) / disk.PROGRESS_FILE)
        if not isinstance(progress, dict):
            raise ValueError(f"{disk.PROGRESS_FILE} is no object")
        return progress

    def by_rank(self) -> list[int]:
        """The steps that have a metric, the best first."""
        scores = {}
        for step in self.steps():
            file = self.directory / str(step) / disk.METRICS_FILE
            try:
                scores[step] = self._rank(load_json(file))
            except FileNotFoundError:  # it was saved between evaluations
                continue
            except (OSError, ValueError, KeyError, TypeError) as error:
                warn_once(
                    "%s: is damaged (%s); this checkpoint is not compared with the others", file, str(error)
                )
        return sorted(scores, key=scores.__getitem__, reverse=True)

    def restore(self, targets: Mapping[str, Tree], step: int | None = None) -> Restored | None:
        """Reads the latest whole checkpoint (or `step`'s), and of it the items in `targets` only.

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
        if step is not None or self.read_only:
            return self._restore(self.steps()[::-1] if step is None else [step], targets)
        if jax.process_index() == 0:
            self._clear_away()
        restored = self._restore(self.steps()[::-1], targets)
        if jax.process_index() == 0:
            self._delete_old()
        return restored

    def restore_best(self, targets: Mapping[str, Tree]) -> Restored | None:
        """As `restore`, from the checkpoint with the best metric; None if no checkpoint has one."""
        self.close()
        return self._restore(self.by_rank(), targets)

    def parameters(self) -> tuple[int, dict[str, jax.Array]] | None:
        """The item "params" of the best checkpoint (else the latest), as saved: its step, path -> array; None of none.

        Raises:
          UserError: there are checkpoints and all of them are damaged.
        """
        step = self._first_whole(self.by_rank() or self.steps()[::-1], ["params"])
        if step == ALL_DAMAGED:
            raise UserError(f"{self.directory}: no good checkpoint", "bring one back from a copy")
        return None if step == NONE else (step, disk.read_as_written(self.directory / str(step) / "params"))

    def _restore(self, candidates: Sequence[int], targets: Mapping[str, Tree]) -> Restored | None:
        step = agreed(lambda: self._first_whole(candidates, targets))
        if step == NONE:
            return None
        if step == ALL_DAMAGED:
            problems = "; ".join(f"{step}: {problem}" for step, problem in sorted(self._damaged.items()))
            raise UserError(
                f"{self.directory}: no good checkpoint: {problems}",
                "bring one back from a copy, or move them away to start anew",
            )
        # On a thread, so that what a signal raises does not come up in the middle of a library.
        items = self._thread.submit(disk.read_items, self.directory / str(step), targets).result()
        return Restored(items, self._progress(step))

    def _first_whole(self, candidates: Iterable[int], targets: Iterable[str]) -> int:
        """The first candidate whose files are as they were written; the damaged ones before it are moved aside."""
        problems: dict[int, str] = {}
        for step in candidates:
            problem = self._damage(step, targets)
            if problem is None:
                for damaged, why in problems.items():
                    self._set_aside(damaged, why)
                if problems:
                    logger.warning("going on from checkpoint %d instead", step)
                return step
            problems[step] = problem
        self._damaged.update(problems)
        return ALL_DAMAGED if problems else NONE

    def _set_aside(self, step: int, problem: str) -> None:
        """Takes a damaged step out of the way, so that the same step can be saved again."""
        folder = self.directory / str(step)
        aside = folder.with_name(f"{step}.corrupt")
        if self.read_only:
            self._damaged[step] = problem
            logger.warning("checkpoint %s is damaged and passed over: %s", folder, problem)
            return
        try:
            shutil.rmtree(aside, ignore_errors=True)  # an earlier one of the same step
            folder.rename(aside)
            logger.warning("checkpoint %s is damaged and now named %s: %s", folder, aside.name, problem)
        except OSError as error:
            self._damaged[step], why = problem, disk.reason(error)
            logger.warning("checkpoint %s is damaged (%s) and cannot be moved: %s", folder, problem, why)


def agreed(decide: Callable[[], int]) -> int:
    """The decision of process 0, on every process."""
    if jax.process_count() == 1:
        return decide()
    return int(multihost_utils.broadcast_one_to_all(np.int32(decide() if jax.process_index() == 0 else 0)))


def checkpoint_of(start_from: str | Path, total_steps: int) -> tuple[int, Path]:
    """The step of a checkpoint RUN/checkpoints/STEP, and the folder that it is in.

    Raises:
      UserError: there is none, or it leaves nothing to train.
    """
    folder = named(start_from)
    if not folder.name.isdecimal() or not folder.is_dir():
        raise UserError(f"start_from={str(folder)!r}: no checkpoint; expected a folder RUN/checkpoints/STEP")
    if int(folder.name) >= total_steps:
        raise UserError(f"start_from={str(folder)!r}: train.total is {total_steps} steps, none is left")
    return int(folder.name), folder.parent
