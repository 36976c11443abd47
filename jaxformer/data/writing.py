"""Writes TFDS datasets (array_record) in one piece: a dataset is there completely, or not at all.

What is held out of a dataset without splits is chosen here, too.
"""

import contextlib
import errno
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.files import incomplete, made, put_in_place

EXAMPLES_PER_SHARD = 100_000


def write_dataset(
    data_dir: Path,
    name: str,
    version: str,
    features: Mapping[str, Any],
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    description: str = "",
) -> Path:
    """Writes examples as the TFDS dataset `data_dir/name/version`.

    Other processes see either nothing or the whole dataset: it is written beside its place and renamed. Where several
    processes write one dataset at once, the first to finish wins, and the others delete theirs. What a killed process
    left behind is removed by the next writer on the same machine.

    Args:
      data_dir: the folder of TFDS datasets; made if it is not there.
      name: the dataset's name.
      version: its version, "1.0.0".
      features: TFDS feature connectors by name (`tfds.features.Image(...)`, with encoded bytes as examples).
      splits: examples by split; each an iterable, read once, in order.
      description: a line for people.

    Returns:
      The folder of the dataset.

    Raises:
      FileExistsError: the dataset is there already, perhaps of another process that was quicker.
      OSError: the folder cannot be written.
    """
    import tensorflow_datasets as tfds

    target = data_dir / name / version
    with made(data_dir), incomplete(data_dir / name) as scratch:
        scratch.mkdir()
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=name, version=tfds.core.Version(version), data_dir=str(scratch), module_name="jaxformer.data"
        )
        known = tfds.features.FeaturesDict(dict(features))
        info = tfds.core.DatasetInfo(
            builder=identity, description=description, features=known, disable_shuffling=True
        )
        with system_errors():
            writer = tfds.core.SequentialWriter(info, EXAMPLES_PER_SHARD, file_format="array_record")
            writer.initialize_splits(list(splits))
        for split, examples in splits.items():
            remaining = iter(examples)
            while chunk := list(islice(remaining, 1024)):
                with system_errors():
                    writer.add_examples({split: chunk})
        with system_errors():
            writer.close_all()
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            put_in_place(scratch, target)
        except OSError as error:
            if (target / "dataset_info.json").exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
            raise
    return target


def write_once(data_dir: Path, name: str, version: str, *dataset: Any) -> Path:
    """As `write_dataset`, unless the dataset is there already: for examples that are always the same."""
    folder = data_dir / name / version
    if (folder / "dataset_info.json").exists():
        return folder
    try:
        return write_dataset(data_dir, name, version, *dataset)
    except FileExistsError:  # of another process, which was quicker and wrote the same
        if folder.is_dir():
            return folder
        raise


@contextlib.contextmanager
def system_errors() -> Iterator[None]:
    """Turns array_record's RuntimeErrors of the file system, which say the reason in words alone, into OSErrors."""
    try:
        yield
    except RuntimeError as error:
        known = (code for code in errno.errorcode if os.strerror(code) in str(error))
        if (code := next(known, None)) is None:
            raise
        raise OSError(code, os.strerror(code)) from error


def held_out_places(labels: Sequence[Any], share: float) -> set[int]:
    """The places of a random `share` of each label (rounded), but never of all its examples.

    The orders come from PCG64 with seed 0, whose stream NumPy keeps stable: the choice is the same everywhere.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    places: dict[Any, list[int]] = defaultdict(list)
    for place, label in enumerate(labels):
        places[label].append(place)
    held_out: set[int] = set()
    for label in sorted(places):
        order = np.argsort(rng.random(len(places[label])), kind="stable")
        count = min(round(len(order) * share), len(order) - 1)
        held_out.update(places[label][number] for number in order[:count])
    return held_out
