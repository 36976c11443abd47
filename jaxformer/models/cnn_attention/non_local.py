"""Non-local networks (Wang et al. 2018)."""

from collections.abc import Callable

import jax
from flax import linen as nn

from jaxformer.models.attention import Attention
from jaxformer.models.cnn_attention.base import CnnAttention
from jaxformer.models.mbconv import halved


class NonLocal(CnnAttention):
    """Attention from every place to all others, around a residual: the embedded Gaussian (section 3.2).

    One head of half the channels, whose logits are not scaled. The norm behind it starts as zero, so that a block
    starts as it would be without (section 4.1).
    """

    subsample: bool = True
    """Whether keys and values are of the maxima of each 2x2, which saves three quarters of the products
    (section 3.3)."""

    where = "block"

    @nn.compact
    def __call__(self, x: jax.Array, norm: Callable[..., nn.Module]) -> jax.Array:
        """Maps [B, H, W, C] to the same."""
        batch, _, _, channels = x.shape
        seen = halved(x, "max") if self.subsample else x
        attention = Attention(
            1,
            head_dim=max(1, channels // 2),
            scale=1.0,
            **self.dtypes,
            name="attention",
        )
        y, _ = attention(x.reshape(batch, -1, channels), seen.reshape(batch, -1, channels))
        return x + norm(name="norm", scale_init=nn.initializers.zeros)(y.reshape(x.shape))
