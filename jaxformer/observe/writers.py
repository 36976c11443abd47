"""A run's metrics on disk: metrics.jsonl, which is the record, and TensorBoard files, which are a copy."""

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.files import to_json, write_atomically, writing_to
from jaxformer.observe.device import is_first_process
from jaxformer.reading import OR_DELETE, BrokenFile

logger = logging.getLogger("jaxformer")

METRICS = "metrics.jsonl"
REMEDY = "make room there or choose another folder"
Curves = dict[str, tuple[np.ndarray, np.ndarray]]


class MetricWriter(AbstractContextManager["MetricWriter"]):
    """Appends records to a run's metrics.jsonl and TensorBoard files.

    A record is one line of JSON, {"step": 100, "time": 1767225600.0, "train/loss": 0.31, ...}; "time" is in
    seconds since 1970. Numbers that are not finite are strings, see `files.to_json`.

    A run that was killed may have written records past its last checkpoint; those, and a torn last line, are
    removed when the run is resumed, so that no step is in the file twice.

    Args:
      run_dir: the run's folder.
      start_step: the step that the run starts from; records of later steps are dropped.
      expected: how many records there were when that step was saved; it is said if some are missing.
      enabled: whether anything is written; None: on the first process alone.
      tensorboard: whether to write TensorBoard files, too, on a thread of their own.

    Raises:
      UserError: the file cannot be written (`write` raises it, too).
    """

    def __init__(
        self,
        run_dir: Path,
        start_step: int = 0,
        expected: int = 0,
        *,
        enabled: bool | None = None,
        tensorboard: bool = True,
    ):
        self.path = Path(run_dir) / METRICS
        self.enabled = is_first_process() if enabled is None else enabled
        self._board: TensorBoard | None = None
        self.count = 0
        if self.enabled:
            with writing_to(self.path, REMEDY):
                self.count = drop_records_after(self.path, start_step)
                if self.count < expected:
                    missing = f"{expected - self.count} of the {expected} records until step {start_step}"
                    logger.warning("%s: %s are missing, and from the curves, too", self.path, missing)
                self._file = self.path.open("a", encoding="utf-8")
            if tensorboard:
                self._board = TensorBoard(Path(run_dir) / "tensorboard", start_step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends a record, and hands it to the operating system, so that a kill loses nothing.

        Args:
          step: train steps done.
          values: metric name ("train/loss", "eval/accuracy") -> number.
        """
        if not self.enabled:
            return
        now = time.time()
        numbers = {name: float(value) for name, value in values.items()}
        record = {"step": int(step), "time": round(now, 3)} | to_json(numbers)
        with writing_to(self.path, REMEDY):
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()
        self.count += 1
        if self._board is not None:
            self._board.submit(self._board.write, int(step), numbers, now)

    def flush(self) -> int:
        """Has the records on the disk, which outlasts a power cut; returns how many there are."""
        if self.enabled:
            with writing_to(self.path, REMEDY):
                os.fsync(self._file.fileno())
        if self._board is not None:
            self._board.submit(self._board.flush)
        return self.count

    def close(self) -> None:
        """Writes the pending records, and closes the files."""
        if self._board is not None:
            self._board.submit(self._board.close)
            self._board.thread.shutdown()
        if self.enabled:
            with writing_to(self.path, REMEDY):
                self._file.close()

    def __exit__(self, *exception: Any) -> None:
        self.close()


@cache
def import_tensorboard() -> None:
    """Imports tensorboardX without PyTorch, which it loads for an annotation alone: seconds, where it is installed."""
    unseen: dict[str, Any] = {} if "torch" in sys.modules else {"torch": None}
    sys.modules.update(unseen)  # an import of it fails, as where it is not installed
    try:
        import tensorboardX  # noqa: F401
    finally:
        for name in unseen:
            del sys.modules[name]


class TensorBoard:
    """TensorBoard's files, written on a thread of their own; if that fails, the run goes on without them."""

    def __init__(self, folder: Path, start_step: int):
        self.folder, self.start_step = folder, start_step
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tensorboard")
        self.writer: Any = None
        self.broken = False

    def submit(self, task: Callable[..., None], *arguments: Any) -> None:
        """Has the thread do something after all that it was given before."""

        def attempt() -> None:
            try:
                if not self.broken:
                    task(*arguments)
            except Exception as error:
                self.broken = True
                logger.warning("%s: no more files there: %s (metrics.jsonl goes on)", self.folder, error)
                with suppress(Exception):
                    self.close()

        self.thread.submit(attempt)

    def write(self, step: int, values: Mapping[str, float], now: float) -> None:
        """Writes the values of a step.

        tensorboardX's SummaryWriter has a thread of its own: if that fails, whoever writes waits for ever.
        """
        import_tensorboard()
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import RecordWriter
        from tensorboardX.summary import scalar

        events = [Event(step=step, wall_time=now, summary=scalar(*value)) for value in values.items()]
        if self.writer is None:
            begun = Event(step=self.start_step + 1, session_log=SessionLog(status=SessionLog.START))
            # TensorBoard hides what an earlier process wrote from there on.
            resumed = [begun] if self.folder.exists() else []
            events = [Event(wall_time=now, file_version="brain.Event:2"), *resumed, *events]
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{int(now)}.{socket.gethostname()}.from-step-{self.start_step}"
            self.writer = RecordWriter(str(self.folder / name))
        for event in events:
            self.writer.write(event.SerializeToString())

    def flush(self) -> None:
        """Hands what is written to the operating system."""
        if self.writer is not None:
            self.writer.flush()

    def close(self) -> None:
        """Ends the files."""
        if self.writer is not None:
            self.writer.close()


def read_metrics(run_dir: Path) -> Curves:
    """A run's metrics by name.

    Returns:
      name -> (steps int64 [N], ascending; values float64 [N]). Where a step is there twice, the later record
      counts. Empty if the run has written none.
    """
    path = Path(run_dir) / METRICS
    found: dict[str, dict[int, float]] = {}
    for _, record in records(path) if path.exists() else ():
        for name, value in record.items():
            if name not in ("step", "time"):
                found.setdefault(name, {})[record["step"]] = float(value)
    curves = {}
    for name, points in found.items():
        steps, values = zip(*sorted(points.items()))
        curves[name] = np.array(steps, np.int64), np.array(values, np.float64)
    return curves


def drop_records_after(path: Path, step: int) -> int:
    """Takes records of later steps, and lines that are not records, out of a metrics file; atomically.

    Returns:
      How many records stay.
    """
    if not path.exists():
        return 0
    kept = [line + "\n" for line, record in records(path) if record["step"] <= step]
    if "".join(kept) != path.read_text(encoding="utf-8", errors="replace"):
        write_atomically(path, "".join(kept))
    return len(kept)


def records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (line, record) for every line of a metrics file that is a record; a torn one is passed over.

    Raises:
      BrokenFile: a record holds something else than numbers.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if not (isinstance(record, dict) and isinstance(record.get("step"), int) and line.endswith("\n")):
                continue
            for name, value in record.items():
                try:
                    np.int64(value) if name == "step" else float(value)
                except (TypeError, ValueError, OverflowError) as error:
                    reason = f"line {number}: {name} is {value!r}, which is no number; {OR_DELETE}"
                    raise BrokenFile(path, reason) from error
            yield line.rstrip("\n"), record
