"""The datasets that are there."""

import sys
from dataclasses import dataclass

from jaxformer.verbs.options import Verb, flag


@dataclass(frozen=True, kw_only=True)
class OfData(Verb):
    """A verb that looks for datasets."""

    data_dir: str | None = flag(None, "DIR")
    """The TFDS folder (default: TFDS_DATA_DIR, or ~/tensorflow_datasets)."""


@dataclass(frozen=True, kw_only=True)
class DataList(OfData):
    """List the datasets that are prepared."""

    def __call__(self) -> int:
        from jaxformer.importing import dataset_table

        sys.stdout.write(dataset_table(self.data_dir) + "\n")
        return 0
