"""The convolutional block attention module (Woo et al. 2018, CBAM)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.config.fields import PositiveInt
from jaxformer.models.base import OddInt
from jaxformer.models.cnn_attention.base import CnnAttention
from jaxformer.models.cnn_attention.gates import gated, largest, squeezed
from jaxformer.models.conv import Conv
from jaxformer.models.mlp import Mlp


class CBAM(CnnAttention):
    """A gate for each channel, then one for each place, both by means and maxima (section 3).

    The norm behind the convolution over places is of the authors' code; the paper does not mention it.
    """

    reduction: PositiveInt = 16
    """Channels over the hidden ones of the MLP that gives channels their gates."""
    kernel_size: OddInt = 7
    """Of the convolution that gives places theirs, odd."""
    use_bias: bool = True
    """Whether the MLP has biases: yes in the authors' code, no in timm's."""

    @nn.compact
    def __call__(self, x: jax.Array, norm: Callable[..., nn.Module]) -> jax.Array:
        """Maps [B, H, W, C] to the same."""
        hidden = max(1, x.shape[-1] // self.reduction)
        mlp = Mlp(hidden, "relu", use_bias=self.use_bias, **self.dtypes, name="mlp")
        places = x.reshape(x.shape[0], -1, x.shape[3])  # [B, H W, C]
        of_channels = mlp(squeezed(places, 1, self.dtype)) + mlp(largest(places, 1))
        x = gated(x, of_channels[:, None])
        both = jnp.concatenate([squeezed(x, 3, self.dtype), largest(x, 3)], axis=3)
        return gated(x, norm(name="norm")(Conv(1, self.kernel_size, **self.dtypes, name="conv")(both)))
