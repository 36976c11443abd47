"""CvT, a hierarchical Transformer with convolutions in its embeddings and projections (Wu et al. 2021)."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.config.fields import PositiveFloat, PositiveInt, Rate
from jaxformer.models.attention import ATTENTION_MAPS, attend, attention, attention_weights
from jaxformer.models.base import Dropouts, Dtype, Layer, OddInt, Staged, Stages
from jaxformer.models.conv import Conv
from jaxformer.models.dense import HeadsIn, HeadsOut
from jaxformer.models.dropout import Dropout, ResidualLayer
from jaxformer.models.head import logits_of
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm, image_norm
from jaxformer.models.outputs import ImageOutputs

truncated_normal = nn.initializers.truncated_normal(0.02)
BATCH_NORM_EPSILON = 1e-5


class ConvAttention(Layer):
    """Attention whose queries, keys and values come through depthwise convolutions (Wu et al. 2021, section 3.2).

    The logits are scaled by the width, not by the heads' size, as in the authors' code and transformers'.
    """

    num_heads: int
    """H."""
    kernel_size: int
    """Of the convolutions, odd."""
    stride: int
    """Of those of keys and values; that of queries is 1."""
    dropout: float
    """Of the attention weights."""

    @nn.compact
    def __call__(self, x: jax.Array, grid: tuple[int, int], deterministic: bool) -> jax.Array:
        """Maps [B, P + h w, D] to the same; `grid` is (h, w), and the convolutions leave the P prefix tokens out.

        If the collection "attention_maps" is mutable, the weights [B, H, T, S] are sown into it, as "weights".
        """
        batch, count, width = x.shape
        prefix_tokens = count - grid[0] * grid[1]
        prefix, patches = x[:, :prefix_tokens], x[:, prefix_tokens:].reshape(batch, *grid, width)
        norm = image_norm(self, "batch", BATCH_NORM_EPSILON, deterministic)

        def projected(name: str, stride: int) -> jax.Array:
            """Queries, keys or values [B, H, T, Dh]."""
            conv = Conv(
                width,
                self.kernel_size,
                stride,
                depthwise=True,
                kernel_init=truncated_normal,
                **self.dtypes,
                name=f"conv_{name}",
            )
            y = norm(name=f"norm_{name}")(conv(patches)).reshape(batch, -1, width)
            y = jnp.concatenate([prefix, y], axis=1)
            head_dim = width // self.num_heads
            return HeadsIn(self.num_heads, head_dim, kernel_init=truncated_normal, **self.dtypes, name=name)(
                y
            )

        query, key, value = (
            projected("query", 1),
            projected("key", self.stride),
            projected("value", self.stride),
        )
        scale = width**-0.5
        drops = self.dropout > 0 and not deterministic
        asked_for = self.is_mutable_collection(ATTENTION_MAPS) and not self.is_initializing()
        if drops or asked_for:
            weights = attention_weights(query, key, scale=scale)
            if asked_for:
                self.put_variable(ATTENTION_MAPS, "weights", weights)
            attended = attend(Dropout(self.dropout)(weights, deterministic=deterministic), value)
        else:
            attended = attention(query, key, value, scale=scale)
        return HeadsOut(width, kernel_init=truncated_normal, **self.dtypes, name="out")(attended)


class CvTBlock(ResidualLayer):
    """Convolutional attention and an MLP, each after a norm and around a residual."""

    width: int
    """D, width of the tokens."""
    num_heads: int
    """Number of attention heads."""
    mlp_dim: int
    """Hidden width of the MLP."""
    kernel_size: int
    """Size of the projections' kernels."""
    stride: int
    """Stride of the projections of keys and values."""
    downsample: tuple[int, int] | None
    """Kernel size and stride of a convolution in front: the first block of a stage; None has none."""
    activation: ActivationName
    """Activation of the MLP."""
    norm_epsilon: float
    """Epsilon of the LayerNorms."""

    @nn.compact
    def __call__(self, x: jax.Array, prefix: jax.Array, deterministic: bool) -> tuple[jax.Array, jax.Array]:
        """Maps [B, H, W, C] and prefix tokens [B, P, D] to [B, h, w, D] and prefix tokens."""
        if self.downsample is not None:
            x = embedded(x, self.width, *self.downsample, self.norm_epsilon, "downsample", **self.dtypes)
            x = Dropout(self.dropout)(x, deterministic=deterministic)
        batch, *grid, width = x.shape
        x = jnp.concatenate([prefix, x.reshape(batch, -1, width)], axis=1)  # [B, P + h w, D]
        attention = ConvAttention(
            self.num_heads,
            self.kernel_size,
            self.stride,
            self.attention_dropout,
            axis_name=self.axis_name,
            **self.dtypes,
            name="attention",
        )
        inits: dict[str, Any] = {"kernel_init": truncated_normal, "out_init": truncated_normal}
        mlp = Mlp(self.mlp_dim, self.activation, **inits, **self.dtypes, name="mlp")
        y = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm_1")(x)
        x = x + self.branch(attention(y, (grid[0], grid[1]), deterministic), deterministic)
        y = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm_2")(x)
        x = x + self.branch(mlp(y, deterministic=deterministic), deterministic)
        prefix_tokens = prefix.shape[1]
        return x[:, prefix_tokens:].reshape(batch, *grid, width), x[:, :prefix_tokens]


def embedded(
    x: jax.Array, width: int, kernel_size: int, stride: int, epsilon: float, name: str, **dtypes: Dtype
) -> jax.Array:
    """Convolutional embedding of [B, H, W, C] (Wu et al. 2021, section 3.1), by two sub-modules of the caller.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), width] where the stride divides H and W.
    """
    pad = max(kernel_size - stride + 1, 0) // 2
    conv = Conv(
        width,
        kernel_size,
        stride,
        padding=pad,
        use_bias=True,
        kernel_init=truncated_normal,
        **dtypes,
        name=f"conv_{name}",
    )
    return LayerNorm(epsilon, **dtypes, name=f"norm_{name}")(conv(x))


class CvT(Staged, Dropouts):
    """A Convolutional vision Transformer that classifies images.

    Every stage begins with a convolution that overlaps; there are no positions. The last stage has a class token.
    """

    by_class_token = True

    stage_sizes: Stages = (1, 2, 10)
    """Number of blocks in each stage."""
    widths: tuple[PositiveInt, ...] = (64, 192, 384)
    """Width of each stage."""
    num_heads: tuple[PositiveInt, ...] = (1, 3, 6)
    """Number of attention heads of each stage; must divide its width."""
    embedding_kernels: tuple[OddInt, ...] = (7, 3, 3)
    """Kernel size of the convolution that each stage begins with, odd."""
    embedding_strides: tuple[PositiveInt, ...] = (4, 2, 2)
    """Strides of these convolutions."""
    projection_kernel: OddInt = 3
    """Kernel size of the depthwise convolutions before queries, keys and values, odd."""
    key_stride: PositiveInt = 2
    """Stride of those before keys and values."""
    mlp_ratio: PositiveInt = 4
    """Hidden width of the MLPs over the width."""
    activation: ActivationName = "gelu_erf"
    """Activation of the MLPs."""
    norm_epsilon: PositiveFloat = 1e-5
    """Epsilon of every LayerNorm; 1e-5 in transformers' and the authors' code."""
    drop_path: Rate = 0.0
    """Stochastic depth: the last block's rate, growing linearly from 0 (in the authors' code it grows in the
    last stage alone)."""

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        yield from self.one_a_stage("widths", "num_heads", "embedding_kernels", "embedding_strides")
        for width, heads in zip(self.widths, self.num_heads):
            if heads > 0 and width % heads:
                yield f"num_heads={list(self.num_heads)}: {heads} does not divide the stage's width of {width}"

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C].

        The outputs' "tokens" are the class token, then the last stage's places, row by row, after the norm.
        """
        drop_rates = iter(np.linspace(0, self.drop_path, sum(self.stage_sizes)))
        kernels = tuple(zip(self.embedding_kernels, self.embedding_strides))
        common = self.passed_on("activation", "norm_epsilon", "dropout", "attention_dropout", "axis_name")
        x = embedded(
            image, self.widths[0], *kernels[0], self.norm_epsilon, "stem", **self.dtypes
        )  # [B, h, w, D]
        x = Dropout(self.dropout)(x, deterministic=deterministic)
        maps = []
        for stage, (size, width, heads) in enumerate(zip(self.stage_sizes, self.widths, self.num_heads), 1):
            prefix = jnp.zeros((len(x), 0, width), x.dtype)
            if stage == len(self.stage_sizes):
                token = self.param("class_token", truncated_normal, (1, 1, width), self.param_dtype)
                prefix = jnp.broadcast_to(token.astype(x.dtype), (len(x), 1, width))
            for i in range(size):
                block = CvTBlock(
                    width=width,
                    num_heads=heads,
                    mlp_dim=self.mlp_ratio * width,
                    kernel_size=self.projection_kernel,
                    stride=self.key_stride,
                    downsample=kernels[stage - 1] if stage > 1 and i == 0 else None,
                    drop_path=float(next(drop_rates)),
                    **common,
                    name=f"stage_{stage}_block_{i}",
                )
                x, prefix = block(x, prefix, deterministic)
            maps.append(x)
        tokens = jnp.concatenate([prefix, x.reshape(len(x), -1, x.shape[-1])], axis=1)  # [B, 1 + T, D]
        tokens = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm")(tokens)
        features = tokens[:, 0]  # [B, D]
        logits = logits_of(features, self.num_classes, self.param_dtype)
        return ImageOutputs(logits, features, tokens, tuple(maps))
