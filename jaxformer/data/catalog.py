"""Which datasets are prepared on this machine, and what to do about one that is not."""

import difflib
import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxformer.config.schema import load
from jaxformer.data.base import DatasetConfig
from jaxformer.errors import NotPrepared, UserError


class Embedded(NamedTuple):
    """A dataset that is made where it is first used."""

    version: str
    splits: Mapping[str, int]
    """How many examples each has."""
    prepare: Any
    """Where the function is that makes it in a folder: "module:name"."""


EMBEDDED = {
    "digits": Embedded("1.0.0", {"train": 1_438, "test": 359}, "jaxformer.data.digits:prepare_digits"),
    "shapes": Embedded(
        "1.2.0",
        {"train": 12_000, "validation": 1_000, "test": 1_000},
        "jaxformer.data.shapes:prepare_shapes",
    ),
}
OWN_FILES: Any = "jaxformer.importing.own:prepared"  # what makes a dataset of "csv:reviews.csv"
# Where embedded datasets go when the default folder cannot be written (a shared, read-only one).
FALLBACK_DIR = Path("~/.cache/jaxformer/tensorflow_datasets")


@dataclass(frozen=True)
class Prepared:
    """A dataset that is ready on disk."""

    name: str
    """ "cifar10", or with a TFDS config "imagenet_resized/64x64"."""
    version: str
    """ "3.0.2"."""
    folder: Path
    """Where its files are."""
    asked: str | None = None
    """`data.name`, where these are a user's own files."""

    @property
    def called(self) -> str:
        """What messages call it."""
        return self.asked or f"{self.name}/{self.version}"


def data_folder(data_dir: str | None) -> tuple[Path, str]:
    """The folder of TFDS datasets, and who says so: the config, the environment, or TFDS's default."""
    if data_dir is not None:
        return Path(data_dir).expanduser(), "data.data_dir"
    if os.environ.get("TFDS_DATA_DIR"):
        return Path(os.environ["TFDS_DATA_DIR"]).expanduser(), "TFDS_DATA_DIR"
    folder = Path("~/tensorflow_datasets").expanduser()
    return folder, "the default; data.data_dir or TFDS_DATA_DIR name another"


def find_datasets(folder: Path) -> list[Prepared]:
    """Every dataset under `folder`, by name and then by version, the oldest first."""
    found = []
    for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json"):
        for path in folder.glob(pattern):
            *name, version = path.parent.relative_to(folder).parts
            if re.fullmatch(r"\d+\.\d+\.\d+", version) and not name[0].startswith("."):
                found.append(Prepared("/".join(name), version, path.parent))
    return sorted(found, key=lambda dataset: (dataset.name, list(map(int, dataset.version.split(".")))))


def find_dataset(config: DatasetConfig) -> Prepared:
    """The dataset that a config means; an embedded one is made if it is not there, and so is one of a user's own files.

    Raises:
      NotPrepared: it is not there.
      UserError: it is there, but not in that version.
    """
    if ":" in config.name:
        return load(OWN_FILES)(config)
    folder, reason = data_folder(config.data_dir)
    prepared = find_datasets(folder)
    if config.name in EMBEDDED and config.name not in [dataset.name for dataset in prepared]:
        folder = place_embedded(config.name, folder, may_move=config.data_dir is None)
        prepared = find_datasets(folder)
    versions = {dataset.version: dataset for dataset in prepared if dataset.name == config.name}
    if not versions:
        raise not_prepared(config.name, folder, reason, [dataset.name for dataset in prepared])
    version = config.version or list(versions)[-1]
    if version in versions:
        return versions[version]
    what = f"{config.name!r} is not prepared in version {config.version!r} in {folder} ({reason})"
    raise UserError(f"data.version: {what}; there is {', '.join(versions)}; None takes the newest")


def place_embedded(name: str, folder: Path, may_move: bool) -> Path:
    """Makes an embedded dataset in `folder`; if that is read-only and it may move, in the fallback."""
    if not may_move and not folder.is_dir():
        raise UserError(f"data.data_dir={folder}: there is no such folder; make it, or leave data_dir out")
    for place in [folder, FALLBACK_DIR.expanduser()] if may_move else [folder]:
        try:
            if place.is_dir() and not place.stat().st_mode & 0o222:  # root could write there, and should not
                raise PermissionError(errno.EACCES, "the folder is read-only", str(place))
            load(EMBEDDED[name].prepare)(place)
        except OSError as error:
            problem = error
        else:
            return place
    remedy = "give a folder that can be written, as data.data_dir or TFDS_DATA_DIR"
    reason = problem.strerror or str(problem)
    raise UserError(f"data.data_dir: cannot prepare {name!r} in {place}: {reason}; {remedy}")


def not_prepared(name: str, folder: Path, reason: str, prepared: list[str]) -> NotPrepared:
    """What to do about a dataset that is not in `folder`."""
    import tensorflow_datasets as tfds

    base, there = name.split("/")[0], {*EMBEDDED, *prepared}
    known = tfds.list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(name, there, n=2, cutoff=0.6)
    build = name if base in known else None
    if not near and not build:
        near = difflib.get_close_matches(base, known, n=3, cutoff=0.75)
        build = near[0] if near else None
    what = f"data.name: dataset {name!r} is not prepared in {folder} ({reason})"
    if near:
        what += f"; did you mean {' or '.join(map(repr, near))}?"
    elif not build:
        what += f", and TFDS knows none of that name; prepared are: {', '.join(sorted(there))}"
        own = "import your own files with `jaxformer data import` (images, text, csv, ...)"
        return NotPrepared(what, own)
    if not build:
        return NotPrepared(what)
    command = f"tfds build {build} --file_format=array_record --data_dir={folder}"
    return NotPrepared(what, f"TFDS prepares a dataset once, where TensorFlow is installed, with: {command}")


def open_builder(dataset: Prepared) -> Any:
    """TFDS's builder of a dataset, from its folder alone.

    Raises:
      UserError: files are missing or damaged.
    """
    import tensorflow_datasets as tfds
    from google.protobuf.json_format import ParseError

    try:
        return tfds.builder_from_directory(dataset.folder)
    except (OSError, ValueError, KeyError, ParseError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        what = f"dataset {dataset.name}/{dataset.version}: its description in {dataset.folder} cannot be read"
        remedy = "remove that folder and prepare the dataset again"
        raise UserError(f"{what} ({reason}); {remedy}") from error
