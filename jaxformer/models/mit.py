"""MiT, the hierarchical Transformer of SegFormer (Xie et al. 2021, section 3.1)."""

from collections.abc import Iterator
from typing import Any, ClassVar

import jax
from flax import linen as nn

from jaxformer.config.fields import PositiveInt
from jaxformer.models.attention import Attention
from jaxformer.models.base import OddInt, Stages
from jaxformer.models.conv import Conv, truncated_normal
from jaxformer.models.cvt import embedded
from jaxformer.models.dropout import Dropout
from jaxformer.models.mlp import Mlp
from jaxformer.models.outputs import ImageOutputs, classified
from jaxformer.models.staged import StagedBlock, StagedTransformer, heads_problems


class MixMlp(Mlp):
    """An MLP of feature maps with a depthwise 3x3 before the activation (Xie et al. 2021, equation 3).

    It sees where the borders of an image are, so that the model needs no positions.
    """

    def hidden(self, x: jax.Array, name: str) -> jax.Array:
        conv = Conv(self.mlp_dim, depthwise=True, use_bias=True, **self.dtypes, name=f"conv_{name}")
        return conv(super().hidden(x, name))


class MiTBlock(StagedBlock):
    """Attention to a coarser map (section 3.1, equation 2) and a `MixMlp`, each after a norm and around a residual."""

    mlp_class: ClassVar[type[Mlp]] = MixMlp

    width: int
    """D, width of the tokens."""
    num_heads: int
    """Number of attention heads."""
    reduction: int
    """How many times coarser, in each direction, the map is that keys and values are made of."""
    downsample: tuple[int, int] | None
    """Kernel size and stride of a convolution in front: the first block of a later stage; None has none."""
    ends: bool
    """Whether it is the last of its stage, which ends with a norm."""

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, h, w, D].

        Raises:
          ValueError: nothing would be left of the map where it is made coarser.
        """
        if self.downsample is not None:
            x = embedded(self, x, self.width, *self.downsample, "downsample", padding="even")
        y = seen = self.normed(x, "norm_1")
        if min(x.shape[1:3]) < self.reduction:
            raise ValueError(f"a map of {x.shape[1]}x{x.shape[2]} cannot be {self.reduction} times coarser")
        if self.reduction > 1:
            seen = embedded(self, y, self.width, self.reduction, self.reduction, "reduce", padding=0)
        attention = Attention(self.num_heads, dropout=self.attention_dropout, **self.inits, name="attention")
        tokens = (each.reshape(len(x), -1, self.width) for each in (y, seen))
        y, _ = attention(*tokens, deterministic=deterministic)
        x = x + self.branch(y.reshape(x.shape), deterministic)
        x = self.with_mlp(x, deterministic, self.dropout)
        return self.normed(x, "norm") if self.ends else x


class MiT(StagedTransformer):
    """A Mix Transformer that classifies images; with `segmenter` and its decoder "mlp" it is SegFormer.

    Every stage begins with a convolution that overlaps and ends with a norm; there are no positions.
    """

    stage_sizes: Stages = (2, 2, 2, 2)
    """Number of blocks in each stage."""
    widths: tuple[PositiveInt, ...] = (32, 64, 160, 256)
    """Width of each stage."""
    num_heads: tuple[PositiveInt, ...] = (1, 2, 5, 8)
    """Number of attention heads of each stage; must divide its width."""
    reductions: tuple[PositiveInt, ...] = (8, 4, 2, 1)
    """How many times coarser, in each direction, the map is that keys and values of each stage are made of."""
    embedding_kernels: tuple[OddInt, ...] = (7, 3, 3, 3)
    """Kernel size of the convolution that each stage begins with, odd."""
    embedding_strides: tuple[PositiveInt, ...] = (4, 2, 2, 2)
    """Strides of these convolutions."""

    def problems(self) -> Iterator[str]:
        names = ("widths", "num_heads", "reductions", "embedding_kernels", "embedding_strides")
        yield from self.one_a_stage(*names)
        yield from heads_problems(self.num_heads, self.widths)

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C], by the mean of the last stage's places."""
        kernels = tuple(zip(self.embedding_kernels, self.embedding_strides))
        x = embedded(self, image, self.widths[0], *kernels[0], "stem", padding="even")  # [B, h, w, D]
        x = Dropout(self.dropout)(x, deterministic=deterministic)
        fields = self.passed_to(MiTBlock) | {"kernel_init": truncated_normal}

        def block(stage: int, i: int, **common: Any) -> nn.Module:
            own = {"width": self.widths, "num_heads": self.num_heads, "reduction": self.reductions}
            common |= {name: values[stage - 1] for name, values in own.items()}
            downsample = kernels[stage - 1] if stage > 1 and i == 0 else None
            ends = i == self.stage_sizes[stage - 1] - 1
            return MiTBlock(**{**fields, **common, "downsample": downsample, "ends": ends})

        maps = self.staged(x, block, deterministic)
        return classified(self, maps[-1].reshape(len(x), -1, self.widths[-1]), maps)  # tokens [B, T, D]
