"""Attention in windows of feature maps, and its bias by the distance of places on a grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.models.attention import SEES_ALL, Attention
from jaxformer.models.base import Layer
from jaxformer.models.masks import Mask
from jaxformer.models.staged import StagedBlock
from jaxformer.models.token_layout import Grid, TokenLayout, window_layout

WindowKind: TypeAlias = Literal["block", "shifted", "grid"]
# Orders of axes: from a map whose rows and columns are split in two to [B, down, across, h, w, D], and back.
TO_WINDOWS = {"block": (0, 1, 3, 2, 4, 5), "shifted": (0, 1, 3, 2, 4, 5), "grid": (0, 2, 4, 1, 3, 5)}
FROM_WINDOWS = {"block": (0, 1, 3, 2, 4, 5), "shifted": (0, 1, 3, 2, 4, 5), "grid": (0, 3, 1, 4, 2, 5)}


@dataclass(frozen=True)
class Windows:
    """How a feature map is cut into windows.

    The map is padded to whole windows. "shifted" ones lie half a window further down and right than each "block": the
    map is rolled up and left, so that the windows at the end hold places of opposite borders (Liu et al. 2021, figure
    4). The places of a "grid" window lie equally far apart all over the map (Tu et al. 2022, section 3.2).
    """

    shape: Grid
    """Rows and columns of the feature map."""
    side: int
    """Rows and columns of a window; a side of the map that is not longer is cut into one, which does not shift."""
    kind: WindowKind
    """Which places of the map are a window."""

    @property
    def size(self) -> Grid:
        """Rows and columns of a window."""
        return min(self.side, self.shape[0]), min(self.side, self.shape[1])

    @property
    def counts(self) -> Grid:
        """How many windows there are along the rows and the columns of the padded map."""
        return -(-self.shape[0] // self.size[0]), -(-self.shape[1] // self.size[1])

    @property
    def shift(self) -> Grid:
        """By how many rows and columns the padded map is rolled."""
        half = self.side // 2 if self.kind == "shifted" else 0
        return half * (self.shape[0] > self.side), half * (self.shape[1] > self.side)

    def cut(self, x: jax.Array) -> jax.Array:
        """The windows [B N, h w, D] of [B, H, W, D], row by row; padding is 0."""
        (h, w), (down, across) = self.size, self.counts
        x = jnp.pad(x, [(0, 0), (0, down * h - x.shape[1]), (0, across * w - x.shape[2]), (0, 0)])
        if any(self.shift):
            x = jnp.roll(x, (-self.shift[0], -self.shift[1]), (1, 2))
        sides = (h, down, w, across) if self.kind == "grid" else (down, h, across, w)
        return x.reshape(len(x), *sides, -1).transpose(TO_WINDOWS[self.kind]).reshape(-1, h * w, x.shape[-1])

    def joined(self, windows: jax.Array) -> jax.Array:
        """The feature map [B, H, W, D] of the windows [B N, h w, D]."""
        (h, w), (down, across) = self.size, self.counts
        x = windows.reshape(-1, down, across, h, w, windows.shape[-1]).transpose(FROM_WINDOWS[self.kind])
        x = x.reshape(-1, down * h, across * w, windows.shape[-1])
        if any(self.shift):
            x = jnp.roll(x, self.shift, (1, 2))
        return x[:, : self.shape[0], : self.shape[1]]

    def mask(self, batch: int) -> Mask:
        """Which places of a window see each other: those of the same region, as segments [B N, h w].

        Padding is not seen, nor are places from beyond a border; nothing is hidden where there are none.
        """
        (h, w), (down, across) = self.size, self.counts
        if not any(self.shift) and (down * h, across * w) == self.shape:
            return SEES_ALL
        # Those that are rolled over a border.
        rows, columns = (np.arange(n) < shift for n, shift in zip(self.shape, self.shift))
        regions = jnp.asarray(1 + 2 * rows[:, None] + columns[None, :])  # padding is 0
        regions = self.cut(regions[None, :, :, None])[..., 0]  # [N, h w]
        return Mask(segments=jnp.tile(regions, (batch, 1)))

    def layout(self) -> TokenLayout:
        """Where the tokens of the windows lie on the map."""
        places = 1 + jnp.arange(self.shape[0] * self.shape[1]).reshape(1, *self.shape, 1)
        return window_layout(self.shape, np.asarray(self.cut(places))[..., 0] - 1)


class GridBias(Layer):
    """A bias of attention for each head and each distance on a grid (Liu et al. 2021, Swin, equation 4)."""

    num_heads: int
    """Number of heads H."""
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


class WindowBlock(StagedBlock):
    """Attention in the windows of a feature map and an MLP, each after a norm and around a residual."""

    num_heads: int
    """Number of attention heads."""
    window: int
    """Rows and columns of a window; a smaller feature map is one window."""
    windows: WindowKind
    """Which places of the map are a window; see `Windows`."""

    def token_layout(self, grids: Sequence[Grid], asks: int, sees: int, cross: bool) -> TokenLayout:
        return Windows(grids[-1], self.window, self.windows).layout()

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, D] to the same."""
        windows = Windows((x.shape[1], x.shape[2]), self.window, self.windows)
        bias = GridBias(self.num_heads, self.window, **self.dtypes, name="relative_bias")(*windows.size)
        attention = Attention(self.num_heads, dropout=self.attention_dropout, **self.inits, name="attention")
        y = windows.cut(self.normed(x, "norm_1"))  # [B N, T, D]
        y, _ = attention(y, mask=windows.mask(len(x)), bias=bias, deterministic=deterministic)
        x = x + self.branch(windows.joined(y), deterministic)
        return self.with_mlp(x, deterministic, self.dropout)
