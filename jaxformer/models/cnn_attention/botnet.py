"""The self-attention of bottleneck Transformers (Srinivas et al. 2021, BoTNet)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.config.fields import PositiveInt
from jaxformer.models.attention import ATTENTION_MAPS, attend, attention, attention_weights
from jaxformer.models.cnn_attention.base import CnnAttention
from jaxformer.models.dense import HeadsIn


class BottleneckAttention(CnnAttention):
    """Self-attention with relative positions along both directions, in a 3x3 convolution's place (figure 4).

    The tables of positions make the feature map's size part of the parameters. There is no projection behind it: the
    bottleneck's last 1x1 is one.
    """

    num_heads: PositiveInt = 4
    """H, which divides the channels."""

    where = "inner"

    @nn.compact
    def __call__(self, x: jax.Array, norm: Callable[..., nn.Module]) -> jax.Array:
        """Maps [B, H, W, C] to the same; the weights are sown as those of `models.attention.Attention`."""
        batch, height, width, channels = x.shape
        head_dim = channels // self.num_heads
        tokens = x.reshape(batch, height * width, channels)

        def projected(name: str) -> jax.Array:
            return HeadsIn(self.num_heads, head_dim, use_bias=False, **self.dtypes, name=name)(
                tokens
            )  # [B, H, T, Dh]

        def table(name: str, size: int) -> jax.Array:
            init = nn.initializers.normal(head_dim**-0.5)
            values = self.param(
                f"{name}_position_embedding", init, (2 * size - 1, head_dim), self.param_dtype
            )
            return values.astype(self.dtype)

        query, key, value = projected("query"), projected("key"), projected("value")
        query = query * jnp.asarray(head_dim**-0.5, query.dtype)
        bias = relative_logits(query, table("row", height), table("column", width))
        if self.is_mutable_collection(ATTENTION_MAPS) and not self.is_initializing():
            weights = attention_weights(query, key, bias=bias, scale=1.0)
            self.put_variable(ATTENTION_MAPS, "weights", weights)
            attended = attend(weights, value)
        else:
            attended = attention(query, key, value, bias=bias, scale=1.0)
        return attended.swapaxes(1, 2).reshape(x.shape)


def relative_logits(query: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """What the distance of two places adds to their logit (Srinivas et al. 2021, figure 4).

    Args:
      query: [B, H, T, Dh], T places row by row.
      rows: [2 height - 1, Dh], by the key's row minus the query's, from 1 - height on.
      columns: [2 width - 1, Dh], likewise.

    Returns:
      [B, H, T, T].
    """
    height, width = (len(rows) + 1) // 2, (len(columns) + 1) // 2
    batch, heads, places, head_dim = query.shape
    grid = query.reshape(batch, heads, height, width, head_dim)
    of_rows = jnp.einsum("bhyxd,yud->bhyxu", grid, rows[distances(height)])
    of_columns = jnp.einsum("bhyxd,xvd->bhyxv", grid, columns[distances(width)])
    shape = (batch, heads, height, width, height, width)
    both = jnp.broadcast_to(of_rows[..., None], shape) + jnp.broadcast_to(of_columns[..., None, :], shape)
    return both.reshape(batch, heads, places, places)


def distances(size: int) -> np.ndarray:
    """int [query, key]: where the embedding of each distance stands in its table."""
    places = np.arange(size)
    return places[None, :] - places[:, None] + size - 1
