"""MaxViT: convolution, attention in blocks and attention on a grid in every layer (Tu et al. 2022)."""

from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.models.attention import SEES_ALL, Attention
from jaxformer.models.drop_path import drop_path
from jaxformer.models.dropout import Dropout
from jaxformer.models.head import logits_of
from jaxformer.models.masks import Mask
from jaxformer.models.mbconv import MBConv, MBConvSettings, stem, summary
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.problems import classes, epsilons, rates, sizes, stages
from jaxformer.models.windows import GridBias, from_windows, to_windows

Dtype = Any
Shape = tuple[int, int]
# As google-research/maxvit has it.
MBCONV = MBConvSettings(activation="gelu_tanh", padding="same", norm_epsilon=1e-3)


def to_grid(x: jax.Array, size: Shape) -> jax.Array:
    """Groups the places of [B, H, W, C] that lie H / h rows and W / w columns apart: [B H/h W/w, h w, C]."""
    batch, height, width, channels = x.shape
    h, w = size
    grid = x.reshape(batch, h, height // h, w, width // w, channels)
    return grid.transpose(0, 2, 4, 1, 3, 5).reshape(-1, h * w, channels)


def from_grid(groups: jax.Array, size: Shape, shape: Shape) -> jax.Array:
    """The feature map [B, H, W, C] from its groups; `shape` is (H, W)."""
    (h, w), (height, width), channels = size, shape, groups.shape[-1]
    grid = groups.reshape(-1, height // h, width // w, h, w, channels)
    return grid.transpose(0, 3, 1, 4, 2, 5).reshape(-1, height, width, channels)


class PartitionBlock(nn.Module):
    """Attention within the parts of a feature map and an MLP, each after a norm and around a residual.

    Feature maps that are no whole number of parts are padded, and padding is not seen.
    """

    parts: Literal["block", "grid"]
    """ "block": places that lie together; "grid": places that lie equally far apart (Tu et al. 2022, section
    3.2)."""
    size: int
    """Rows and columns of a part; a smaller feature map is one part."""
    head_dim: int
    """A head's size."""
    mlp_ratio: int
    """The MLP's hidden width over the width."""
    activation: ActivationName
    """The MLP's."""
    norm_epsilon: float
    """Of the norms."""
    drop_path: float
    """The rate of dropped paths."""
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
        """Maps [B, H, W, D] to the same."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def branch(y: jax.Array) -> jax.Array:
            y = Dropout(self.dropout)(y, deterministic=deterministic)
            if self.drop_path and not deterministic:
                y = drop_path(y, self.drop_path, self.make_rng("dropout"))
            return y

        y = LayerNorm(self.norm_epsilon, **dtypes, name="norm_1")(x)
        x = x + branch(self.attend(y, deterministic))
        y = LayerNorm(self.norm_epsilon, **dtypes, name="norm_2")(x)
        mlp = Mlp(self.mlp_ratio * x.shape[-1], self.activation, self.dropout, **dtypes, name="mlp")
        return x + branch(mlp(y, deterministic=deterministic))

    def attend(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Attention in the parts of [B, H, W, D]."""
        split, join = (to_windows, from_windows) if self.parts == "block" else (to_grid, from_grid)
        batch, height, width, channels = x.shape
        size = (min(self.size, height), min(self.size, width))
        whole = (-(-height // size[0]) * size[0], -(-width // size[1]) * size[1])
        x = jnp.pad(x, [(0, 0), (0, whole[0] - height), (0, whole[1] - width), (0, 0)])
        mask = SEES_ALL
        if whole != (height, width):
            real = np.zeros((1, *whole, 1), bool)
            real[:, :height, :width] = True
            keys = split(jnp.asarray(real), size)[..., 0]  # [H/h W/w, h w]
            mask = Mask(keys=jnp.tile(keys, (batch, 1)))
        heads = channels // self.head_dim
        bias = GridBias(heads, self.size, self.param_dtype, name="relative_bias")(*size)
        attention = Attention(
            heads,
            head_dim=self.head_dim,
            dropout=self.attention_dropout,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="attention",
        )
        y, _ = attention(split(x, size), mask=mask, bias=bias, deterministic=deterministic)
        return join(y, size, whole)[:, :height, :width]


class MaxViTBlock(nn.Module):
    """MBConv, attention in blocks, attention on a grid (Tu et al. 2022, figure 2)."""

    channels: int
    """That come out."""
    stride: int
    """1, or 2 to halve the feature map."""
    mbconv: MBConvSettings
    """The convolutional part."""
    partition: dict[str, Any]
    """Fields of both `PartitionBlock`s."""
    axis_name: str | None
    """Pmap's axis, over which batch statistics are averaged."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), channels]."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        rate = self.partition["drop_path"]
        conv = MBConv(self.channels, self.stride, self.mbconv, rate, self.axis_name, **dtypes, name="mbconv")
        x = conv(x, deterministic)
        x = PartitionBlock("block", **self.partition, **dtypes, name="block")(x, deterministic)
        return PartitionBlock("grid", **self.partition, **dtypes, name="grid")(x, deterministic)


class MaxViT(nn.Module):
    """A MaxViT that classifies images, of any size. The default is MaxViT-T."""

    stage_sizes: tuple[int, ...] = (2, 2, 5, 2)
    """Blocks in each stage; every stage halves the feature map, and the stem the image."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of each stage."""
    stem_widths: tuple[int, int] = (64, 64)
    """Channels of the stem's two convolutions."""
    stem_bias: bool = True
    """Whether they have biases."""
    window: int = 7
    """Rows and columns of the blocks and of the grid that attention stays in; a 32nd of the image as
    published."""
    num_classes: int = 1000
    """K; 0 has no head."""
    representation: int | None = 512
    """Width of a tanh layer between pooling and head; None: no layer, and the norm stands before the
    pooling."""
    mbconv: MBConvSettings = MBCONV
    """The convolutional blocks."""
    head_dim: int = 32
    """Size of the attention heads; must divide the widths."""
    mlp_ratio: int = 4
    """The MLPs' hidden width over the width."""
    activation: ActivationName = "gelu_tanh"
    """The MLPs'."""
    norm_epsilon: float = 1e-5
    """Of LayerNorms."""
    dropout: float = 0.0
    """Of attention and MLPs."""
    attention_dropout: float = 0.0
    """Of attention weights."""
    drop_path: float = 0.0
    """Stochastic depth: the last block's rate, growing linearly from 0."""
    axis_name: str | None = None
    """Pmap's axis, over which batch statistics are averaged."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        """Yields a line for every impossible combination of fields."""
        yield from stages(self, "widths")
        yield from sizes(self, "widths", "stem_widths", "window", "representation", "head_dim", "mlp_ratio")
        yield from classes(self)
        yield from rates(self, "dropout", "attention_dropout", "drop_path")
        if self.head_dim > 0:
            for width in dict.fromkeys(self.widths):
                if width % self.head_dim:
                    yield f"head_dim={self.head_dim}: does not divide the width {width}; use one that does"
        yield from epsilons(self)

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs is the last feature map."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = self.mbconv.norm(deterministic, self.axis_name, **dtypes)
        drop_rates = iter(np.linspace(0, self.drop_path, sum(self.stage_sizes)))
        x = stem(image, self.stem_widths, self.stem_bias, self.mbconv, norm, **dtypes)
        maps = []
        for stage, (size, channels) in enumerate(zip(self.stage_sizes, self.widths), 1):
            for i in range(size):
                partition = {
                    "size": self.window,
                    "head_dim": self.head_dim,
                    "mlp_ratio": self.mlp_ratio,
                    "activation": self.activation,
                    "norm_epsilon": self.norm_epsilon,
                    "drop_path": float(next(drop_rates)),
                    "dropout": self.dropout,
                    "attention_dropout": self.attention_dropout,
                }
                block = MaxViTBlock(
                    channels,
                    1 if i else 2,
                    self.mbconv,
                    partition,
                    self.axis_name,
                    **dtypes,
                    name=f"stage_{stage}_block_{i}",
                )
                x = block(x, deterministic)
            maps.append(x)
        features = summary(x, self.representation, self.norm_epsilon, **dtypes)
        logits = logits_of(features, self.num_classes, self.param_dtype)
        return ImageOutputs(logits, features, x, tuple(maps))
