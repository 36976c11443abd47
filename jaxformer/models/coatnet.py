"""CoAtNet: convolutions in the first stages, attention over the whole feature map in the last (Dai et al. 2021)."""

from collections.abc import Iterator
from typing import Any, Literal

import jax
from flax import linen as nn

from jaxformer.config.fields import Pixels
from jaxformer.models.attention import Attention
from jaxformer.models.mbconv import ConvAttentionModel, MBConv, StridedBlock
from jaxformer.models.resampling import PoolName, halved
from jaxformer.models.staged import StagedBlock
from jaxformer.models.windows import GridBias


class RelativeBlock(StridedBlock, StagedBlock):
    """Attention with a bias for each distance, and an MLP, each after a norm and around a residual.

    Where it halves its feature map, x becomes Proj(Pool(x)) + Attention(Pool(Norm(x))) (Dai et al. 2021, appendix
    A.1).
    """

    places: int
    """Rows and columns of the largest feature map that attention sees."""
    pool: PoolName
    """How the feature map is halved."""
    head_dim: int
    """Size of a head; there are as many as fit into the attention's width."""
    attention_width: Literal["out", "in"]
    """Width of the attention: that of the channels that come "out" or go "in"."""
    shortcut_bias: bool
    """Whether the shortcut's 1x1 has a bias."""

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), channels]."""
        heads = (self.channels if self.attention_width == "out" else x.shape[-1]) // self.head_dim
        shortcut = self.shortcut(x, self.pool, self.shortcut_bias)
        y = self.normed(x, "norm_1")
        y = halved(y, self.pool) if self.stride == 2 else y  # [B, h, w, C]
        batch, height, width, channels = y.shape
        if max(height, width) > self.places:
            given = f"a feature map of {height} x {width}"
            raise ValueError(f"{given}: the biases are for {self.places}; raise image_size")
        fields = {"dropout": self.attention_dropout, "out_features": self.channels, **self.dtypes}
        attention = Attention(heads, head_dim=self.head_dim, **fields, name="attention")
        bias = GridBias(heads, self.places, **self.dtypes, name="relative_bias")(height, width)
        tokens = y.reshape(batch, height * width, channels)  # [B, T, C]
        y, _ = attention(tokens, bias=bias, deterministic=deterministic)
        x = shortcut + self.branch(y.reshape(shortcut.shape), deterministic)
        return self.with_mlp(x, deterministic, self.dropout)


class CoAtNet(ConvAttentionModel):
    """A CoAtNet that classifies images. The default is CoAtNet-0."""

    blocks: tuple[Literal["mbconv", "attention"], ...] = ("mbconv", "mbconv", "attention", "attention")
    """The kind of blocks of each stage."""
    image_size: Pixels = 224
    """The largest side of an image in pixels that the tables of biases have distances for."""
    attention_width: Literal["out", "in"] = "out"
    """Which channels the attention of a stage's first block has, those that come "out" or go "in"."""
    shortcut_bias: bool = True
    """Whether the shortcuts of attention stages have biases."""

    def problems(self) -> Iterator[str]:
        yield from self.one_a_stage("widths", "blocks")
        if self.head_dim > 0:
            before = (self.stem_widths[-1], *self.widths)
            for came, width, kind in zip(before, self.widths, self.blocks):
                of = width if self.attention_width == "out" else came
                if kind == "attention" and (width % self.head_dim or of % self.head_dim):
                    yield f"head_dim={self.head_dim}: does not divide {of}, the width of attention; use one that does"

    def block(self, stage: int, i: int, **common: Any) -> nn.Module:
        channels, stride = self.widths[stage - 1], 1 if i else 2
        if self.blocks[stage - 1] == "mbconv":
            return MBConv(channels, stride, self.mbconv, axis_name=self.axis_name, **common)
        places = -(-self.image_size // 2 ** (stage + 1))
        fields = self.passed_to(RelativeBlock) | common
        return RelativeBlock(channels, stride, places, self.mbconv.pool, **fields)
