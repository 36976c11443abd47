"""The examples of a split as TFDS wrote them, by index, and a digest of them.

Any TFDS dataset that was prepared as array_record is read from its folder alone: neither TensorFlow nor the
code that made it is needed.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np

from jaxformer.config.schema import did_you_mean
from jaxformer.data.base import DatasetConfig
from jaxformer.data.catalog import Prepared, find_dataset, open_builder
from jaxformer.data.folds import FOLD, held_out, numbers_of
from jaxformer.data.names import class_key
from jaxformer.errors import UserError

READ_AHEAD = 1024  # records that are read at a time
WHOLE = 64 * 2**20  # bytes of files that are hashed whole
ENDS = 2**20  # bytes that are hashed at each end of a larger one

Record = Mapping[str, Any]  # a tf.train.Example's features by name


class NoSplit(UserError):
    """A dataset has no such split."""


class Records:
    """One split of a prepared dataset.

    Attributes:
      name: dataset and version, "sst2/1.0.0".
      split: the split, with its slice.
      features: TFDS's feature connectors by name.
    """

    def __init__(self, config: DatasetConfig, split: str):
        """Opens `split` of the dataset that `config` names.

        Raises:
          UserError: the dataset, version or split is not there, or cannot be read without TensorFlow.
        """
        from tensorflow_datasets.proto import tf_example_pb2

        dataset = find_dataset(config)
        builder = open_builder(dataset)
        fold = config.fold if split in (FOLD, config.train_split) else None
        whole = config.train_split if fold else split
        self.name, self.split = f"{dataset.name}/{dataset.version}", split
        if fold:
            self.split = f"{whole}, {'of it' if split == FOLD else 'without'} fold {fold}"
        self._called = f"dataset {dataset.called}, split {self.split!r}"
        self.features = builder.info.features
        self._records = open_records(builder, dataset, whole)
        self._files = builder.info.splits[whole].file_instructions
        self._parse = tf_example_pb2.Example.FromString
        if fold:
            held = held_out(self._strata(config, fold), fold)
            self._records = Chosen(self._records, np.flatnonzero(held if split == FOLD else ~held))

    def _strata(self, config: DatasetConfig, fold: str) -> np.ndarray:
        """What folds have equal shares of, [N].

        Raises:
          UserError: there are fewer examples than folds, or a label is none of the classes.
        """
        if len(self) < (count := numbers_of(fold)[1]):
            there = f"{self.name} has {len(self)} examples in {config.train_split!r}"
            raise UserError(f"data.fold={fold!r}: {there}, too few for {count} folds; use fewer")
        if config.examples.strata is None:
            return np.zeros(len(self))
        labels = Labels(self, config.examples.strata, "data.examples.label_feature")
        read = (
            labels.read(record, first + i) for first, group in self.groups() for i, record in enumerate(group)
        )
        return np.fromiter(read, np.float64, len(self))

    def __len__(self) -> int:
        return len(self._records)

    def read(self, indices: Sequence[int]) -> list[Record]:
        """The examples at `indices`.

        Raises:
          UserError: a file is broken.
        """
        try:
            return [self._parse(record).features.feature for record in self._records.__getitems__(indices)]
        except RuntimeError as error:  # array_record's
            problem = f"{self._called}: its files cannot be read ({error})"
            raise UserError(f"{problem}; prepare the dataset again") from error

    def groups(self, size: int = READ_AHEAD) -> Iterator[tuple[int, list[Record]]]:
        """All examples in order, as (index of the first, up to `size` of them)."""
        for first in range(0, len(self), size):
            yield first, self.read(range(first, min(first + size, len(self))))

    def where(self, index: int) -> str:
        """How messages name an example."""
        return f"{self._called}, index {index}"

    def text(self, record: Record, feature: str, index: int) -> str:
        """A text feature's value.

        Raises:
          UserError: it is not UTF-8.
        """
        return self.texts(record, feature, index)[0]

    def texts(self, record: Record, feature: str, index: int) -> list[str]:
        """The values of a feature that is a list of texts."""
        values = record[feature].bytes_list.value
        try:
            return [value.decode("utf-8") for value in values]
        except UnicodeDecodeError as error:
            problem = f"its {feature} is not UTF-8 ({error.reason} at byte {error.start})"
            remedy = "prepare the dataset again from text in UTF-8"
            raise UserError(f"{self.where(index)}: {problem}; {remedy}") from error

    def check_text(self, feature: str, field: str, listed: bool = False) -> None:
        """Raises UserError, naming the config's `field`, if `feature` is not a text, or not a list of texts."""
        import tensorflow_datasets as tfds

        kinds = {name: inner(kind) if listed else kind for name, kind in self.features.items()}
        known = [name for name, kind in kinds.items() if isinstance(kind, tfds.features.Text)]
        self.check(feature, field, known, "a list of texts" if listed else "a text")

    def check(self, feature: str, field: str, fitting: Sequence[str], what: str) -> None:
        """Raises UserError if `feature` is not one of `fitting`, the features that are `what`."""
        if feature in fitting:
            return
        if feature in self.features:
            kind = type(self.features[feature]).__name__
            there = f"features that are: {', '.join(sorted(fitting)) or 'none'}"
            remedy = "" if fitting else "; if it is the label, import your files again and name it as that"
            raise UserError(f"{field}: {feature!r} of {self.name} is {kind}, not {what}; {there}{remedy}")
        remedy = did_you_mean(feature, fitting)
        raise UserError(f"{field}: {self.name} has no feature {feature!r}; {remedy}")

    def numbers(self) -> dict[str, Any]:
        """The features that are single numbers."""
        features = self.features.items()
        return {name: f for name, f in features if f.shape == () and np.dtype(f.np_dtype).kind in "iufb"}

    def digest(self) -> str:
        """A sha256 of what decides the examples: name, features, slice, and the files.

        Files are hashed whole if the split's have up to 64 MiB together; of larger ones their sizes, times of
        modification, and 1 MiB at each end.
        """
        digest = hashlib.sha256(f"{self.name}\n{self.features!r}\n{self.split}\n".encode())
        sizes = [os.path.getsize(part.filename) for part in self._files]
        whole = sum(sizes) <= WHOLE
        for part, size in zip(self._files, sizes):
            place = (os.path.basename(part.filename), size, part.skip, part.take)
            digest.update(repr(place).encode())
            with open(part.filename, "rb") as file:
                if whole:
                    digest.update(file.read())
                    continue
                digest.update(str(os.stat(file.fileno()).st_mtime_ns).encode())
                digest.update(file.read(ENDS))
                file.seek(max(0, size - ENDS))
                digest.update(file.read(ENDS))
        return digest.hexdigest()


class Chosen:
    """Some of a split's serialized examples."""

    def __init__(self, records: Any, indices: np.ndarray):
        self._records, self._indices = records, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitems__(self, indices: Sequence[int]) -> list[bytes]:
        return self._records.__getitems__(self._indices[list(indices)].tolist())


def open_records(builder: Any, dataset: Prepared, split: str) -> Any:
    """The split's serialized examples as a sequence.

    Raises:
      UserError: no such split, a slice that cannot be read, no examples, or not an array_record file.
    """
    import tensorflow_datasets as tfds

    name = dataset.called
    data_dir = dataset.folder.parents[len(dataset.name.split("/"))]
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        stored = builder.info.file_format.value
        build = f"tfds build {dataset.name} --overwrite --file_format=array_record --data_dir={data_dir}"
        raise UserError(
            f"data.name: {name} in {dataset.folder} is stored as {stored}, which only TensorFlow reads",
            f"prepare it again, where TensorFlow is installed, with: {build}",
        )
    splits = builder.info.splits
    for part in split.split("+"):
        if (word := part.split("[")[0].strip()) not in splits:
            raise NoSplit(f"{name} has no split {word!r}; {did_you_mean(word, splits)}")
    try:
        chosen = splits[split]
        if chosen.num_examples <= 0:  # below 0: it ends before it begins
            raise UserError(f"split {split!r} of {name} has no examples")
        files = [part.filename for part in chosen.file_instructions]
        if missing := [file for file in files if not os.path.exists(file)]:
            remedy = "prepare the dataset again"
            raise UserError(f"dataset {name}, split {split!r}: {missing[0]} is missing; {remedy}")
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        return builder.as_data_source(split, deserialize_method=raw).data_source
    except (ValueError, AssertionError) as error:
        raise UserError(
            f"split {split!r} of {name}: not a slice that TFDS reads ({str(error).splitlines()[0]}); "
            "write it as in 'train[:90%]', 'train[1000:2000]' or 'train+test'"
        ) from error


def shared_examples(config: DatasetConfig, split: str, other: str | None = None) -> int:
    """How many examples two splits have in common, as "train[:80%]" and "train[50%:]" overlap.

    Args:
      config: names the dataset.
      split: the one.
      other: the other one; None counts what `split` itself holds again, as "train+train" does.

    Raises:
      UserError: the dataset is not there.
    """
    if config.fold is not None and other == FOLD:
        return 0
    splits = open_builder(find_dataset(config)).info.splits
    parts = splits[split].file_instructions
    pairs = combinations(parts, 2) if other is None else product(parts, splits[other].file_instructions)
    return sum(
        max(0, min(a.skip + a.take, b.skip + b.take) - max(a.skip, b.skip))
        for a, b in pairs
        if a.filename == b.filename
    )


def inner(feature: Any) -> Any:
    """What a list feature is a list of; None if it is no list."""
    import tensorflow_datasets as tfds

    return feature.feature if isinstance(feature, tfds.features.Sequence) else None


class Labels:
    """A dataset's feature that holds one label an example.

    Attributes:
      dtype: np.float32 for a float feature (regression), else np.int32.
      names: names of the classes, if it is a ClassLabel.
      num_classes: how many there are, if that is known.
    """

    def __init__(self, records: Records, feature: str, field: str):
        """Raises UserError, naming the config's `field`, if `feature` is not a single number."""
        scalars = records.numbers()
        records.check(feature, field, list(scalars), "a single number")
        kind = scalars[feature]
        self._records, self._feature = records, feature
        self.dtype = np.float32 if np.issubdtype(kind.np_dtype, np.floating) else np.int32
        self.names, self.num_classes = class_names(kind)

    def read(self, record: Record, index: int) -> int | float:
        """An example's label.

        Raises:
          UserError: it is none of the classes.
        """
        value = record[self._feature]
        if self.dtype is np.float32:
            return value.float_list.value[0]
        label = value.int64_list.value[0]
        check_class(label, self.num_classes, self._records.where(index), self._feature)
        return label


def class_names(feature: Any) -> tuple[list[str] | None, int | None]:
    """Names and number of the classes of a feature; None, None if it is no ClassLabel."""
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.ClassLabel) and feature.num_classes is not None:
        return list(map(class_key, feature.names)), feature.num_classes
    return None, None


def check_class(label: int, num_classes: int | None, where: str, feature: str) -> None:
    """Raises UserError for a label that is none of the classes."""
    if label < 0 or (num_classes is not None and label >= num_classes):
        classes = "a class, from 0 on" if num_classes is None else f"one of the {num_classes} classes"
        remedy = "test splits without labels need another split"
        raise UserError(f"{where}: its {feature} is {label}, not {classes}; {remedy}")
