"""Datasets on disk: where they are, what is in them, and reading their examples by index.

Any TFDS dataset that was prepared as array_record is read from its folder alone: neither TensorFlow nor the
code that made it is needed.
"""

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxformer.data.config import DataConfig
from jaxformer.data.decoding import decode_image
from jaxformer.data.digits import NAME as DIGITS
from jaxformer.data.digits import prepare_digits
from jaxformer.errors import UserError
from jaxformer.schema import did_you_mean

# Where digits go when the default folder cannot be written (a shared, read-only one).
FALLBACK_DIR = Path("~/.cache/jaxformer/tensorflow_datasets")


@dataclass(frozen=True)
class Prepared:
    """A dataset that is ready on disk.

    Attributes:
      name: "cifar10", or with a TFDS config "imagenet_resized/64x64".
      version: "3.0.2".
      folder: where its files are.
    """

    name: str
    version: str
    folder: Path


class Source(Protocol):
    """Examples by index."""

    name: str
    split: str
    class_names: list[str] | None

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples at `indices`: dicts of `image` (uint8 [H, W, C]) and `labels` (int)."""


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
    return sorted(found, key=lambda dataset: (dataset.name, version_key(dataset.version)))


def version_key(version: str) -> tuple[int, ...]:
    """Orders versions: "3.0.10" comes after "3.0.9"."""
    return tuple(int(part) for part in version.split("."))


def find_dataset(config: DataConfig) -> Prepared:
    """The dataset that a config means; digits are prepared if they are not there.

    Raises:
      UserError: it is not prepared, or not in that version.
    """
    folder, reason = data_folder(config.data_dir)
    if config.name == DIGITS:
        folder = place_digits(folder, may_move=config.data_dir is None)
    prepared = find_datasets(folder)
    versions = [dataset for dataset in prepared if dataset.name == config.name]
    if not versions:
        raise not_prepared(config.name, folder, reason, [dataset.name for dataset in prepared])
    if config.version is None:
        return versions[-1]
    for dataset in versions:
        if dataset.version == config.version:
            return dataset
    there = ", ".join(dataset.version for dataset in versions)
    raise UserError(
        f"data.version: {config.name!r} is not prepared in version {config.version!r} in {folder} "
        f"({reason}); there is {there}; None takes the newest"
    )


def place_digits(folder: Path, may_move: bool) -> Path:
    """Prepares the digits in `folder`; if that is read-only and they may move, in the fallback."""
    fallback = FALLBACK_DIR.expanduser()
    for place in [folder, fallback] if may_move else [folder]:
        try:
            prepare_digits(place)
        except OSError as error:
            problem = error
        else:
            return place
    remedy = "give a folder that can be written, as data.data_dir or TFDS_DATA_DIR"
    reason = problem.strerror or str(problem)
    raise UserError(f"data.data_dir: cannot prepare 'digits' in {place}: {reason}; {remedy}")


def not_prepared(name: str, folder: Path, reason: str, prepared: list[str]) -> UserError:
    """What to do about a dataset that is not in `folder`."""
    import tensorflow_datasets as tfds

    near = difflib.get_close_matches(name, {DIGITS, *prepared}, n=2, cutoff=0.6)
    base = name.split("/")[0]
    known = tfds.list_builders(with_community_datasets=False)
    if not near and base not in known:
        near = difflib.get_close_matches(base, known, n=3, cutoff=0.6)
    what = f"data.name: dataset {name!r} is not prepared in {folder} ({reason})"
    meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    if base not in known and not near:
        there = ", ".join(sorted({DIGITS, *prepared}))
        meant = f", and TFDS has no dataset of that name; prepared are: {there}"
    build = f"tfds build {name} --file_format=array_record --data_dir={folder}"
    return UserError(
        f"{what}{meant}",
        f"prepare a TFDS dataset once, where TensorFlow is installed, with: {build}"
        if base in known
        else "import your own pictures with: jaxformer data import images DIRECTORY --name NAME",
    )


@dataclass(frozen=True)
class Description:
    """What a prepared dataset says about itself.

    Attributes:
      splits: examples by split.
      features: each feature as TFDS writes it ("Image(shape=(32, 32, 3), dtype=uint8)").
      file_format: "array_record", or one that needs TensorFlow.
      bytes: size of its files.
    """

    splits: dict[str, int]
    features: dict[str, str]
    file_format: str
    bytes: int


def describe(dataset: Prepared) -> Description:
    """Reads a dataset's description from its folder."""
    import tensorflow_datasets as tfds

    info = tfds.builder_from_directory(dataset.folder).info
    return Description(
        splits={name: split.num_examples for name, split in info.splits.items()},
        features={name: repr(feature) for name, feature in info.features.items()},
        file_format=info.file_format.value,
        bytes=int(info.dataset_size),
    )


class ImageSource:
    """Labelled images of one split of a prepared dataset, decoded when read.

    Attributes:
      name: dataset and version, "cifar10/3.0.2".
      split: the split, with its slice.
      class_names: names of the classes, if the dataset has them.
    """

    def __init__(self, config: DataConfig, split: str):
        """Opens `split`.

        Raises:
          UserError: the dataset, version, split or feature is not there, or cannot be read without
            TensorFlow.
        """
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2

        dataset = find_dataset(config)
        self.name = f"{dataset.name}/{dataset.version}"
        self.split = split
        builder = tfds.builder_from_directory(dataset.folder)
        self.channels = self._channels(builder.info.features, config.image_feature)
        self.class_names = self._class_names(builder.info.features, config.label_feature)
        self._image, self._label = config.image_feature, config.label_feature
        self._parse = tf_example_pb2.Example.FromString
        self._records = open_records(builder, dataset, split)

    def __len__(self) -> int:
        return len(self._records)

    def read(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples at `indices`: `image` uint8 [H, W, C] and `labels`.

        Raises:
          UserError: an image cannot be decoded; names dataset, split and index.
        """
        records = self._records.__getitems__(indices)
        return [self._decode(record, index) for record, index in zip(records, indices)]

    def _decode(self, record: bytes, index: int) -> dict[str, Any]:
        # TFDS's own reading takes ten times as long: it goes through NumPy for every feature.
        features = self._parse(record).features.feature
        try:
            image = decode_image(features[self._image].bytes_list.value[0], self.channels)
        except (ValueError, IndexError) as error:
            raise UserError(
                f"dataset {self.name}, split {self.split!r}, index {index}: broken image ({error}); "
                "prepare or import the dataset again"
            ) from error
        return {"image": image, "labels": features[self._label].int64_list.value[0]}

    def _channels(self, features: Any, key: str) -> int:
        """Channels of the image feature, 1 or 3."""
        import tensorflow_datasets as tfds

        if key not in features:
            images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
            remedy = did_you_mean(key, images)
            raise UserError(f"data.image_feature: {self.name} has no feature {key!r}; {remedy}")
        feature = features[key]
        if not isinstance(feature, tfds.features.Image) or feature.np_dtype != np.uint8:
            raise UserError(f"data.image_feature: {key!r} of {self.name} is {feature}, not a uint8 Image")
        return 1 if feature.shape[-1] == 1 else 3

    def _class_names(self, features: Any, key: str) -> list[str] | None:
        """Names of the classes; None if the labels are bare integers."""
        import tensorflow_datasets as tfds

        scalars = {name: feature for name, feature in features.items() if feature.shape == ()}
        integers = [name for name, feature in scalars.items() if np.issubdtype(feature.np_dtype, np.integer)]
        if key not in integers:
            remedy = did_you_mean(key, integers)
            raise UserError(f"data.label_feature: {self.name} has no integer feature {key!r}; {remedy}")
        feature = features[key]
        return list(feature.names) if isinstance(feature, tfds.features.ClassLabel) else None


def open_records(builder: Any, dataset: Prepared, split: str) -> Any:
    """The split's serialized examples as a sequence.

    Raises:
      UserError: no such split, a slice that cannot be read, no examples, or not an array_record file.
    """
    import tensorflow_datasets as tfds

    name = f"{dataset.name}/{dataset.version}"
    data_dir = dataset.folder.parents[len(dataset.name.split("/"))]
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"data.name: {name} in {dataset.folder} is stored as {builder.info.file_format.value}, which "
            "only TensorFlow reads",
            f"prepare it again, where TensorFlow is installed, with: tfds build {dataset.name} --overwrite "
            f"--file_format=array_record --data_dir={data_dir}",
        )
    splits = set(builder.info.splits)
    for part in split.split("+"):
        word = part.split("[")[0].strip()
        if word not in splits:
            raise UserError(f"split {split!r}: {name} has no split {word!r}; {did_you_mean(word, splits)}")
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    try:
        records = builder.as_data_source(split, deserialize_method=raw)
    except (ValueError, AssertionError) as error:
        raise UserError(
            f"split {split!r} of {name}: not a slice that TFDS reads ({str(error).splitlines()[0]}); "
            "write it as in 'train[:90%]', 'train[1000:2000]' or 'train+test'"
        ) from error
    except FileNotFoundError as error:
        raise UserError(
            f"dataset {name}: a file of split {split!r} is missing in {dataset.folder}; prepare it again"
        ) from error
    if len(records) == 0:
        raise UserError(f"split {split!r} of {name} has no examples")
    return records.data_source


class CachedSource:
    """Keeps a source's decoded examples in memory, from the first time that each is read."""

    def __init__(self, source: Source):
        self._source = source
        self._examples: list[dict[str, Any] | None] = [None] * len(source)
        self.name, self.split, self.class_names = source.name, source.split, source.class_names

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples at `indices`; several threads may call this at once."""
        missing = [index for index in indices if self._examples[index] is None]
        if missing:
            for index, example in zip(missing, self._source.read(missing)):
                example["image"].setflags(write=False)
                self._examples[index] = example
        return [dict(self._examples[index]) for index in indices]  # type: ignore[arg-type]


def open_source(config: DataConfig, split: str) -> Source:
    """Opens a split as a config says, with its cache."""
    source = ImageSource(config, split)
    return CachedSource(source) if config.cache == "memory" else source
