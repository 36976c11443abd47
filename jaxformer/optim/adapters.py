"""What is trained in the place of a model's parameters: the contract, adapters (Houlsby et al. 2019), prefixes (Li and
Liang 2021). LoRA, which changes kernels, is in `lora.py`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from jaxformer.config.fields import PositiveInt
from jaxformer.optim.base import Optimizer
from jaxformer.paths import leaves_by_path, matches

Tree = Any


@dataclass(frozen=True)
class Adapter:
    """The contract; the methods here are those of one that changes nothing."""

    own: ClassVar[tuple[str, ...]] = ()
    """Patterns of the parameters that it brings, and of those that are trained with them."""

    def trained(self, optimizer: Optimizer, heads: tuple[str, ...]) -> tuple[str, ...]:
        """The patterns of all that is trained, for `optimizer.train_only`.

        Args:
          optimizer: as the config has it.
          heads: the first names of the parameters of the model's heads.
        """
        given = tuple(pattern for pattern in optimizer.train_only if pattern not in self.own)
        return (*(given or ((f"^({'|'.join(heads)})",) if heads else ())), *self.own)

    @property
    def of_model(self) -> dict[str, int]:
        """The fields of a model that it sets, in the model and in the models in its fields."""
        return {}

    def problems_with(self, params: Tree) -> Iterator[str]:
        """Yields a line for everything that does not fit the model's parameters.

        Args:
          params: those of the model, a tree of arrays or ShapeDtypeStructs.
        """
        yield from ()

    def added(self, params: Tree, key: jax.Array) -> Tree:
        """The parameters of a train state.

        Args:
          params: those of the model.
          key: a random key.
        """
        return params

    def merged(self, params: Tree) -> Tree:
        """The parameters that the model is applied with, from those of a train state."""
        return params


class Inside(Adapter):
    """An adapter that is a part of a model's blocks: its number is a field of the model (`Adaptable`)."""

    field: ClassVar[str]
    """The field."""
    number: ClassVar[str]
    """The field here that it has the value of."""

    @property
    def of_model(self) -> dict[str, int]:
        return {self.field: getattr(self, self.number)}

    def problems_with(self, params: Tree) -> Iterator[str]:
        if not any(matches(self.own[0], path) for path in leaves_by_path(params)):
            name = type(self).__name__.lower()
            yield f'name="{name}": this model has no blocks that take one; take "lora"'


@dataclass(frozen=True)
class Bottleneck(Inside):
    """Two layers with few units between, behind each branch of every block; norms are trained, too (section 2.1)."""

    field, number = "bottleneck", "width"
    own = ("adapter_[^/]*", "([^/]*_)?norm(_[^/]*)?")

    width: PositiveInt = 64
    """Number of units between."""


@dataclass(frozen=True)
class Prefix(Inside):
    """Keys and values of no token in every attention, without the network that makes them there (section 4.3)."""

    field, number = "prefix", "length"
    own = ("prefix_(key|value)",)

    length: PositiveInt = 16
    """How many."""
