"""The contract of a kind of examples: what a config says of it, and how a split is opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxformer.data.base import DatasetConfig, RowSource, Source, Spec
from jaxformer.data.transform import Transform


@dataclass(frozen=True)
class Kind:
    """What becomes of a dataset's examples. Its fields are its settings, which `data.examples` sets."""

    kind: ClassVar[str]
    """Its name in configs."""
    modality: ClassVar[Literal["image", "text"]] = "image"
    """What the examples are; texts come in rows of tokens."""
    tokenized: ClassVar[bool] = False
    """Whether there is text in them, which a tokenizer makes into tokens."""
    varying: ClassVar[bool] = False
    """Whether rows differ in length."""
    letterboxed: ClassVar[bool] = False
    """Whether images stand in a frame of one size, with boxes or masks that move with them."""

    @property
    def asked(self) -> bool:
        """Whether texts about images have prompts in front, such as questions."""
        return False

    @property
    def table_columns(self) -> dict[str, str]:
        """The columns that a table of a user's own needs, by the field that names each; {}: it cannot be a table."""
        return {}

    @property
    def strata(self) -> str | None:
        """The dataset's feature with an example's label, of which all folds get the same share; None: there is none."""
        return None

    def open(self, config: DatasetConfig, split: str, train: bool) -> Source | RowSource:
        """Opens a split.

        Args:
          config: which dataset it is.
          split: the split, with its slice.
          train: whether it is for training.

        Raises:
          UserError: the dataset, version, split or a feature is not there, or not what it has to be.
        """
        raise NotImplementedError

    def nominal_spec(self, image: tuple[int, int, int], transforms: Sequence[Transform]) -> Spec | None:
        """The arrays of a training batch of a dataset that is not here; None: only the dataset tells them.

        Args:
          image: height, width and channels of the images that the transforms give.
          transforms: of the training.
        """
        return None
