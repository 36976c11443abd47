"""ConvNeXt, a CNN made after Swin (Liu et al. 2022, A ConvNet for the 2020s)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.config.fields import PositiveFloat, PositiveInt
from jaxformer.models.base import OddInt, Staged, Stages
from jaxformer.models.block import LayerScale
from jaxformer.models.conv import Conv
from jaxformer.models.dropout import ResidualLayer
from jaxformer.models.head import logits_of
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.patches import PatchEmbedding, patch_map

truncated_normal = nn.initializers.truncated_normal(0.02)


class ConvNeXtBlock(ResidualLayer):
    """A depthwise convolution, a norm and an MLP over channels, around one residual (Liu et al. 2022, figure 4)."""

    mlp_dim: int
    """Hidden width of the MLP."""
    kernel_size: int
    """Size of the depthwise convolution's kernel, odd."""
    downsamples: bool
    """Halves height and width first, and doubles the channels, by a norm and a 2x2 convolution: the first
    block of a stage."""
    activation: ActivationName
    """Activation of the MLP."""
    layer_scale: float | None
    """First value of LayerScale; None has none."""
    norm_epsilon: float
    """Epsilon of the norms."""

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H, W, C], or to [B, H / 2, W / 2, 2 C] if it downsamples."""
        inits: dict[str, Any] = {"kernel_init": truncated_normal, **self.dtypes}
        if self.downsamples:
            x = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm_downsample")(x)
            x = patch_map(PatchEmbedding(2, 2 * x.shape[-1], **self.dtypes, name="conv_downsample"), x)
        conv = Conv(x.shape[-1], self.kernel_size, use_bias=True, depthwise=True, **inits, name="conv_1")
        y = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm_1")(conv(x))
        y = Mlp(self.mlp_dim, self.activation, out_init=truncated_normal, **inits, name="mlp")(y)
        if self.layer_scale is not None:
            y = LayerScale(self.layer_scale, **self.dtypes, name="layer_scale_1")(y)
        return x + self.branch(y, deterministic)


class ConvNeXt(Staged):
    """A ConvNeXt that classifies images."""

    stage_sizes: Stages = (3, 3, 9, 3)
    """Number of blocks in each stage; every stage but the first halves the feature map and doubles the width."""
    width: PositiveInt = 96
    """Number of channels of the first stage."""
    patch_size: PositiveInt = 4
    """Height and width of a patch of the stem."""
    kernel_size: OddInt = 7
    """Size of the depthwise convolutions' kernels, odd."""
    mlp_ratio: PositiveInt = 4
    """Hidden width of the MLPs over the width."""
    activation: ActivationName = "gelu_erf"
    """Activation of the MLPs."""
    layer_scale: float | None = 1e-6
    """First value of LayerScale (Touvron et al. 2021, CaiT); None has none."""
    norm_epsilon: PositiveFloat = 1e-6
    """Epsilon of every LayerNorm."""

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs is the last feature map."""
        stem = PatchEmbedding(self.patch_size, self.width, **self.dtypes, name="patch_embedding")
        x = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm_stem")(
            patch_map(stem, image)
        )  # [B, h, w, C]

        def block(stage: int, i: int, **common: Any) -> nn.Module:
            return ConvNeXtBlock(
                mlp_dim=self.mlp_ratio * self.width * 2 ** (stage - 1),
                downsamples=stage > 1 and i == 0,
                **self.passed_on("kernel_size", "activation", "layer_scale", "norm_epsilon") | common,
            )

        maps = self.staged(x, block, deterministic)
        features = jnp.mean(maps[-1], axis=(1, 2), dtype=jnp.float32).astype(self.dtype)  # [B, C]
        features = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm")(features)
        logits = logits_of(features, self.num_classes, self.param_dtype)
        return ImageOutputs(logits, features, maps[-1], maps)
