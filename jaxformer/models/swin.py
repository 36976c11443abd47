"""Swin, a hierarchical Transformer whose attention stays in windows that shift (Liu et al. 2021)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.config.fields import PositiveFloat, PositiveInt
from jaxformer.models.attention import SEES_ALL, Attention
from jaxformer.models.base import Dropouts, Staged, Stages
from jaxformer.models.dense import Dense
from jaxformer.models.dropout import Dropout, ResidualLayer
from jaxformer.models.head import logits_of
from jaxformer.models.masks import Mask
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.patches import PatchEmbedding, patch_map
from jaxformer.models.token_layout import Grid, TokenLayout, window_layout
from jaxformer.models.windows import GridBias, from_windows, to_windows

truncated_normal = nn.initializers.truncated_normal(0.02)


@dataclass(frozen=True)
class Windows:
    """How a feature map is cut into windows that lie half a window further down and right, or do not.

    The map is padded to whole windows and rolled up and left, so that those at the end hold places of opposite borders
    (Liu et al. 2021, figure 4); a mask keeps them apart, and padding from the rest.
    """

    shape: Grid
    """Rows and columns of the feature map."""
    side: int
    """Those of a window; a side of the map that is not longer is cut into one, which does not shift."""
    shifted: bool
    """Whether the windows are shifted."""

    @property
    def size(self) -> Grid:
        """Rows and columns of a window."""
        return min(self.side, self.shape[0]), min(self.side, self.shape[1])

    @property
    def whole(self) -> Grid:
        """Rows and columns of the padded map."""
        (rows, columns), (h, w) = self.shape, self.size
        return -(-rows // h) * h, -(-columns // w) * w

    @property
    def shift(self) -> Grid:
        """By how many rows and columns the padded map is rolled."""
        rows, columns = (self.side // 2 if self.shifted and n > self.side else 0 for n in self.shape)
        return rows, columns

    def cut(self, x: jax.Array) -> jax.Array:
        """The windows [B N, h w, D] of [B, H, W, D]."""
        x = jnp.pad(x, [(0, 0), *((0, n - m) for n, m in zip(self.whole, self.shape)), (0, 0)])
        if any(self.shift):
            x = jnp.roll(x, (-self.shift[0], -self.shift[1]), (1, 2))
        return to_windows(x, self.size)

    def joined(self, windows: jax.Array) -> jax.Array:
        """The feature map [B, H, W, D] of [B N, h w, D]."""
        x = from_windows(windows, self.size, self.whole)
        if any(self.shift):
            x = jnp.roll(x, self.shift, (1, 2))
        return x[:, : self.shape[0], : self.shape[1]]

    def mask(self, batch: int) -> Mask:
        """Which places of a window see each other, [B N, 1, h w, h w]; nothing is hidden where none is needed."""
        if not any(self.shift) and self.whole == self.shape:
            return SEES_ALL
        # 0: where it was, 1: rolled over the border, 2: padding
        rows, columns = (
            np.roll(np.where(np.arange(whole) < n, np.arange(whole) < shift, 2), -shift)
            for whole, n, shift in zip(self.whole, self.shape, self.shift)
        )
        regions = jnp.asarray(3 * rows[:, None] + columns[None, :])
        regions = to_windows(regions[None, :, :, None], self.size)[..., 0]  # [N, h w]
        allowed = (regions[:, :, None] == regions[:, None, :])[:, None]
        repeated = jnp.broadcast_to(allowed[None], (batch, *allowed.shape))
        return Mask(allowed=repeated.reshape(-1, *allowed.shape[1:]))


class SwinBlock(ResidualLayer):
    """Attention in windows and an MLP, each after a norm and around a residual (Liu et al. 2021, equation 3)."""

    num_heads: int
    """Number of attention heads."""
    mlp_dim: int
    """Hidden width of the MLP."""
    window: int
    """Rows and columns of a window; a smaller feature map is one window."""
    shifted: bool
    """Whether the windows lie half a window further down and right, if there is more than one."""
    merges: bool
    """Halves height and width first, and doubles the channels: the first block of a stage."""
    activation: ActivationName
    """Activation of the MLP."""
    norm_epsilon: float
    """Epsilon of the norms."""

    @nn.nowrap
    def token_layout(self, grids: Sequence[Grid], asks: int, sees: int, cross: bool) -> TokenLayout:
        grid = grids[-1]
        index = 1 + jnp.arange(grid[0] * grid[1]).reshape(1, *grid, 1)  # 0 is padding
        cut = Windows(grid, self.window, self.shifted).cut(index)
        return window_layout(grid, np.asarray(cut)[..., 0] - 1)

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, D] to [B, H, W, D], or to [B, H / 2, W / 2, 2 D] if it merges."""

        def norm(name: str, y: jax.Array) -> jax.Array:
            return LayerNorm(self.norm_epsilon, **self.dtypes, name=name)(y)

        inits: dict[str, Any] = {"kernel_init": truncated_normal}
        if self.merges:
            merge = Dense(2 * x.shape[-1], use_bias=False, **inits, **self.dtypes, name="merge")
            x = merge(norm("norm_merge", joined_in_fours(x)))
        x = x + self.branch(self.attend(norm("norm_1", x), deterministic), deterministic)
        mlp = Mlp(
            out_init=truncated_normal,
            **inits,
            **self.passed_on("mlp_dim", "activation", "dropout"),
            name="mlp",
        )
        return x + self.branch(mlp(norm("norm_2", x), deterministic=deterministic), deterministic)

    def attend(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Attention in the windows of [B, H, W, D]."""
        windows = Windows((x.shape[1], x.shape[2]), self.window, self.shifted)
        bias = GridBias(self.num_heads, self.window, **self.dtypes, name="relative_bias")(*windows.size)
        attention = Attention(
            self.num_heads,
            dropout=self.attention_dropout,
            kernel_init=truncated_normal,
            out_init=truncated_normal,
            **self.dtypes,
            name="attention",
        )
        y, _ = attention(windows.cut(x), mask=windows.mask(len(x)), bias=bias, deterministic=deterministic)
        return windows.joined(y)


def joined_in_fours(x: jax.Array) -> jax.Array:
    """Joins the channels of each 2x2, column by column: [B, H, W, C] to [B, ceil(H/2), ceil(W/2), 4 C]."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)])
    height, width = x.shape[1] // 2, x.shape[2] // 2
    fours = x.reshape(batch, height, 2, width, 2, channels).transpose(0, 1, 3, 4, 2, 5)
    return fours.reshape(batch, height, width, 4 * channels)


class Swin(Staged, Dropouts):
    """A Swin Transformer that classifies images."""

    stage_sizes: Stages = (2, 2, 6, 2)
    """Number of blocks in each stage; every stage but the first halves the feature map and doubles the width."""
    num_heads: tuple[PositiveInt, ...] = (3, 6, 12, 24)
    """Number of attention heads of each stage; must divide its width."""
    width: PositiveInt = 96
    """Width of the first stage."""
    patch_size: PositiveInt = 4
    """Height and width of a patch."""
    window: PositiveInt = 7
    """Rows and columns of the windows; every second block's lie half a window further. Images may have any
    size: windows that are not full are padded, and padding is not seen."""
    mlp_ratio: PositiveInt = 4
    """Hidden width of the MLPs over the width."""
    activation: ActivationName = "gelu_erf"
    """Activation of the MLPs."""
    norm_epsilon: PositiveFloat = 1e-5
    """Epsilon of every LayerNorm; 1e-5 in the authors' code and timm's."""

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        yield from self.one_a_stage("num_heads")
        for stage, heads in enumerate(self.num_heads):
            if heads > 0 and (self.width << stage) % heads:
                yield f"num_heads={list(self.num_heads)}: {heads} does not divide the width {self.width << stage}"

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs are the last stage's, after the norm."""
        stem = PatchEmbedding(self.patch_size, self.width, **self.dtypes, name="patch_embedding")
        x = patch_map(stem, image)  # [B, h, w, D]
        x = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm_stem")(x)
        x = Dropout(self.dropout)(x, deterministic=deterministic)

        def block(stage: int, i: int, **common: Any) -> nn.Module:
            return SwinBlock(
                num_heads=self.num_heads[stage - 1],
                mlp_dim=self.mlp_ratio * self.width * 2 ** (stage - 1),
                shifted=i % 2 == 1,
                merges=stage > 1 and i == 0,
                **self.passed_on("window", "activation", "norm_epsilon", "dropout", "attention_dropout")
                | common,
            )

        maps = self.staged(x, block, deterministic)
        x = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm")(maps[-1])
        features = jnp.mean(x, axis=(1, 2), dtype=jnp.float32).astype(self.dtype)  # [B, D]
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])  # [B, T, D]
        logits = logits_of(features, self.num_classes, self.param_dtype)
        return ImageOutputs(logits, features, tokens, maps)
