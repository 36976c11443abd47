"""Reads the examples of a prepared dataset by index.

Any TFDS dataset that was prepared as array_record is read from its folder alone: neither TensorFlow nor the
code that made it is needed.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxformer.config.schema import did_you_mean
from jaxformer.data.catalog import Prepared, find_dataset, open_builder
from jaxformer.data.config import DataConfig
from jaxformer.data.decoding import decode_image
from jaxformer.data.examples import Detection, Images, Segmentation
from jaxformer.errors import UserError

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer

Example = dict[str, Any]
logger = logging.getLogger("jaxformer")


class Opened:
    """What every source says of itself."""

    name: str
    """Dataset and version, "cifar10/3.0.2"."""
    split: str
    """The split, with its slice."""
    class_names: list[str] | None = None
    """Names of the classes, if the dataset has them."""
    tokenizer: "Tokenizer | None" = None
    """What made the tokens; None if there are none."""
    length: int = 0
    """Places in the longest row of tokens; 0 if there are none."""
    lengths: np.ndarray | None = None
    """Int32 [N], places that each row needs; None if all are alike."""
    filled: np.ndarray | None = None
    """[N], places of each row that are not padding, if that is not `lengths`."""
    facts: Sequence[str] = ()
    """Lines for people, said when a run starts."""

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

    def read(self, indices: Sequence[int]) -> list[Example | None]:
        """The examples at `indices`: dicts of arrays and integers, as `image` (uint8 [H, W, C]) and `labels`.

        None stands for an example that cannot be used, where such are to be skipped.
        """
        raise NotImplementedError

    def finish(self, example: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a batch holds of an example, after the transforms."""
        return example


@dataclass(frozen=True)
class Array:
    """One array of a batch of rows, without the batch."""

    shape: tuple[int, ...]
    """With full length."""
    dtype: Any = np.int32
    """Of its items."""
    fill: int = 0
    """What stands where there is nothing."""


class RowSource(Opened):
    """Rows of tokens by index, many at once."""

    spec: Mapping[str, Array]
    """The arrays of a batch."""

    def gather(self, indices: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """The rows at `indices`, int64 [B], padded to `length`."""
        raise NotImplementedError


class PictureSource(Source):
    """Pictures of one split of a prepared dataset, decoded when read; a kind of examples adds what goes with them.

    Attributes:
      channels: of the pictures, 1 or 3.
      features: the dataset's, TFDS's connectors by name.
    """

    def __init__(self, config: DataConfig, split: str):
        """Opens `split`.

        Raises:
          UserError: the dataset, version, split or feature is not there, or cannot be read without
            TensorFlow.
        """
        from tensorflow_datasets.proto import tf_example_pb2

        settings = config.examples
        dataset = find_dataset(config)
        self.name = f"{dataset.name}/{dataset.version}"
        self.split = split
        builder = open_builder(dataset)
        self.features = builder.info.features
        self.channels = self._channels(self.features, settings.image_feature)
        self._image, self._skip = settings.image_feature, settings.broken == "skip"
        self._named: set[int] = set()
        self._parse = tf_example_pb2.Example.FromString
        self._records = open_records(builder, dataset, split)

    def __len__(self) -> int:
        return len(self._records)

    def decode(self, features: Any, index: int) -> Example:
        """An example of its stored features, protocol buffers by name.

        Raises:
          ValueError: something of it cannot be decoded.
          UserError: it does not fit the settings.
        """
        raise NotImplementedError

    def picture(self, features: Any) -> np.ndarray:
        """An example's picture, uint8 [H, W, C]; raises ValueError or IndexError for one that is broken."""
        return decode_image(features[self._image].bytes_list.value[0], self.channels)

    def stored(self, indices: Sequence[int]) -> list[Any]:
        """The stored features of the examples at `indices`: TFDS's own reading takes ten times as long."""
        try:
            records = self._records.__getitems__(indices)
        except RuntimeError as error:  # array_record's
            raise UserError(
                f"dataset {self.name}, split {self.split!r}: its files cannot be read ({error}); "
                "prepare the dataset again"
            ) from error
        return [self._parse(record).features.feature for record in records]

    def read(self, indices: Sequence[int]) -> list[Example | None]:
        """The examples at `indices`.

        Raises:
          UserError: a file or an image is broken; names dataset, split and index.
        """
        return [self._example(features, index) for features, index in zip(self.stored(indices), indices)]

    def _example(self, features: Any, index: int) -> Example | None:
        try:
            return self.decode(features, index)
        except (ValueError, IndexError) as error:
            broken = f"{self.where(index)}: broken image ({error})"
            if not self._skip:
                raise UserError(
                    f"{broken}; prepare or import the dataset again, or leave it out with "
                    "data.examples.broken='skip'"
                ) from error
            if index not in self._named:
                self._named.add(index)
                logger.warning("%s; it is left out", broken)
            return None

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


class ImageSource(PictureSource):
    """Labelled pictures: `image` uint8 [H, W, C] and `labels`."""

    def __init__(self, config: DataConfig, split: str):
        """Opens `split`; raises UserError as `PictureSource` does."""
        super().__init__(config, split)
        settings: Images = config.examples
        self.class_names = self._class_names(self.features, settings.label_feature)
        self._label = settings.label_feature

    def decode(self, features: Any, index: int) -> Example:
        """The picture and its label."""
        return {"image": self.picture(features), "labels": features[self._label].int64_list.value[0]}

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
        self._examples: list[Example | None] = [None] * len(source)
        self.name, self.split, self.class_names = source.name, source.split, source.class_names
        self.facts, self.finish = source.facts, source.finish  # type: ignore[method-assign]

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Sequence[int]) -> list[Example | None]:
        """The examples at `indices`; several threads may call this at once."""
        missing = [index for index in indices if self._examples[index] is None]
        if missing:
            for index, example in zip(missing, self._source.read(missing)):
                for value in (example or {}).values():
                    if isinstance(value, np.ndarray):
                        value.setflags(write=False)
                self._examples[index] = example
        return [
            None if example is None else dict(example) for example in map(self._examples.__getitem__, indices)
        ]


def open_source(config: DataConfig, split: str, train: bool = False) -> Source | RowSource:
    """Opens a split as a config says, with its cache; in training, with the datasets that are mixed into it.

    Raises:
      UserError: the dataset, version, split or feature is not there, or not what it has to be.
    """
    if config.examples.text:
        from jaxformer.data.text.opening import open_rows

        return open_rows(config, split, train)
    source = open_pictures(config, split, train)
    return CachedSource(source) if config.cache == "memory" else source


def open_pictures(config: DataConfig, split: str, train: bool) -> Source:
    """Opens a split of pictures, of whatever kind."""
    from jaxformer.data.detection import DetectionSource
    from jaxformer.data.segmentation import SegmentationSource

    if isinstance(config.examples, Detection):
        return DetectionSource(config, split, train)
    if isinstance(config.examples, Segmentation):
        return SegmentationSource(config, split, train)
    return ImageSource(config, split)
