"""What the processes of one run need in common, and a log for each of them."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from jaxformer.config import schema
from jaxformer.data.base import record
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.files import writing_to
from jaxformer.observe.terminal import process_log
from jaxformer.parallel.processes import together
from jaxformer.runs import Run, config_leaves, environment

OF_MACHINES = ("data.data_dir", "data.cache", "data.read_threads", "data.prefetch")  # these may differ
SEEN_AFTER = 60  # seconds in which a file of another machine is to be seen, as NFS promises


def facts(experiment: Experiment) -> dict[str, Any]:
    """What has to be the same on all processes, as JSON values: config, code, versions, data, devices.

    Raises:
      UserError: the data cannot be read.
    """
    here, leaves = environment(), config_leaves(schema.to_dict(experiment.config))
    known = {path: value for path, value in leaves if path not in OF_MACHINES}
    known |= {f"version of {package}": version for package, version in here["versions"].items()}
    known |= {"version of Python": here["python"], "git revision": here["git_revision"], "code": code_hash()}
    for name, batches in {"train": experiment.train_data, "eval": experiment.eval_data}.items():
        tokenizer = batches.tokenizer.digest if batches.tokenizer else None
        told = {"dataset": batches.source.name, **record(batches), "tokenizer": tokenizer}
        told["first examples"] = batches.fingerprint()
        known |= {f"data of {name}_split, {what}": value for what, value in told.items()}
    devices = jax.local_devices()
    return known | {"devices": f"{len(devices)} x {devices[0].device_kind}"}


def code_hash() -> str:
    """A hash of the package's code, which tells edits from a revision, too, and needs no git."""
    found = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()[:16]


@contextmanager
def shared(run: Run) -> Iterator[None]:
    """Within this context each process has a log of its own in a run's folder; process 0 has locked that before.

    Raises:
      UserError: a process does not see what process 0 has written there.
    """
    with together(), writing_to(run.folder):
        wait_to_see(run.config_file)
    index = jax.process_index()
    with process_log(run.logs / f"process-{index:04}.log", alone=index > 0):
        yield


def wait_to_see(path: Path) -> None:
    """Returns when this process sees a file or a folder that process 0 has made.

    Raises:
      UserError: it does not, so that the folder is not shared.
    """
    end, folder = time.monotonic() + SEEN_AFTER, path.parent
    while path.name not in (os.listdir(folder) if folder.exists() else ()):
        if time.monotonic() > end:
            unseen = "what process 0 writes there is not to be seen"
            raise UserError(f"{folder}: {unseen}; name a folder that all processes share")
        time.sleep(1)
