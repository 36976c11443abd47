"""What image models of stages have in common: ConvNeXt, CvT, Swin, CoAtNet and MaxViT."""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import jax

from jaxformer.config.fields import PositiveFloat, PositiveInt
from jaxformer.models.base import Dropouts, Layer, Staged
from jaxformer.models.dense import Initializer, xavier
from jaxformer.models.dropout import ResidualLayer
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm


class StagedLayer(Layer, kw_only=True):
    """The fields that a model of stages and its blocks share."""

    mlp_ratio: PositiveInt = 4
    """Hidden width of the MLPs over the width."""
    activation: ActivationName = "gelu_erf"
    """Activation of the MLPs."""
    norm_epsilon: PositiveFloat = 1e-5
    """Epsilon of every LayerNorm."""

    def normed(self, x: jax.Array, name: str) -> jax.Array:
        """`x` [..., D] after a LayerNorm of this name."""
        return LayerNorm(self.norm_epsilon, **self.dtypes, name=name)(x)


class StagedTransformer(StagedLayer, Staged, Dropouts):
    """A classifier of images whose stages are blocks with attention."""


class StagedBlock(StagedLayer, ResidualLayer, kw_only=True):
    """A block that attends or convolves and has an MLP, after norms and around residuals."""

    mlp_class: ClassVar[type[Mlp]] = Mlp

    kernel_init: Initializer = xavier
    """Initializer of all kernels of the attention and the MLP."""

    @property
    def inits(self) -> dict[str, Any]:
        """The initializers and dtypes of the attention and the MLP, as keyword arguments for them."""
        return {"kernel_init": self.kernel_init, "out_init": self.kernel_init, **self.dtypes}

    def mapped(self, x: jax.Array, deterministic: bool, dropout: float = 0.0) -> jax.Array:
        """The result of the MLP, [..., D]; `dropout` is the rate inside it."""
        mlp = self.mlp_class(self.mlp_ratio * x.shape[-1], self.activation, dropout, **self.inits, name="mlp")
        return mlp(x, deterministic=deterministic)

    def with_mlp(self, x: jax.Array, deterministic: bool, dropout: float) -> jax.Array:
        """`x` [B, ..., D] plus the branch of the MLP, which sees its norm."""
        y = self.mapped(self.normed(x, "norm_2"), deterministic, dropout)
        return x + self.branch(y, deterministic)


def heads_problems(num_heads: tuple[int, ...], widths: Iterable[int]) -> Iterator[str]:
    """Yields a line for every stage whose number of heads does not divide its width."""
    for heads, width in zip(num_heads, widths):
        if heads > 0 and width % heads:
            yield f"num_heads={list(num_heads)}: {heads} does not divide the stage's width of {width}"
