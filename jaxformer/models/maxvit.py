"""MaxViT: convolution, attention in blocks and attention on a grid in every layer (Tu et al. 2022)."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.config.fields import PositiveFloat, PositiveInt
from jaxformer.models.attention import SEES_ALL, Attention
from jaxformer.models.base import Stages
from jaxformer.models.conv_attention import ConvAttentionModel
from jaxformer.models.dropout import ResidualLayer
from jaxformer.models.masks import Mask
from jaxformer.models.mbconv import MBConv, MBConvSettings
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.token_layout import Grid, TokenLayout, window_layout
from jaxformer.models.windows import GridBias, from_windows, to_windows

# As google-research/maxvit has it.
MBCONV = MBConvSettings(activation="gelu_tanh", padding="same", norm_epsilon=1e-3)


def to_grid(x: jax.Array, size: Grid) -> jax.Array:
    """Groups the places of [B, H, W, C] that lie H / h rows and W / w columns apart: [B H/h W/w, h w, C]."""
    batch, height, width, channels = x.shape
    h, w = size
    grid = x.reshape(batch, h, height // h, w, width // w, channels)
    return grid.transpose(0, 2, 4, 1, 3, 5).reshape(-1, h * w, channels)


def from_grid(groups: jax.Array, size: Grid, shape: Grid) -> jax.Array:
    """The feature map [B, H, W, C] from its groups; `shape` is (H, W)."""
    (h, w), (height, width), channels = size, shape, groups.shape[-1]
    grid = groups.reshape(-1, height // h, width // w, h, w, channels)
    return grid.transpose(0, 3, 1, 4, 2, 5).reshape(-1, height, width, channels)


class PartitionBlock(ResidualLayer):
    """Attention within the parts of a feature map and an MLP, each after a norm and around a residual.

    Feature maps that are no whole number of parts are padded, and padding is not seen.
    """

    parts: Literal["block", "grid"]
    """ "block": places that lie together; "grid": places that lie equally far apart (Tu et al. 2022, section
    3.2)."""
    size: int
    """Rows and columns of a part; a smaller feature map is one part."""
    head_dim: int
    """Size of a head."""
    mlp_ratio: int
    """Hidden width of the MLP over the width."""
    activation: ActivationName
    """Activation of the MLP."""
    norm_epsilon: float
    """Epsilon of the norms."""

    @nn.nowrap
    def token_layout(self, grids: Sequence[Grid], asks: int, sees: int, cross: bool) -> TokenLayout:
        grid = grids[-1]
        index = 1 + jnp.arange(grid[0] * grid[1]).reshape(1, *grid, 1)  # 0 is padding
        return window_layout(grid, np.asarray(self.cut(index))[..., 0] - 1)

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, D] to the same."""
        y = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm_1")(x)
        x = x + self.branch(self.attend(y, deterministic), deterministic)
        y = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm_2")(x)
        mlp = Mlp(self.mlp_ratio * x.shape[-1], self.activation, self.dropout, **self.dtypes, name="mlp")
        return x + self.branch(mlp(y, deterministic=deterministic), deterministic)

    @nn.nowrap
    def shapes(self, height: int, width: int) -> tuple[Grid, Grid]:
        """Rows and columns of a part, and of the map padded to whole parts."""
        size = (min(self.size, height), min(self.size, width))
        return size, (-(-height // size[0]) * size[0], -(-width // size[1]) * size[1])

    @nn.nowrap
    def cut(self, x: jax.Array) -> jax.Array:
        """The parts [B N, h w, D] of [B, H, W, D]; padding is 0."""
        size, whole = self.shapes(*x.shape[1:3])
        x = jnp.pad(x, [(0, 0), (0, whole[0] - x.shape[1]), (0, whole[1] - x.shape[2]), (0, 0)])
        return (to_windows if self.parts == "block" else to_grid)(x, size)

    def attend(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Attention in the parts of [B, H, W, D]."""
        batch, height, width, channels = x.shape
        size, whole = self.shapes(height, width)
        mask = SEES_ALL
        if whole != (height, width):
            keys = self.cut(jnp.ones((1, height, width, 1), bool))[..., 0]  # [H/h W/w, h w]
            mask = Mask(keys=jnp.tile(keys, (batch, 1)))
        heads = channels // self.head_dim
        bias = GridBias(heads, self.size, **self.dtypes, name="relative_bias")(*size)
        attention = Attention(
            heads, head_dim=self.head_dim, dropout=self.attention_dropout, **self.dtypes, name="attention"
        )
        y, _ = attention(self.cut(x), mask=mask, bias=bias, deterministic=deterministic)
        join = from_windows if self.parts == "block" else from_grid
        return join(y, size, whole)[:, :height, :width]


class MaxViTBlock(ResidualLayer):
    """MBConv, attention in blocks, attention on a grid (Tu et al. 2022, figure 2)."""

    channels: int
    """Number of channels that come out."""
    stride: int
    """1, or 2 to halve the feature map."""
    mbconv: MBConvSettings
    """The convolutional part."""
    partition: dict[str, Any]
    """Fields of both `PartitionBlock`s."""

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), channels]."""
        rate: dict[str, Any] = {"drop_path": self.drop_path}
        conv = MBConv(
            self.channels,
            self.stride,
            self.mbconv,
            **rate,
            axis_name=self.axis_name,
            **self.dtypes,
            name="mbconv",
        )
        x = conv(x, deterministic)
        x = PartitionBlock("block", **self.partition, **rate, name="block")(x, deterministic)
        return PartitionBlock("grid", **self.partition, **rate, name="grid")(x, deterministic)


class MaxViT(ConvAttentionModel):
    """A MaxViT that classifies images, of any size. The default is MaxViT-T."""

    stage_sizes: Stages = (2, 2, 5, 2)
    """Number of blocks in each stage; every stage halves the feature map, and the stem the image."""
    widths: tuple[PositiveInt, ...] = (64, 128, 256, 512)
    """Number of channels of each stage."""
    stem_bias: bool = True
    """Whether the stem's convolutions have biases."""
    window: PositiveInt = 7
    """Rows and columns of the blocks and of the grid that attention stays in; a 32nd of the image as
    published."""
    representation: PositiveInt | None = 512
    """Width of a tanh layer between pooling and head; None: no layer, and the norm stands before the
    pooling."""
    mbconv: MBConvSettings = MBCONV
    """The convolutional blocks."""
    activation: ActivationName = "gelu_tanh"
    """Activation of the MLPs."""
    norm_epsilon: PositiveFloat = 1e-5
    """Epsilon of LayerNorms."""

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        yield from self.one_a_stage("widths")
        for width in dict.fromkeys(self.widths):
            if self.head_dim > 0 and width % self.head_dim:
                yield f"head_dim={self.head_dim}: does not divide the width {width}; use one that does"

    def block(self, stage: int, i: int, **common: Any) -> nn.Module:
        partition = {"size": self.window, **self.attention_fields()}
        channels, stride = self.widths[stage - 1], 1 if i else 2
        return MaxViTBlock(channels, stride, self.mbconv, partition, axis_name=self.axis_name, **common)
