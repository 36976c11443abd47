"""Reads the examples of a prepared dataset by index.

Any TFDS dataset that was prepared as array_record is read from its folder alone: neither TensorFlow nor the
code that made it is needed.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxformer.data.catalog import Prepared, find_dataset, open_builder
from jaxformer.data.config import DataConfig
from jaxformer.data.decoding import decode_image
from jaxformer.data.examples import Images
from jaxformer.errors import UserError
from jaxformer.schema import did_you_mean

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer


class Opened:
    """What every source says of itself.

    Attributes:
      name: dataset and version, "cifar10/3.0.2".
      split: the split, with its slice.
      class_names: names of the classes, if the dataset has them.
      tokenizer: what made the tokens; None if there are none.
      length: places in the longest row of tokens; 0 if there are none.
      lengths: int32 [N], places that each row needs; None if all are alike.
      filled: [N], places of each row that are not padding, if that is not `lengths`.
      facts: lines for people, said when a run starts.
    """

    name: str
    split: str
    class_names: list[str] | None = None
    tokenizer: "Tokenizer | None" = None
    length: int = 0
    lengths: np.ndarray | None = None
    filled: np.ndarray | None = None
    facts: Sequence[str] = ()

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def sizes(self) -> dict[str, int]:
        """What a model's layers go by, as far as it is known: `num_classes`, `vocab_size`."""
        return {} if self.class_names is None else {"num_classes": len(self.class_names)}

    @property
    def parts(self) -> tuple[list[int], list[float]]:
        """Of a mixture, how many examples each dataset has, and its weight; they are numbered one after another."""
        return [len(self)], [1.0]

    def where(self, index: int) -> str:
        """How messages name an example."""
        return f"dataset {self.name}, split {self.split!r}, index {index}"


class Source(Opened):
    """Examples by index, one by one."""

    def read(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples at `indices`: dicts of arrays and integers, as `image` (uint8 [H, W, C]) and `labels`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Array:
    """One array of a batch of rows, without the batch.

    Attributes:
      shape: with full length.
      dtype: of its items.
      fill: what stands where there is nothing.
    """

    shape: tuple[int, ...]
    dtype: Any = np.int32
    fill: int = 0


class RowSource(Opened):
    """Rows of tokens by index, many at once.

    Attributes:
      spec: the arrays of a batch.
    """

    spec: Mapping[str, Array]

    def gather(self, indices: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """The rows at `indices`, int64 [B], padded to `length`."""
        raise NotImplementedError


class ImageSource(Source):
    """Labelled images of one split of a prepared dataset, decoded when read."""

    def __init__(self, config: DataConfig, split: str):
        """Opens `split`.

        Raises:
          UserError: the dataset, version, split or feature is not there, or cannot be read without
            TensorFlow.
        """
        from tensorflow_datasets.proto import tf_example_pb2

        settings: Images = config.examples
        dataset = find_dataset(config)
        self.name = f"{dataset.name}/{dataset.version}"
        self.split = split
        builder = open_builder(dataset)
        self.channels = self._channels(builder.info.features, settings.image_feature)
        self.class_names = self._class_names(builder.info.features, settings.label_feature)
        self._image, self._label = settings.image_feature, settings.label_feature
        self._parse = tf_example_pb2.Example.FromString
        self._records = open_records(builder, dataset, split)

    def __len__(self) -> int:
        return len(self._records)

    def read(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples at `indices`: `image` uint8 [H, W, C] and `labels`.

        Raises:
          UserError: a file or an image is broken; names dataset, split and index.
        """
        try:
            records = self._records.__getitems__(indices)
        except RuntimeError as error:  # array_record's
            raise UserError(
                f"dataset {self.name}, split {self.split!r}: its files cannot be read ({error}); "
                "prepare the dataset again"
            ) from error
        return [self._decode(record, index) for record, index in zip(records, indices)]

    def _decode(self, record: bytes, index: int) -> dict[str, Any]:
        # TFDS's own reading takes ten times as long: it goes through NumPy for every feature.
        features = self._parse(record).features.feature
        try:
            image = decode_image(features[self._image].bytes_list.value[0], self.channels)
        except (ValueError, IndexError) as error:
            raise UserError(
                f"{self.where(index)}: broken image ({error}); prepare or import the dataset again"
            ) from error
        return {"image": image, "labels": features[self._label].int64_list.value[0]}

    def _channels(self, features: Any, key: str) -> int:
        """Channels of the image feature, 1 or 3."""
        import tensorflow_datasets as tfds

        if key not in features:
            images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
            remedy = did_you_mean(key, images)
            raise UserError(f"data.examples.image_feature: {self.name} has no feature {key!r}; {remedy}")
        feature = features[key]
        if not isinstance(feature, tfds.features.Image) or feature.np_dtype != np.uint8:
            raise UserError(
                f"data.examples.image_feature: {key!r} of {self.name} is {feature}, not a uint8 Image"
            )
        return 1 if feature.shape[-1] == 1 else 3

    def _class_names(self, features: Any, key: str) -> list[str] | None:
        """Names of the classes; None if the labels are bare integers."""
        import tensorflow_datasets as tfds

        scalars = {name: feature for name, feature in features.items() if feature.shape == ()}
        integers = [name for name, feature in scalars.items() if np.issubdtype(feature.np_dtype, np.integer)]
        if key not in integers:
            remedy = did_you_mean(key, integers)
            raise UserError(
                f"data.examples.label_feature: {self.name} has no integer feature {key!r}; {remedy}"
            )
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
        chosen = builder.info.splits[split]
        if chosen.num_examples == 0:
            raise UserError(f"split {split!r} of {name} has no examples")
        missing = [part.filename for part in chosen.file_instructions if not os.path.exists(part.filename)]
        if missing:
            raise UserError(
                f"dataset {name}, split {split!r}: {missing[0]} is missing; prepare the dataset again"
            )
        records = builder.as_data_source(split, deserialize_method=raw)
    except (ValueError, AssertionError) as error:
        raise UserError(
            f"split {split!r} of {name}: not a slice that TFDS reads ({str(error).splitlines()[0]}); "
            "write it as in 'train[:90%]', 'train[1000:2000]' or 'train+test'"
        ) from error
    return records.data_source


class CachedSource(Source):
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


def open_source(config: DataConfig, split: str, train: bool = False) -> Source | RowSource:
    """Opens a split as a config says, with its cache; in training, with the datasets that are mixed into it.

    Raises:
      UserError: the dataset, version, split or feature is not there, or not what it has to be.
    """
    if isinstance(config.examples, Images):
        source = ImageSource(config, split)
        return CachedSource(source) if config.cache == "memory" else source
    from jaxformer.data.text.opening import open_rows

    return open_rows(config, split, train)
