"""A run's metrics on disk: metrics.jsonl, which is the record, and TensorBoard files, which are a copy."""

import json
import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.errors import UserError
from jaxformer.files import to_json, write_atomically
from jaxformer.observe.device import is_first_process

logger = logging.getLogger("jaxformer")

METRICS = "metrics.jsonl"
Curves = dict[str, tuple[np.ndarray, np.ndarray]]


class MetricWriter:
    """Appends records to a run's metrics.jsonl and TensorBoard files.

    A record is one line of JSON, {"step": 100, "time": 1767225600.0, "train/loss": 0.31, ...}; "time" is in
    seconds since 1970. Numbers that are not finite are strings, see `files.to_json`.

    A run that was killed may have written records past its last checkpoint; those, and a torn last line, are
    taken out when the run goes on, so that no step is in the file twice.

    Args:
      run_dir: the run's folder.
      start_step: the step that the run starts from; records of later steps are dropped.
      enabled: whether anything is written; None: on the first process alone.
      tensorboard: whether to write TensorBoard files, too. It happens on a thread of its own, because
        importing tensorboardX takes seconds where PyTorch is installed.

    Raises:
      UserError: the file cannot be written (`write` raises it, too).
    """

    def __init__(
        self, run_dir: Path, start_step: int = 0, *, enabled: bool | None = None, tensorboard: bool = True
    ):
        self.path = Path(run_dir) / METRICS
        self.enabled = is_first_process() if enabled is None else enabled
        self._thread: ThreadPoolExecutor | None = None
        self._board = _Board(Path(run_dir) / "tensorboard", start_step)
        self._pending: list[Future] = []
        if not self.enabled:
            return
        try:
            drop_records_after(self.path, start_step)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise cannot_write(self.path, error) from error
        if tensorboard:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tensorboard")

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
        try:
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        if self._thread is not None:
            self._pending = [future for future in self._pending if not self._failed(future)]
            self._pending.append(self._thread.submit(self._board.write, int(step), numbers, now))

    def close(self) -> None:
        """Writes out what is pending."""
        if not self.enabled:
            return
        self._file.close()
        if self._thread is not None:
            self._thread.submit(self._board.close)
            self._thread.shutdown()
            for future in self._pending:
                self._failed(future)
            self._pending, self._thread = [], None

    def _failed(self, future: Future) -> bool:
        """Whether a write to TensorBoard is over; the run goes on without TensorBoard if it failed."""
        if future.done() and (error := future.exception()) is not None and not self._board.broken:
            self._board.broken = True
            logger.warning("no more TensorBoard files: %s (metrics.jsonl goes on)", error)
        return future.done()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


class _Board:
    """TensorBoard's files; used from one thread."""

    def __init__(self, folder: Path, start_step: int):
        self.folder, self.start_step = folder, start_step
        self.broken = False
        self.writer: Any = None

    def write(self, step: int, values: Mapping[str, float], now: float) -> None:
        if self.broken:
            return
        if self.writer is None:
            from tensorboardX import SummaryWriter

            again = self.folder.exists()  # TensorBoard hides what an earlier process wrote from this step on
            purge = self.start_step + 1 if again else None
            suffix = f".from-step-{self.start_step}"
            self.writer = SummaryWriter(
                str(self.folder), purge_step=purge, flush_secs=10, filename_suffix=suffix
            )
        for name, value in values.items():
            self.writer.add_scalar(name, value, step, walltime=now)

    def close(self) -> None:
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
    if path.exists():
        for _, record in records(path):
            for name, value in record.items():
                if name not in ("step", "time"):
                    found.setdefault(name, {})[record["step"]] = float(value)
    curves = {}
    for name, points in found.items():
        steps = sorted(points)
        curves[name] = np.array(steps, np.int64), np.array([points[step] for step in steps], np.float64)
    return curves


def drop_records_after(path: Path, step: int) -> None:
    """Takes records of later steps, and lines that are not records, out of a metrics file; atomically."""
    if not path.exists():
        return
    kept = "".join(line + "\n" for line, record in records(path) if record["step"] <= step)
    if kept != path.read_text(encoding="utf-8", errors="replace"):
        write_atomically(path, kept)


def records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (line, record) for every line of a metrics file that is a record; a torn one is passed over."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and isinstance(record.get("step"), int) and line.endswith("\n"):
                yield line.rstrip("\n"), record


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error of a disk that is full or cannot be written."""
    return UserError(
        f"{path}: cannot be written ({error.strerror}); make room there or choose another folder"
    )
