"""A copy of a run in object storage (`checkpoint.bucket`), for machines whose disks are gone with them.

A thread of process 0 copies the run's folder whenever there is a new checkpoint, and at the end. Of a checkpoint the
digests come last, and are deleted first: one that lacks them there is not whole, and never read. A machine whose folder
holds less than the bucket begins with what is in the bucket. fsspec knows the kinds of storage.
"""

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxformer.errors import UserError
from jaxformer.files import delete_at_once, flush, incomplete
from jaxformer.launching import ATTEMPTS
from jaxformer.launching.attempts import newest_checkpoint
from jaxformer.parallel.places import Unavailable
from jaxformer.runs import Run

if TYPE_CHECKING:
    from jaxformer.config.sections import ExperimentConfig

LOOK = 2.0  # seconds between two looks whether there is a new checkpoint
CHECKPOINTS, DIGESTS = "checkpoints", "digests.json"
WHOLE = re.compile(rf"{CHECKPOINTS}/(\d+)/{DIGESTS}")
logger = logging.getLogger("jaxformer")


@contextmanager
def copied(run: Run, config: "ExperimentConfig") -> Iterator[None]:
    """Within this context a run's folder is copied to `checkpoint.bucket`; what it lacks is fetched from there first.

    A bucket that cannot be reached later is told of, and costs nothing but the copies.

    Raises:
      UserError: the address is none, there is no such bucket, or it holds another experiment.
      Unavailable: the bucket cannot be reached, and there is no checkpoint here to go on from.
    """
    bucket = Bucket(str(config.checkpoint.bucket), run.folder)
    bucket.fetch(config)
    over = threading.Event()
    thread = threading.Thread(target=bucket.watch, args=(over,), name="bucket", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Bucket:
    """A run's folder in object storage.

    Args:
      address: as gs://my-bucket/runs/vit.
      folder: the run's folder on this machine.

    Raises:
      UserError: the address is none, or the package for this kind of storage is not installed.
    """

    def __init__(self, address: str, folder: Path):
        from fsspec import url_to_fs

        self.address, self.folder = address, folder
        try:
            self.system, path = url_to_fs(address, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"checkpoint.bucket={address!r}: {error}", "pip install 'jaxformer[cloud]'"
            ) from error
        self.path = path.rstrip("/")
        self.sent: dict[
            str, tuple[int, int]
        ] = {}  # the size and the time of change of each file that was copied

    # From here to there

    def watch(self, over: threading.Event) -> None:
        """Copies when there is a new checkpoint, and when it is over."""
        before = newest_checkpoint(self.folder)
        while not over.wait(LOOK):
            if (newest := newest_checkpoint(self.folder)) != before:
                before = newest
                self.try_to_copy()
        if newest_checkpoint(self.folder):
            self.try_to_copy()

    def try_to_copy(self) -> None:
        """Copies, or warns."""
        try:
            self.copy()
        except Exception as error:  # each kind of storage has errors of its own
            again = "it is tried again after the next checkpoint and at the end"
            logger.warning("%s: the run cannot be copied there: %s; %s", self.address, reason(error), again)

    def copy(self) -> None:
        """Copies what is new, whole checkpoints after all else, and deletes those there that are deleted here."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and not self.hidden(path)]
        names = {path.relative_to(self.folder).as_posix(): path.stat() for path in files}
        changed = {name: (each.st_size, each.st_mtime_ns) for name, each in names.items()}
        new = [name for name, state in changed.items() if self.sent.get(name) != state]
        last = [
            name for name in new if name == Run(self.folder).result_file.name
        ]  # it says that all is there
        self.put([name for name in new if not name.startswith(f"{CHECKPOINTS}/") and name not in last])
        here, there = whole(names), whole(self.names())
        for step in sorted(here):
            self.put_checkpoint(step, [name for name in names if name.startswith(f"{CHECKPOINTS}/{step}/")])
        for step in there - here:
            if step < max(here):
                self.remove(step)
        self.put(last)
        self.sent |= {name: changed[name] for name in new}

    def put_checkpoint(self, step: int, names: Sequence[str]) -> None:
        """Copies a checkpoint, unless the one there has the same digests."""
        digests = f"{CHECKPOINTS}/{step}/{DIGESTS}"
        if self.read(digests) != (self.folder / digests).read_bytes():
            self.remove(step)
            self.put([name for name in names if name != digests])
            self.put([digests])

    def remove(self, step: int) -> None:
        """Deletes a checkpoint there, its digests first."""
        folder = f"{self.path}/{CHECKPOINTS}/{step}"
        for path in (f"{folder}/{DIGESTS}", folder):
            if self.system.exists(path):
                self.system.rm(path, recursive=True)

    def put(self, names: Sequence[str]) -> None:
        """Copies files."""
        if names:
            self.system.put([str(self.folder / n) for n in names], [f"{self.path}/{n}" for n in names])

    def hidden(self, path: Path) -> bool:
        """Whether a file is only for this machine, as locks and what is being written."""
        return any(part.startswith(".") or ".orbax-" in part for part in path.relative_to(self.folder).parts)

    # From there to here

    def names(self) -> list[str]:
        """The files there; none where only the bucket is there, for which some kinds of storage raise an error."""
        try:
            found = self.system.find(self.path)
        except FileNotFoundError:
            if not self.system.exists(self.path.partition("/")[0]):
                raise
            return []
        names = [path.removeprefix(f"{self.path}/") for path in found]
        if outside := [name for name in names if name.startswith("/") or ".." in name.split("/")]:
            raise UserError(
                f"checkpoint.bucket={self.address!r}: {outside[0]!r} is no name of a run's file; delete it"
            )
        return names

    def read(self, name: str) -> bytes | None:
        """The content of a file there; None if there is none."""
        try:
            return self.system.cat_file(f"{self.path}/{name}")
        except FileNotFoundError:
            return None

    def fetch(self, config: "ExperimentConfig") -> None:
        """Brings what is in the bucket, if its newest whole checkpoint is newer than this folder's; see `copied`."""
        here = newest_checkpoint(self.folder)
        try:
            names = self.names()
            steps = whole(names)
            if max(steps, default=0) <= here:
                return
            left_out = re.compile(rf"{CHECKPOINTS}/(?!({'|'.join(map(str, steps))})/)")
            names = [name for name in names if not left_out.match(name)]
            with incomplete(self.folder / "fetched") as hidden:
                self.system.get([f"{self.path}/{n}" for n in names], [str(hidden / n) for n in names])
                self.take(hidden, config)
        except UserError:
            raise
        except Exception as error:  # each kind of storage has errors of its own
            if here:
                logger.warning("%s: cannot be read: %s; going on without it", self.address, reason(error))
                return
            kind = UserError if isinstance(error, FileNotFoundError) else Unavailable
            remedy = "mend that: without it, a run that was begun elsewhere would begin anew"
            raise kind(f"checkpoint.bucket={self.address!r}: {reason(error)}", remedy) from error
        logger.info("%s: step %d was fetched from there", self.address, max(steps))

    def take(self, fetched: Path, config: "ExperimentConfig") -> None:
        """Moves what was fetched into the run's folder, the newest checkpoint last."""
        try:
            Run(fetched).check(config)
        except UserError as error:
            raise UserError(*(line.replace(str(fetched), self.address) for line in error.lines)) from error
        ledger, own = fetched / ATTEMPTS, self.folder / ATTEMPTS
        if ledger.exists() and own.exists():  # the supervisor has begun to write here
            ledger.write_bytes(ledger.read_bytes() + own.read_bytes())
        for path in sorted(path for path in fetched.rglob("*") if path.is_file()):
            if (name := path.relative_to(fetched)).parts[0] != CHECKPOINTS:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                path.replace(self.folder / name)
        checkpoints = self.folder / CHECKPOINTS
        checkpoints.mkdir(exist_ok=True)
        for folder in sorted((fetched / CHECKPOINTS).iterdir(), key=lambda folder: int(folder.name)):
            if (there := checkpoints / folder.name).exists():
                delete_at_once(there)
            folder.rename(there)
            flush(checkpoints)


def whole(names: Any) -> set[int]:
    """The steps whose checkpoints are whole, of the names of a run's files."""
    return {int(found[1]) for name in names if (found := WHOLE.fullmatch(name))}


def reason(error: Exception) -> str:
    """What an error says, in a line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
