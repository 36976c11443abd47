"""CvT, a hierarchical Transformer with convolutions in its embeddings and projections (Wu et al. 2021)."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.config.fields import PositiveInt
from jaxformer.models.attention import sown_attention
from jaxformer.models.base import Layer, OddInt, Stages
from jaxformer.models.conv import Conv, PaddingName, truncated_normal
from jaxformer.models.dense import HeadsIn, HeadsOut
from jaxformer.models.dropout import Dropout
from jaxformer.models.norms import image_norm
from jaxformer.models.outputs import ImageOutputs, classified
from jaxformer.models.staged import StagedBlock, StagedLayer, StagedTransformer, heads_problems


class ConvAttention(Layer):
    """Attention whose queries, keys and values come through depthwise convolutions (Wu et al. 2021, section 3.2).

    The logits are scaled by the width, not by the heads' size, as in the authors' code and transformers'.
    """

    num_heads: int
    """Number of heads H."""
    kernel_size: int
    """Size of the kernels of the convolutions, odd."""
    stride: int
    """Stride of the convolutions of keys and values; the one of queries has 1."""
    attention_dropout: float
    """Rate of dropout of the attention weights."""

    @nn.compact
    def __call__(self, x: jax.Array, grid: tuple[int, int], deterministic: bool) -> jax.Array:
        """Maps [B, P + h w, D] to the same; `grid` is (h, w), and the convolutions leave the P prefix tokens out.

        The weights are sown as by `sown_attention`.
        """
        batch, count, width = x.shape
        prefix_tokens = count - grid[0] * grid[1]
        prefix, patches = x[:, :prefix_tokens], x[:, prefix_tokens:].reshape(batch, *grid, width)
        norm = image_norm(self, "batch", 1e-5, deterministic)
        init: dict[str, Any] = {"kernel_init": truncated_normal, **self.dtypes}

        def projected(name: str, stride: int) -> jax.Array:
            """Queries, keys or values [B, H, T, Dh]."""
            conv = Conv(width, self.kernel_size, stride, depthwise=True, **init, name=f"conv_{name}")
            y = norm(name=f"norm_{name}")(conv(patches)).reshape(batch, -1, width)
            heads = HeadsIn(self.num_heads, width // self.num_heads, **init, name=name)
            return heads(jnp.concatenate([prefix, y], axis=1))

        heads = projected("query", 1), projected("key", self.stride), projected("value", self.stride)
        rates: dict[str, Any] = {"dropout": self.attention_dropout, "deterministic": deterministic}
        return HeadsOut(width, **init, name="out")(sown_attention(self, *heads, scale=width**-0.5, **rates))


class CvTBlock(StagedBlock):
    """Convolutional attention and an MLP, each after a norm and around a residual."""

    width: int
    """D, width of the tokens."""
    num_heads: int
    """Number of attention heads."""
    kernel_size: int
    """Size of the projections' kernels."""
    stride: int
    """Stride of the projections of keys and values."""
    downsample: tuple[int, int] | None
    """Kernel size and stride of a convolution in front: the first block of a stage; None has none."""
    has_token: bool
    """Whether the class token is among the tokens: the last stage."""

    @nn.compact
    def __call__(
        self, x_and_token: tuple[jax.Array, jax.Array], deterministic: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Maps [B, H, W, C] and the class token [B, 1, D] to [B, h, w, D] and the class token."""
        x, token = x_and_token
        if self.downsample is not None:
            x = embedded(self, x, self.width, *self.downsample, "downsample")
            x = Dropout(self.dropout)(x, deterministic=deterministic)
        batch, *grid, width = x.shape
        x = x.reshape(batch, -1, width)
        x = jnp.concatenate([token, x], axis=1) if self.has_token else x  # [B, P + h w, D]
        attention = ConvAttention(**self.passed_to(ConvAttention), name="attention")
        y = attention(self.normed(x, "norm_1"), (grid[0], grid[1]), deterministic)
        x = self.with_mlp(x + self.branch(y, deterministic), deterministic, dropout=0.0)
        if self.has_token:
            token, x = x[:, :1], x[:, 1:]
        return x.reshape(batch, *grid, width), token


def embedded(
    layer: StagedLayer,
    x: jax.Array,
    width: int,
    size: int,
    stride: int,
    name: str,
    padding: PaddingName | int | None = None,
) -> jax.Array:
    """Convolutional embedding of [B, H, W, C] (Wu et al. 2021, section 3.1), by two sub-modules of a layer.

    Args:
      layer: has the sub-modules "conv_..." and "norm_...".
      x: the feature map.
      width: D of the result.
      size: of the kernel.
      stride: of both directions.
      name: the end of the sub-modules' names.
      padding: as of `Conv`; None: CvT's.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), width] where the stride divides H and W.
    """
    padding = max(size - stride + 1, 0) // 2 if padding is None else padding
    fields: dict[str, Any] = {"use_bias": True, "kernel_init": truncated_normal, **layer.dtypes}
    x = Conv(width, size, stride, padding=padding, **fields, name=f"conv_{name}")(x)
    return layer.normed(x, f"norm_{name}")


class CvT(StagedTransformer):
    """A Convolutional vision Transformer that classifies images.

    Every stage begins with a convolution that overlaps; there are no positions. The last stage has a class token.
    `drop_path` grows from the first stage on; in the authors' code it grows in the last stage alone.
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

    def problems(self) -> Iterator[str]:
        yield from self.one_a_stage("widths", "num_heads", "embedding_kernels", "embedding_strides")
        yield from heads_problems(self.num_heads, self.widths)

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C].

        The outputs' "tokens" are the class token, then the last stage's places, row by row, after the norm.
        """
        kernels = tuple(zip(self.embedding_kernels, self.embedding_strides))
        x = embedded(self, image, self.widths[0], *kernels[0], "stem")
        x = Dropout(self.dropout)(x, deterministic=deterministic)  # [B, h, w, D]
        token = self.param("class_token", truncated_normal, (1, 1, self.widths[-1]), self.param_dtype)
        token = jnp.broadcast_to(token.astype(x.dtype), (len(x), 1, self.widths[-1]))
        fields = self.passed_to(CvTBlock) | {"kernel_init": truncated_normal}
        fields |= {"kernel_size": self.projection_kernel, "stride": self.key_stride}

        def block(stage: int, i: int, **common: Any) -> nn.Module:
            own = {"width": self.widths[stage - 1], "num_heads": self.num_heads[stage - 1]}
            downsample = kernels[stage - 1] if stage > 1 and i == 0 else None
            has_token = stage == len(self.stage_sizes)
            return CvTBlock(downsample=downsample, has_token=has_token, **fields | own | common)

        stages = self.staged((x, token), block, deterministic)
        x, token = stages[-1]
        tokens = jnp.concatenate([token, x.reshape(len(x), -1, x.shape[-1])], axis=1)  # [B, 1 + T, D]
        tokens = self.normed(tokens, "norm")
        return classified(self, tokens, tuple(x for x, _ in stages), tokens[:, 0])
