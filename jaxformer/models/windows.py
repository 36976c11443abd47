"""Windows of feature maps, and the bias of attention by the distance of places on a grid."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.models.base import Layer


def to_windows(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Cuts [B, H, W, C] into windows, row by row: [B H/h W/w, h w, C]; h and w divide H and W."""
    batch, height, width, channels = x.shape
    h, w = size
    grid = x.reshape(batch, height // h, h, width // w, w, channels)
    return grid.swapaxes(2, 3).reshape(-1, h * w, channels)


def from_windows(windows: jax.Array, size: tuple[int, int], shape: tuple[int, int]) -> jax.Array:
    """The feature map [B, H, W, C] from its windows [B H/h W/w, h w, C]; `shape` is (H, W)."""
    (h, w), (height, width), channels = size, shape, windows.shape[-1]
    grid = windows.reshape(-1, height // h, width // w, h, w, channels)
    return grid.swapaxes(2, 3).reshape(-1, height, width, channels)


class GridBias(Layer):
    """A bias of attention for each head and each distance on a grid (Liu et al. 2021, Swin, equation 4)."""

    num_heads: int
    """H."""
    size: int
    """S, rows and columns of the largest grid; the table has (2 S - 1)^2 distances, row by row, and a smaller
    grid takes those that it has."""

    @nn.compact
    def __call__(self, height: int, width: int) -> jax.Array:
        """The bias float32 [1, H, T, T] of a grid's T = height x width places, row by row; queries first."""
        span = 2 * self.size - 1
        init = nn.initializers.truncated_normal(0.02)
        table = self.param("embedding", init, (span * span, self.num_heads), self.param_dtype)
        table = table.astype(jnp.float32).reshape(span, span, self.num_heads)
        # As products with ones: the gradient of a lookup adds up row by row, which is slow.
        rows, columns = (jnp.asarray(distances(n, self.size)) for n in (height, width))
        bias = jnp.einsum("xlb,abn->xlan", columns, table)
        bias = jnp.einsum("yka,xlan->nyxkl", rows, bias)
        return bias.reshape(1, self.num_heads, height * width, height * width)


def distances(places: int, size: int) -> np.ndarray:
    """One-hot float32 [n, n, 2 S - 1] of the distances of n places, query minus key, from 1 - S to S - 1."""
    steps = np.arange(places)
    return np.eye(2 * size - 1, dtype=np.float32)[steps[:, None] - steps[None, :] + size - 1]
