"""Squeeze-and-excitation (Hu et al. 2018)."""

from collections.abc import Callable

import jax
from flax import linen as nn

from jaxformer.config.fields import PositiveInt
from jaxformer.models.cnn_attention.base import CnnAttention
from jaxformer.models.cnn_attention.gates import gated, squeezed
from jaxformer.models.mlp import Mlp


class SqueezeExcitation(CnnAttention):
    """A gate for each channel, by an MLP of what all places have on average (section 3)."""

    reduction: PositiveInt = 16
    """Channels over the MLP's hidden ones."""

    @nn.compact
    def __call__(self, x: jax.Array, norm: Callable[..., nn.Module]) -> jax.Array:
        """Maps [B, H, W, C] to the same."""
        hidden = max(1, x.shape[-1] // self.reduction)
        mlp = Mlp(hidden, "relu", **self.dtypes, name="mlp")
        return gated(x, mlp(squeezed(x, (1, 2), self.dtype)))
