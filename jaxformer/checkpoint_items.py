"""The files of one checkpoint: how Orbax writes and reads the items in a folder STEP/, and whether they are damaged.

Items are trees of arrays (one folder each), `progress` and `metrics` (JSON). The size and the crc32 of every file are
in STEP/digests.json. Two names are Orbax's own and pinned by a test: the suffix of the folder that is being written,
and the files in which it keeps JSON.
"""

import contextlib
import logging
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from jax.sharding import SingleDeviceSharding

from jaxformer.errors import UserError
from jaxformer.files import flush, write_json
from jaxformer.paths import leaves_by_path
from jaxformer.reading import load_json

logger = logging.getLogger("jaxformer")

Tree = Any
Score = Mapping[str, float]  # ranks a checkpoint: {"value": of the monitored metric, "step": its step}

PROGRESS, METRICS = "progress", "metrics"  # the JSON items; Orbax chose the second name
PROGRESS_FILE, METRICS_FILE = f"{PROGRESS}/metadata", f"{METRICS}/metrics"  # and the names of the files
TEMPORARY = ".orbax-checkpoint-tmp"  # follows the step in the name of a folder that is being written
DIGESTS = "digests.json"
BLOCK = 2**22  # bytes read at a time
# Bytes from which a file of arrays is written; what is not written yet is in memory, compressed.
DATA_FILE = 2**26
LEAST_PART = 2**20  # bytes of the smallest part that a device writes of an array that others have, too


class Manager(ocp.CheckpointManager):
    """Orbax's manager; the training loop alone asks JAX's coordination service whether a signal has come.

    The service takes ascending numbers. Orbax would ask it with steps, and the loop counts batches of evaluation, too.
    """

    def reached_preemption(self, step: int) -> bool:
        """Never."""
        return False


def open_manager(directory: Path, finalized: Callable[[], None]) -> ocp.CheckpointManager:
    """Orbax's manager of a folder: it saves in the background, and deletes nothing.

    Args:
      directory: the folder.
      finalized: is called on process 0 when all files of a checkpoint are written, before its folder is renamed.
    """
    logging.getLogger("absl").addFilter(to_debug)
    options = ocp.CheckpointManagerOptions(
        best_fn=lambda score: score["value"],  # makes Orbax write the metrics
        async_options=ocp.AsyncOptions(
            post_finalization_callback=finalized,
            # In the background, a folder that cannot be made leaves threads that wait for it 10 minutes.
            create_directories_asynchronously=False,
            barrier_sync_fn=wait_for_others,
        ),
    )
    return Manager(directory, options=options, handler_registry=handlers())


def wait_for_others(*, key: str, timeout_ms: int) -> None:
    """Waits for the other processes at a barrier of Orbax's.

    Where a process's part of a save has failed, Orbax has it wait here before it raises that, while the others wait for
    it elsewhere: so the error that is being handled is raised at once.
    """
    if (error := sys.exception()) is not None:
        raise error
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def handlers() -> Any:
    """Orbax's handlers for saving; of an array that all devices hold, they write parts only if it is large.

    By default each device writes a part of every such array, and the caller of `save` waits 2 to 5 times as long.
    """
    arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=LEAST_PART)
    types = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    registry.add(None, ocp.args.PyTreeSave, ocp.PyTreeCheckpointHandler(type_handler_registry=types))
    registry.add(None, ocp.args.JsonSave, ocp.JsonCheckpointHandler())
    return registry


def save_arguments(items: Mapping[str, Tree], progress: Mapping[str, Any]) -> ocp.args.Composite:
    """The arguments of Orbax's manager for saving trees of arrays by name, and JSON values."""
    arguments: dict[str, Any] = {PROGRESS: ocp.args.JsonSave(dict(progress))}
    for name, tree in items.items():
        if arrays := named_arrays(tree):  # Orbax has no empty trees, and plain SGD keeps no state
            named = traverse_util.unflatten_dict(arrays, sep="/")
            arguments[name] = ocp.args.PyTreeSave(named, ocdbt_target_data_file_size=DATA_FILE)
    return ocp.args.Composite(**arguments)


def read_items(folder: Path, targets: Mapping[str, Tree]) -> dict[str, Tree]:
    """The items in `targets`, with the shardings of the targets.

    Raises:
      UserError: names, shapes or dtypes differ from the targets'.
    """
    logging.getLogger("absl").addFilter(is_news)
    with contextlib.closing(ocp.StandardCheckpointer()) as reader:
        differences: list[str] = []
        for name in sorted(targets, key="params".__ne__):  # the others' differences follow from these
            differences += unlike(written_arrays(reader, folder / name), named_arrays(targets[name]))
        if differences:
            more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
            raise UserError(
                f"{folder}: {'; '.join(differences[:3])}{more}",
                "the config has changed since this was saved: go back to that, or use another folder",
            )
        return {name: read_item(reader, folder / name, tree) for name, tree in targets.items()}


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


def written_arrays(reader: ocp.StandardCheckpointer, folder: Path) -> dict[str, Any]:
    """Shapes and dtypes of an item's arrays by their path; {} if it is not there, as it had none."""
    if not folder.exists():
        return {}
    return traverse_util.flatten_dict(reader.metadata(folder).item_metadata.tree, sep="/")


def read_item(reader: ocp.StandardCheckpointer, folder: Path, target: Tree) -> Tree:
    """An item's arrays in the structure of `target`, with its shardings, or else on one device."""
    here = SingleDeviceSharding(jax.local_devices()[0])
    wanted = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or here)
        for name, leaf in named_arrays(target).items()
    }
    nested = traverse_util.unflatten_dict(wanted, sep="/")
    read = traverse_util.flatten_dict(reader.restore(folder, nested) if nested else {}, sep="/")
    return jax.tree.unflatten(jax.tree.structure(target), [read[name] for name in wanted])


def read_as_written(folder: Path) -> dict[str, jax.Array]:
    """An item's arrays by their path, as they were saved, on one device."""
    logging.getLogger("absl").addFilter(is_news)
    with contextlib.closing(ocp.StandardCheckpointer()) as reader:
        written = written_arrays(reader, folder)
        target = {name: jax.ShapeDtypeStruct(each.shape, each.dtype) for name, each in written.items()}
        nested = traverse_util.unflatten_dict(target, sep="/")
        return traverse_util.flatten_dict(read_item(reader, folder, nested), sep="/")


def unlike(saved: Mapping[str, Any], target: Mapping[str, Any]) -> Iterator[str]:
    """Yields how saved arrays differ from those the config wants, a phrase for each."""
    for name in sorted(saved.keys() | target.keys()):
        old, new = saved.get(name), target.get(name)
        if new is None:
            yield f"{name} is in the checkpoint, and not in this config's model or optimizer"
        elif old is None:
            yield f"{name} is not in the checkpoint, and this config needs it"
        elif old.shape != new.shape:
            yield f"{name} is {list(old.shape)} in the checkpoint, {list(new.shape)} by this config"
        elif np.dtype(old.dtype) != np.dtype(new.dtype):
            yield f"{name} is {old.dtype} in the checkpoint, {np.dtype(new.dtype)} by this config"


def reason(error: BaseException) -> str:
    """An error in a line: the operating system's message, if there is one."""
    found = from_system(error)
    return found.strerror or str(found)


def from_system(error: BaseException) -> OSError:
    """The operating system's error that Orbax or TensorStore reports; one without a number if it is none."""
    if isinstance(error, OSError) and error.strerror:
        return error
    text = " ".join(str(error).split())
    if found := re.search(r"os_error_code='(\d+)'", text):  # as tensorstore writes it, after a list of paths
        return OSError(int(found[1]), os.strerror(int(found[1])))
    return OSError(text or type(error).__name__)


def is_news(record: logging.LogRecord) -> bool:
    """Leaves out the warning at every read that an item's folder has no _CHECKPOINT_METADATA: only STEP/ has it."""
    return "_CHECKPOINT_METADATA" not in record.getMessage()


def to_debug(record: logging.LogRecord) -> bool:
    """Sends Orbax's own lines to our log at level DEBUG: this package logs the same in fewer words."""
    if f"{os.sep}orbax{os.sep}" not in record.pathname:
        return True
    logger.debug("orbax: %s", record.getMessage())
    return False


def write_digests(folder: Path) -> None:
    """Writes the size and the crc32 of every file in the sub-folders of `folder` into its digests.json.

    Before that, everything there is on the disk and not only in memory. The files were just written, so that they
    are read back from memory: about a second a gigabyte and core.
    """
    paths = sorted(folder.rglob("*"))
    files = [path for path in paths if path.is_file() and path.parent != folder]
    with ThreadPoolExecutor() as pool:
        list(pool.map(flush, paths))
        found = list(pool.map(checksum, files))
    names = [path.relative_to(folder).as_posix() for path in files]
    write_json(folder / DIGESTS, dict(zip(names, found)))


def damage(folder: Path, parts: Iterable[str]) -> str | None:
    """The first damage to the files in a folder, in a few words; None if they are as they were written.

    Args:
      folder: one that `write_digests` was called for.
      parts: the sub-folders whose files are checked.
    """
    try:
        written = load_json(folder / DIGESTS)
        names = [name for name in written if name.split("/")[0] in set(parts)]
        with ThreadPoolExecutor() as pool:
            for name, found in zip(names, pool.map(lambda name: checksum(folder / name), names)):
                size = written[name][0]
                if found[0] != size:
                    return f"{name} has {found[0]} of {size} bytes"
                if found != written[name]:
                    return f"{name} is not what was written (crc32)"
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(folder)} is missing"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except (ValueError, TypeError, AttributeError, LookupError):
        return f"{DIGESTS} is not what was written"
    return None


def checksum(path: Path) -> list[int]:
    """[size in bytes, crc32] of a file."""
    size = crc = 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return [size, crc]
