"""CoAtNet: convolutions in the first stages, attention over the whole feature map in the last (Dai et al. 2021)."""

from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.models.attention import Attention
from jaxformer.models.drop_path import drop_path
from jaxformer.models.dropout import Dropout
from jaxformer.models.head import logits_of
from jaxformer.models.mbconv import MBConv, MBConvSettings, PoolName, halved, shortcut_of, stem, summary
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.problems import classes, epsilons, rates, sizes, stages
from jaxformer.models.windows import GridBias

Dtype = Any


class RelativeBlock(nn.Module):
    """Attention with a bias for each distance, and an MLP, each after a norm and around a residual.

    Where it halves its feature map, x becomes Proj(Pool(x)) + Attention(Pool(Norm(x))) (Dai et al. 2021, appendix
    A.1).
    """

    channels: int
    """That come out."""
    stride: int
    """1, or 2 to halve the feature map."""
    places: int
    """Rows and columns of the largest feature map that attention sees."""
    head_dim: int
    """A head's size; there are as many as fit into the attention's width."""
    attention_width: Literal["out", "in"]
    """That of the channels that come "out" or go "in"."""
    mlp_ratio: int
    """The MLP's hidden width over the channels."""
    activation: ActivationName
    """The MLP's."""
    pool: PoolName
    """How the feature map is halved."""
    shortcut_bias: bool
    """Whether the shortcut's 1x1 has a bias."""
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
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), channels]."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width = self.channels if self.attention_width == "out" else x.shape[-1]

        def branch(y: jax.Array) -> jax.Array:
            y = Dropout(self.dropout)(y, deterministic=deterministic)
            if self.drop_path and not deterministic:
                y = drop_path(y, self.drop_path, self.make_rng("dropout"))
            return y

        shortcut = shortcut_of(x, self.channels, self.stride, self.pool, self.shortcut_bias, **dtypes)
        y = LayerNorm(self.norm_epsilon, **dtypes, name="norm_1")(x)
        y = halved(y, self.pool) if self.stride == 2 else y
        batch, height, width_of_map, _ = y.shape
        if max(height, width_of_map) > self.places:
            raise ValueError(
                f"a feature map of {height} x {width_of_map}: the biases are for {self.places}; raise image_size"
            )
        heads = width // self.head_dim
        attention = Attention(
            heads,
            head_dim=self.head_dim,
            dropout=self.attention_dropout,
            **dtypes,
            out_features=self.channels,
            name="attention",
        )
        bias = GridBias(heads, self.places, self.param_dtype, name="relative_bias")(height, width_of_map)
        tokens = y.reshape(batch, height * width_of_map, -1)
        y, _ = attention(tokens, bias=bias, deterministic=deterministic)
        x = shortcut + branch(y.reshape(shortcut.shape))
        y = LayerNorm(self.norm_epsilon, **dtypes, name="norm_2")(x)
        mlp = Mlp(self.mlp_ratio * self.channels, self.activation, self.dropout, **dtypes, name="mlp")
        return x + branch(mlp(y, deterministic=deterministic))


class CoAtNet(nn.Module):
    """A CoAtNet that classifies images. The default is CoAtNet-0."""

    stage_sizes: tuple[int, ...] = (2, 3, 5, 2)
    """Blocks in each stage; every stage halves the feature map, and the stem the image."""
    widths: tuple[int, ...] = (96, 192, 384, 768)
    """Channels of each stage."""
    blocks: tuple[Literal["mbconv", "attention"], ...] = ("mbconv", "mbconv", "attention", "attention")
    """What each stage is made of."""
    stem_widths: tuple[int, int] = (64, 64)
    """Channels of the stem's two convolutions."""
    stem_bias: bool = False
    """Whether they have biases."""
    image_size: int = 224
    """The largest side of an image in pixels that the tables of biases have distances for."""
    num_classes: int = 1000
    """K; 0 has no head."""
    representation: int | None = 768
    """Width of a tanh layer between pooling and head; None: no layer, and the norm stands before the
    pooling."""
    mbconv: MBConvSettings = MBConvSettings()
    """The convolutional blocks."""
    head_dim: int = 32
    """Size of the attention heads; must divide the widths."""
    attention_width: Literal["out", "in"] = "out"
    """Which channels the attention of a stage's first block has, those that come "out" or go "in"."""
    shortcut_bias: bool = True
    """Whether the shortcuts of attention stages have biases."""
    mlp_ratio: int = 4
    """The MLPs' hidden width over the width."""
    activation: ActivationName = "gelu_erf"
    """The MLPs'."""
    norm_epsilon: float = 1e-6
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
        yield from stages(self, "widths", "blocks")
        yield from sizes(
            self, "widths", "stem_widths", "image_size", "representation", "head_dim", "mlp_ratio"
        )
        yield from classes(self)
        yield from rates(self, "dropout", "attention_dropout", "drop_path")
        if self.head_dim > 0:
            before = (self.stem_widths[-1], *self.widths)
            for came, width, kind in zip(before, self.widths, self.blocks):
                of = width if self.attention_width == "out" else came
                if kind == "attention" and (width % self.head_dim or of % self.head_dim):
                    yield f"head_dim={self.head_dim}: does not divide {of}, the width of attention; use one that does"
        yield from epsilons(self)

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs is the last feature map."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = self.mbconv.norm(deterministic, self.axis_name, **dtypes)
        drop_rates = iter(np.linspace(0, self.drop_path, sum(self.stage_sizes)))
        x = stem(image, self.stem_widths, self.stem_bias, self.mbconv, norm, **dtypes)
        maps = []
        for stage, (size, channels, kind) in enumerate(zip(self.stage_sizes, self.widths, self.blocks), 1):
            for i in range(size):
                name, stride, rate = f"stage_{stage}_block_{i}", 1 if i else 2, float(next(drop_rates))
                block: nn.Module
                if kind == "mbconv":
                    block = MBConv(channels, stride, self.mbconv, rate, self.axis_name, **dtypes, name=name)
                else:
                    block = RelativeBlock(
                        channels=channels,
                        stride=stride,
                        places=-(-self.image_size // 2 ** (stage + 1)),
                        head_dim=self.head_dim,
                        attention_width=self.attention_width,
                        mlp_ratio=self.mlp_ratio,
                        activation=self.activation,
                        pool=self.mbconv.pool,
                        shortcut_bias=self.shortcut_bias,
                        norm_epsilon=self.norm_epsilon,
                        drop_path=rate,
                        dropout=self.dropout,
                        attention_dropout=self.attention_dropout,
                        **dtypes,
                        name=name,
                    )
                x = block(x, deterministic)
            maps.append(x)
        features = summary(x, self.representation, self.norm_epsilon, **dtypes)
        logits = logits_of(features, self.num_classes, self.param_dtype)
        return ImageOutputs(logits, features, x, tuple(maps))
