"""ConvNeXt, a CNN made after Swin (Liu et al. 2022, A ConvNet for the 2020s)."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.models.block import LayerScale
from jaxformer.models.conv import Conv
from jaxformer.models.drop_path import drop_path
from jaxformer.models.head import logits_of
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.patches import PatchEmbedding, patch_map
from jaxformer.models.problems import classes, epsilons, rates, sizes, stages

Dtype = Any
truncated_normal = nn.initializers.truncated_normal(0.02)


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution, a norm and an MLP over channels, around one residual (Liu et al. 2022, figure 4)."""

    mlp_dim: int
    """The MLP's hidden width."""
    kernel_size: int
    """Of the depthwise convolution, odd."""
    downsamples: bool
    """Halves height and width first, and doubles the channels, by a norm and a 2x2 convolution: the first
    block of a stage."""
    drop_path: float
    """The rate of dropped paths."""
    activation: ActivationName
    """The MLP's."""
    layer_scale: float | None
    """First value of LayerScale; None has none."""
    norm_epsilon: float
    """Of the norms."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H, W, C], or to [B, H / 2, W / 2, 2 C] if it downsamples."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.downsamples:
            x = LayerNorm(self.norm_epsilon, **dtypes, name="norm_downsample")(x)
            x = patch_map(PatchEmbedding(2, 2 * x.shape[-1], **dtypes, name="conv_downsample"), x)
        channels = x.shape[-1]
        conv = Conv(
            channels,
            self.kernel_size,
            use_bias=True,
            depthwise=True,
            kernel_init=truncated_normal,
            **dtypes,
            name="conv_1",
        )
        y = LayerNorm(self.norm_epsilon, **dtypes, name="norm_1")(conv(x))
        mlp = Mlp(
            self.mlp_dim,
            self.activation,
            kernel_init=truncated_normal,
            out_init=truncated_normal,
            **dtypes,
            name="mlp",
        )
        y = mlp(y)
        if self.layer_scale is not None:
            y = LayerScale(self.layer_scale, **dtypes, name="layer_scale_1")(y)
        if self.drop_path and not deterministic:
            y = drop_path(y, self.drop_path, self.make_rng("dropout"))
        return x + y


class ConvNeXt(nn.Module):
    """A ConvNeXt that classifies images."""

    stage_sizes: tuple[int, ...] = (3, 3, 9, 3)
    """Blocks in each stage; every stage but the first halves the feature map and doubles the width."""
    width: int = 96
    """Channels of the first stage."""
    patch_size: int = 4
    """Height and width of a patch of the stem."""
    kernel_size: int = 7
    """Of the depthwise convolutions, odd."""
    mlp_ratio: int = 4
    """The MLPs' hidden width over the width."""
    num_classes: int = 1000
    """K; 0 has no head."""
    activation: ActivationName = "gelu_erf"
    """The MLPs'."""
    layer_scale: float | None = 1e-6
    """First value of LayerScale (Touvron et al. 2021, CaiT); None has none."""
    norm_epsilon: float = 1e-6
    """Of every LayerNorm."""
    drop_path: float = 0.0
    """Stochastic depth: the last block's rate, growing linearly from 0."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        """Yields a line for every impossible combination of fields."""
        yield from stages(self)
        yield from sizes(self, "width", "patch_size", "mlp_ratio")
        yield from classes(self)
        yield from rates(self, "drop_path")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            yield f"kernel_size={self.kernel_size}: expected an odd number, such as 7"
        yield from epsilons(self)

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs is the last feature map."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        drop_rates = iter(np.linspace(0, self.drop_path, sum(self.stage_sizes)))
        stem = PatchEmbedding(self.patch_size, self.width, **dtypes, name="patch_embedding")
        x = patch_map(stem, image)
        x = LayerNorm(self.norm_epsilon, **dtypes, name="norm_stem")(x)
        maps = []
        for stage, size in enumerate(self.stage_sizes, 1):
            for i in range(size):
                block = ConvNeXtBlock(
                    mlp_dim=self.mlp_ratio * self.width * 2 ** (stage - 1),
                    kernel_size=self.kernel_size,
                    downsamples=stage > 1 and i == 0,
                    drop_path=float(next(drop_rates)),
                    activation=self.activation,
                    layer_scale=self.layer_scale,
                    norm_epsilon=self.norm_epsilon,
                    **dtypes,
                    name=f"stage_{stage}_block_{i}",
                )
                x = block(x, deterministic)
            maps.append(x)
        features = jnp.mean(x, axis=(1, 2), dtype=jnp.float32).astype(self.dtype)  # [B, C]
        features = LayerNorm(self.norm_epsilon, **dtypes, name="norm")(features)
        logits = logits_of(features, self.num_classes, self.param_dtype)
        return ImageOutputs(logits, features, x, tuple(maps))
