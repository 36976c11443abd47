"""Swin, a hierarchical Transformer whose attention stays in windows that shift (Liu et al. 2021)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.models.attention import SEES_ALL, Attention
from jaxformer.models.dense import Dense
from jaxformer.models.drop_path import drop_path
from jaxformer.models.dropout import Dropout
from jaxformer.models.head import logits_of
from jaxformer.models.masks import Mask
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.patches import Grid, PatchEmbedding, patch_map
from jaxformer.models.problems import classes, epsilons, rates, sizes, stages
from jaxformer.models.windows import GridBias, from_windows, to_windows

Dtype = Any
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


class SwinBlock(nn.Module):
    """Attention in windows and an MLP, each after a norm and around a residual (Liu et al. 2021, equation 3)."""

    num_heads: int
    """Attention heads."""
    mlp_dim: int
    """The MLP's hidden width."""
    window: int
    """Rows and columns of a window; a smaller feature map is one window."""
    shifted: bool
    """Whether the windows lie half a window further down and right, if there is more than one."""
    merges: bool
    """Halves height and width first, and doubles the channels: the first block of a stage."""
    drop_path: float
    """The rate of dropped paths."""
    activation: ActivationName
    """The MLP's."""
    norm_epsilon: float
    """Of the norms."""
    dropout: float
    """Of each branch's result, and in the MLP."""
    attention_dropout: float
    """Of the attention weights."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, D] to [B, H, W, D], or to [B, H / 2, W / 2, 2 D] if it merges."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def norm(name: str, y: jax.Array) -> jax.Array:
            return LayerNorm(self.norm_epsilon, **dtypes, name=name)(y)

        def branch(y: jax.Array) -> jax.Array:
            y = Dropout(self.dropout)(y, deterministic=deterministic)
            if self.drop_path and not deterministic:
                y = drop_path(y, self.drop_path, self.make_rng("dropout"))
            return y

        if self.merges:
            merge = Dense(
                2 * x.shape[-1], use_bias=False, kernel_init=truncated_normal, **dtypes, name="merge"
            )
            x = merge(norm("norm_merge", joined_in_fours(x)))
        x = x + branch(self.attend(norm("norm_1", x), deterministic))
        mlp = Mlp(
            self.mlp_dim,
            self.activation,
            self.dropout,
            True,
            truncated_normal,
            truncated_normal,
            **dtypes,
            name="mlp",
        )
        return x + branch(mlp(norm("norm_2", x), deterministic=deterministic))

    def attend(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Attention in the windows of [B, H, W, D]."""
        windows = Windows((x.shape[1], x.shape[2]), self.window, self.shifted)
        bias = GridBias(self.num_heads, self.window, self.param_dtype, name="relative_bias")(*windows.size)
        attention = Attention(
            self.num_heads,
            dropout=self.attention_dropout,
            kernel_init=truncated_normal,
            out_init=truncated_normal,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
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


class Swin(nn.Module):
    """A Swin Transformer that classifies images."""

    stage_sizes: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks in each stage; every stage but the first halves the feature map and doubles the width."""
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    """Attention heads of each stage; must divide its width."""
    width: int = 96
    """Of the first stage."""
    patch_size: int = 4
    """Height and width of a patch."""
    window: int = 7
    """Rows and columns of the windows; every second block's lie half a window further. Images may have any
    size: windows that are not full are padded, and padding is not seen."""
    mlp_ratio: int = 4
    """The MLPs' hidden width over the width."""
    num_classes: int = 1000
    """K; 0 has no head."""
    activation: ActivationName = "gelu_erf"
    """The MLPs'."""
    norm_epsilon: float = 1e-5
    """Of every LayerNorm; 1e-5 in the authors' code and timm's."""
    dropout: float = 0.0
    """After the embedding, after attention and in the MLPs."""
    attention_dropout: float = 0.0
    """Of attention weights."""
    drop_path: float = 0.0
    """Stochastic depth: the last block's rate, growing linearly from 0."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        """Yields a line for every impossible combination of fields."""
        yield from stages(self)
        yield from sizes(self, "width", "patch_size", "window", "mlp_ratio")
        yield from classes(self)
        yield from rates(self, "dropout", "attention_dropout", "drop_path")
        yield from epsilons(self)
        if len(self.num_heads) != len(self.stage_sizes):
            yield f"num_heads={list(self.num_heads)}: expected a number for each of {len(self.stage_sizes)} stages"
        for stage, heads in enumerate(self.num_heads):
            if heads < 1 or (self.width << stage) % heads:
                yield f"num_heads={list(self.num_heads)}: {heads} does not divide the width {self.width << stage}"

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs are the last stage's, after the norm."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        drop_rates = iter(np.linspace(0, self.drop_path, sum(self.stage_sizes)))
        stem = PatchEmbedding(self.patch_size, self.width, **dtypes, name="patch_embedding")
        x = patch_map(stem, image)
        x = LayerNorm(self.norm_epsilon, **dtypes, name="norm_stem")(x)
        x = Dropout(self.dropout)(x, deterministic=deterministic)
        maps = []
        for stage, (size, heads) in enumerate(zip(self.stage_sizes, self.num_heads), 1):
            for i in range(size):
                block = SwinBlock(
                    num_heads=heads,
                    mlp_dim=self.mlp_ratio * self.width * 2 ** (stage - 1),
                    window=self.window,
                    shifted=i % 2 == 1,
                    merges=stage > 1 and i == 0,
                    drop_path=float(next(drop_rates)),
                    activation=self.activation,
                    norm_epsilon=self.norm_epsilon,
                    dropout=self.dropout,
                    attention_dropout=self.attention_dropout,
                    **dtypes,
                    name=f"stage_{stage}_block_{i}",
                )
                x = block(x, deterministic)
            maps.append(x)
        x = LayerNorm(self.norm_epsilon, **dtypes, name="norm")(x)
        features = jnp.mean(x, axis=(1, 2), dtype=jnp.float32).astype(self.dtype)  # [B, D]
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        logits = logits_of(features, self.num_classes, self.param_dtype)
        return ImageOutputs(logits, features, tokens, tuple(maps))
