"""What `jaxformer data show` puts before people of a dataset of text."""

from typing import Any

import numpy as np

from jaxformer.data.catalog import find_dataset, open_builder
from jaxformer.data.config import DataConfig
from jaxformer.data.text.records import Records, class_names, inner
from jaxformer.errors import UserError

LONGEST = 1000  # letters of a text that are shown


def has_images(config: DataConfig) -> bool:
    """Whether a dataset has pictures.

    Raises:
      UserError: it is not there.
    """
    import tensorflow_datasets as tfds

    features = open_builder(find_dataset(config)).info.features
    return any(isinstance(feature, tfds.features.Image) for feature in features.values())


def examples_as_text(config: DataConfig, split: str, count: int) -> str:
    """Some examples of a split, at even distances from the whole of it: a line a feature, an empty line between.

    Raises:
      UserError: the dataset or the split cannot be read.
    """
    if count < 1:
        raise UserError(f"count {count}: must be at least 1")
    records = Records(config, split)
    shown = []
    for index in np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int).tolist():
        record = records.read([index])[0]
        lines = [f"  {name}: {value_of(records, record[name], name)}" for name in sorted(record)]
        shown.append("\n".join([f"{records.name}, {split}, index {index}", *lines]))
    return "\n\n".join(shown)


def value_of(records: Records, value: Any, name: str) -> str:
    """A feature's value of one example: texts as they are, classes by their names."""
    feature = dict(records.features.items()).get(name)
    numbers = [*value.int64_list.value, *value.float_list.value]
    names, _ = class_names(inner(feature) or feature)
    if names is not None:
        shown = [names[number] if 0 <= number < len(names) else str(number) for number in numbers]
    else:
        shown = [f"{number:g}" if isinstance(number, float) else str(number) for number in numbers]
    text = " ".join([*(part.decode("utf-8", "replace") for part in value.bytes_list.value), *shown])
    if len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    return text.strip("\n").replace("\n", "\n    ")
