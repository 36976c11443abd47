"""MaxViT: convolution, attention in blocks and attention on a grid in every layer (Tu et al. 2022)."""

from collections.abc import Iterator
from typing import Any

import jax
from flax import linen as nn

from jaxformer.config.fields import Pixels, PositiveFloat, PositiveInt
from jaxformer.models.base import Stages
from jaxformer.models.mbconv import ConvAttentionModel, MBConv, MBConvSettings, StridedBlock
from jaxformer.models.mlp import ActivationName
from jaxformer.models.windows import WindowBlock


class MaxViTBlock(StridedBlock):
    """MBConv, attention in blocks, attention on a grid (Tu et al. 2022, figure 2)."""

    settings: MBConvSettings
    """The convolutional part."""
    attention: dict[str, Any]
    """Fields of both `WindowBlock`s."""

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), channels]."""
        x = MBConv(**self.passed_to(MBConv), name="mbconv")(x, deterministic)
        fields = {**self.attention, "drop_path": self.drop_path}
        x = WindowBlock(windows="block", **fields, name="block")(x, deterministic)
        return WindowBlock(windows="grid", **fields, name="grid")(x, deterministic)


class MaxViT(ConvAttentionModel):
    """A MaxViT that classifies images, of any size. The default is MaxViT-T."""

    stage_sizes: Stages = (2, 2, 5, 2)
    """Number of blocks in each stage; every stage halves the feature map, and the stem the image."""
    widths: tuple[PositiveInt, ...] = (64, 128, 256, 512)
    """Number of channels of each stage."""
    stem_bias: bool = True
    """Whether the stem's convolutions have biases."""
    window: Pixels = 7
    """Rows and columns of the blocks and of the grid that attention stays in; a 32nd of the image as
    published."""
    representation: PositiveInt | None = 512
    """Width of a tanh layer between pooling and head; None: no layer, and the norm stands before the
    pooling."""
    mbconv: MBConvSettings = MBConvSettings(activation="gelu_tanh", padding="same", norm_epsilon=1e-3)
    """The convolutional blocks; the default is that of google-research/maxvit."""
    activation: ActivationName = "gelu_tanh"
    """Activation of the MLPs."""
    norm_epsilon: PositiveFloat = 1e-5
    """Epsilon of LayerNorms."""

    def problems(self) -> Iterator[str]:
        yield from self.one_a_stage("widths")
        for width in dict.fromkeys(self.widths):
            if self.head_dim > 0 and width % self.head_dim:
                yield f"head_dim={self.head_dim}: does not divide the width {width}; use one that does"

    def block(self, stage: int, i: int, **common: Any) -> nn.Module:
        channels, stride = self.widths[stage - 1], 1 if i else 2
        attention = self.passed_to(WindowBlock) | {"num_heads": channels // self.head_dim}
        return MaxViTBlock(channels, stride, self.mbconv, attention, axis_name=self.axis_name, **common)
