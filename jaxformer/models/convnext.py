"""ConvNeXt, a CNN made after Swin (Liu et al. 2022, A ConvNet for the 2020s)."""

from typing import Any

import jax
from flax import linen as nn

from jaxformer.config.fields import PositiveFloat, PositiveInt
from jaxformer.models.base import OddInt, Staged, Stages
from jaxformer.models.block import LayerScale
from jaxformer.models.conv import Conv, truncated_normal
from jaxformer.models.outputs import ImageOutputs, classified
from jaxformer.models.patches import PatchEmbedding
from jaxformer.models.resampling import mean_of
from jaxformer.models.staged import StagedBlock, StagedLayer


class ConvNeXtBlock(StagedBlock):
    """A depthwise convolution, a norm and an MLP over channels, around one residual (Liu et al. 2022, figure 4)."""

    kernel_size: int
    """Size of the depthwise convolution's kernel, odd."""
    layer_scale: float | None
    """First value of LayerScale; None has none."""
    downsamples: bool
    """Halves height and width first, and doubles the channels, by a norm and a 2x2 convolution: the first
    block of a stage."""

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H, W, C], or to [B, H / 2, W / 2, 2 C] if it downsamples."""
        if self.downsamples:
            x = self.normed(x, "norm_downsample")
            x = PatchEmbedding(2, 2 * x.shape[-1], **self.dtypes, name="conv_downsample").on_grid(x)
        conv = {"use_bias": True, "depthwise": True, "kernel_init": self.kernel_init, **self.dtypes}
        y = Conv(x.shape[-1], self.kernel_size, **conv, name="conv_1")(x)
        y = self.mapped(self.normed(y, "norm_1"), deterministic)
        if self.layer_scale is not None:
            y = LayerScale(self.layer_scale, **self.dtypes, name="layer_scale_1")(y)
        return x + self.branch(y, deterministic)


class ConvNeXt(StagedLayer, Staged):
    """A ConvNeXt that classifies images."""

    stage_sizes: Stages = (3, 3, 9, 3)
    """Number of blocks in each stage; every stage but the first halves the feature map and doubles the width."""
    width: PositiveInt = 96
    """Number of channels of the first stage."""
    patch_size: PositiveInt = 4
    """Height and width of a patch of the stem."""
    kernel_size: OddInt = 7
    """Size of the depthwise convolutions' kernels, odd."""
    layer_scale: PositiveFloat | None = 1e-6
    """First value of LayerScale (Touvron et al. 2021, CaiT); None has none."""
    norm_epsilon: PositiveFloat = 1e-6
    """Epsilon of every LayerNorm."""

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs is the last feature map."""
        stem = PatchEmbedding(self.patch_size, self.width, **self.dtypes, name="patch_embedding")
        x = self.normed(stem.on_grid(image), "norm_stem")  # [B, h, w, C]
        fields = self.passed_to(ConvNeXtBlock) | {"kernel_init": truncated_normal}

        def block(stage: int, i: int, **common: Any) -> nn.Module:
            return ConvNeXtBlock(downsamples=stage > 1 and i == 0, **fields | common)

        maps = self.staged(x, block, deterministic)
        return classified(self, maps[-1], maps, self.normed(mean_of(maps[-1]), "norm"))
