"""Swin, a hierarchical Transformer whose attention stays in windows that shift (Liu et al. 2021)."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.config.fields import Pixels, PositiveInt
from jaxformer.models.base import Stages
from jaxformer.models.conv import truncated_normal
from jaxformer.models.dense import Dense
from jaxformer.models.dropout import Dropout
from jaxformer.models.outputs import ImageOutputs, classified
from jaxformer.models.patches import PatchEmbedding
from jaxformer.models.staged import StagedTransformer, heads_problems
from jaxformer.models.windows import WindowBlock


class SwinBlock(WindowBlock):
    """A `WindowBlock` (Liu et al. 2021, equation 3) that can merge patches first."""

    merges: bool
    """Halves height and width first, and doubles the channels: the first block of a stage."""

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, D] to [B, H, W, D], or to [B, H / 2, W / 2, 2 D] if it merges."""
        if self.merges:
            fields: dict[str, Any] = {"use_bias": False, "kernel_init": self.kernel_init, **self.dtypes}
            x = self.normed(joined_in_fours(x), "norm_merge")  # [B, H / 2, W / 2, 4 D]
            x = Dense(x.shape[-1] // 2, **fields, name="merge")(x)
        return super().__call__(x, deterministic)


def joined_in_fours(x: jax.Array) -> jax.Array:
    """Joins the channels of each 2x2, column by column: [B, H, W, C] to [B, ceil(H/2), ceil(W/2), 4 C]."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)])
    height, width = x.shape[1] // 2, x.shape[2] // 2
    fours = x.reshape(batch, height, 2, width, 2, channels).transpose(0, 1, 3, 4, 2, 5)
    return fours.reshape(batch, height, width, 4 * channels)


class Swin(StagedTransformer):
    """A Swin Transformer that classifies images."""

    stage_sizes: Stages = (2, 2, 6, 2)
    """Number of blocks in each stage; every stage but the first halves the feature map and doubles the width."""
    num_heads: tuple[PositiveInt, ...] = (3, 6, 12, 24)
    """Number of attention heads of each stage; must divide its width."""
    width: PositiveInt = 96
    """Width of the first stage."""
    patch_size: PositiveInt = 4
    """Height and width of a patch."""
    window: Pixels = 7
    """Rows and columns of the windows; every second block's lie half a window further. Images may have any
    size: windows that are not full are padded, and padding is not seen."""

    def problems(self) -> Iterator[str]:
        yield from self.one_a_stage("num_heads")
        yield from heads_problems(
            self.num_heads, (self.width << stage for stage in range(len(self.num_heads)))
        )

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs are the last stage's, after the norm."""
        stem = PatchEmbedding(self.patch_size, self.width, **self.dtypes, name="patch_embedding")
        x = self.normed(stem.on_grid(image), "norm_stem")  # [B, h, w, D]
        x = Dropout(self.dropout)(x, deterministic=deterministic)
        fields = self.passed_to(SwinBlock) | {"kernel_init": truncated_normal}

        def block(stage: int, i: int, **common: Any) -> nn.Module:
            own = {"num_heads": self.num_heads[stage - 1], "windows": "shifted" if i % 2 else "block"}
            return SwinBlock(merges=stage > 1 and i == 0, **fields | own | common)

        maps = self.staged(x, block, deterministic)
        x = self.normed(maps[-1], "norm")
        return classified(self, x.reshape(len(x), -1, x.shape[-1]), maps)  # tokens [B, T, D]
