"""What is trained in the place of a model's parameters: the contract, adapters (Houlsby et al. 2019), prefixes (Li and
Liang 2021), prompts (Lester et al. 2021). LoRA, which changes kernels, is in `lora.py`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxformer.config.fields import PositiveInt
from jaxformer.optim.base import Optimizer
from jaxformer.paths import leaves_by_path, matches, with_leaves

Tree = Any


@dataclass(frozen=True)
class Adapter:
    """The contract; the methods here are those of one that changes nothing."""

    own: ClassVar[tuple[str, ...]] = ()
    """Patterns of the parameters that it brings, and of those that are trained with them."""
    sets: ClassVar[tuple[str, str] | None] = None
    """The field of a model (`Adaptable`) that it sets, and its own with the value; None: it is no part of a model."""

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
        return {} if self.sets is None else {self.sets[0]: getattr(self, self.sets[1])}

    def problems_with(self, params: Tree) -> Iterator[str]:
        """Yields a line for everything that does not fit the model's parameters.

        Args:
          params: those of the model, a tree of arrays or ShapeDtypeStructs.
        """
        if self.sets is not None and not any(matches(self.own[0], path) for path in leaves_by_path(params)):
            yield f'name="{self.sets[0]}": this model takes none; take "lora"'

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


@dataclass(frozen=True)
class Bottleneck(Adapter):
    """Two layers with few units between, behind each branch of every block; norms are trained, too (section 2.1)."""

    sets = "bottleneck", "width"
    own = ("adapter_[^/]*", "([^/]*_)?norm(_[^/]*)?")

    width: PositiveInt = 64
    """Number of units between."""


@dataclass(frozen=True)
class Prefix(Adapter):
    """Keys and values of no token in every attention, without the network that makes them there (section 4.3)."""

    sets = "prefix", "length"
    own = ("prefix_(key|value)",)

    length: PositiveInt = 16
    """How many."""


@dataclass(frozen=True)
class Prompt(Adapter):
    """Vectors in front of the embedded tokens (section 2); of a ViT behind the class token (Jia et al. 2022, section
    3.2, the shallow form)."""

    sets = "prompt", "length"
    own = ("prompt_tokens",)

    length: PositiveInt = 20
    """How many; texts have so many tokens less."""

    def added(self, params: Tree, key: jax.Array) -> Tree:
        """The parameters of the model; a prompt begins as rows of the table of tokens, where there is one.

        They are drawn at random from all, those of section 3.2 ("sampled vocabulary") from the commonest.
        """
        leaves, begun = leaves_by_path(params), {}
        for path, leaf in leaves.items():
            table = leaves.get(f"{path.removesuffix('prompt_tokens')}token_embedding/embedding")
            if matches("prompt_tokens", path) and table is not None:
                rows = jax.random.randint(key, (self.length,), 0, len(table))
                begun[path] = jnp.take(table, rows, axis=0)[None].astype(leaf.dtype)
        return with_leaves(params, begun)
