"""MLP-Mixer (Tolstikhin et al. 2021)."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.dense import Dense
from jaxformer.models.mlp import Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.patches import PatchEmbedding

Dtype = Any


class MixerBlock(nn.Module):
    """An MLP over patches, then one over channels (Tolstikhin et al. 2021, equation 1).

    Attributes:
      token_mlp_dim: hidden width of the MLP over patches.
      channel_mlp_dim: hidden width of the MLP over channels.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    token_mlp_dim: int
    channel_mlp_dim: int
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = LayerNorm(**dtypes, name="norm_1")(x).swapaxes(1, 2)  # [B, D, T]
        y = Mlp(self.token_mlp_dim, **dtypes, name="mlp_tokens")(y, deterministic=deterministic)
        x = x + y.swapaxes(1, 2)
        y = LayerNorm(**dtypes, name="norm_2")(x)
        return x + Mlp(self.channel_mlp_dim, **dtypes, name="mlp_channels")(y, deterministic=deterministic)


class MLPMixer(nn.Module):
    """An MLP-Mixer that classifies images.

    Attributes:
      image_size: height and width of the images, in pixels.
      patch_size: height and width of a patch; must divide image_size.
      width: D, channels.
      depth: blocks.
      token_mlp_dim: hidden width of the MLPs over patches.
      channel_mlp_dim: hidden width of the MLPs over channels.
      num_classes: K.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    token_mlp_dim: int = 384
    channel_mlp_dim: int = 3072
    num_classes: int = 1000
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        """Yields a line for every impossible combination of fields."""
        if self.patch_size < 1 or self.image_size % self.patch_size:
            yield f"patch_size={self.patch_size} does not divide image_size={self.image_size}: use one that does"

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = PatchEmbedding(self.patch_size, self.width, **dtypes, name="patch_embedding")(image)  # [B, T, D]
        for i in range(self.depth):
            block = MixerBlock(self.token_mlp_dim, self.channel_mlp_dim, **dtypes, name=f"block_{i}")
            x = block(x, deterministic)
        tokens = LayerNorm(**dtypes, name="norm")(x)
        features = jnp.mean(tokens.astype(jnp.float32), axis=1).astype(self.dtype)
        head = Dense(self.num_classes, kernel_init=nn.initializers.zeros, **dtypes, name="head")
        return ImageOutputs(head(features).astype(jnp.float32), features, tokens)
