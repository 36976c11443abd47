"""MLP-Mixer (Tolstikhin et al. 2021)."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.block import Beside, Layer, Shared
from jaxformer.models.drop_path import drop_path
from jaxformer.models.head import logits_of
from jaxformer.models.mlp import Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.patches import PatchEmbedding, on_grids, patch_problems
from jaxformer.models.problems import classes, rates, sizes
from jaxformer.models.stack import RematName, Stack

Dtype = Any


class MixerBlock(nn.Module):
    """An MLP over patches, then one over channels (Tolstikhin et al. 2021, equation 1)."""

    token_mlp_dim: int
    """Hidden width of the MLP over patches."""
    channel_mlp_dim: int
    """Hidden width of the MLP over channels."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    @nn.compact
    def __call__(
        self, x: jax.Array, layer: Layer, shared: Shared, deterministic: bool
    ) -> tuple[jax.Array, Beside]:
        """Maps [B, T, D] to [B, T, D], as a block of a `Stack`."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def branch(y: jax.Array) -> jax.Array:
            if layer.drop_path is not None and not deterministic:
                y = drop_path(y, layer.drop_path, self.make_rng("dropout"))
            return y

        y = LayerNorm(**dtypes, name="norm_1")(x).swapaxes(1, 2)  # [B, D, T]
        y = Mlp(self.token_mlp_dim, **dtypes, name="mlp_tokens")(y)
        x = x + branch(y.swapaxes(1, 2))  # [B, T, D]
        y = LayerNorm(**dtypes, name="norm_2")(x)
        return x + branch(Mlp(self.channel_mlp_dim, **dtypes, name="mlp_channels")(y)), Beside()


class MLPMixer(nn.Module):
    """An MLP-Mixer that classifies images."""

    image_size: int = 224
    """Height and width of the images, in pixels."""
    patch_size: int = 16
    """Height and width of a patch; must divide image_size."""
    width: int = 768
    """D, channels."""
    depth: int = 12
    """blocks."""
    token_mlp_dim: int = 384
    """Hidden width of the MLPs over patches."""
    channel_mlp_dim: int = 3072
    """Hidden width of the MLPs over channels."""
    num_classes: int = 1000
    """K; 0 has no head."""
    drop_path: float = 0.0
    """Stochastic depth: the last block's rate, growing linearly from 0."""
    remat: RematName = "none"
    """What the backward pass keeps instead of all activations: "none" keeps them all, "full" nothing but each
    block's input, "dots" the products, "dots_without_batch" those of dense layers."""
    scan: bool = False
    """Scans over stacked layers instead of unrolling them: compiles faster."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        """Yields a line for every impossible combination of fields."""
        yield from patch_problems(self.image_size, self.patch_size)
        yield from sizes(self, "width", "depth", "token_mlp_dim", "channel_mlp_dim")
        yield from classes(self)
        yield from rates(self, "drop_path")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches."""
        side = self.image_size // self.patch_size
        return side, side

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs are the patches."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = PatchEmbedding(self.patch_size, self.width, **dtypes, name="patch_embedding")(image)  # [B, T, D]
        block = {"token_mlp_dim": self.token_mlp_dim, "channel_mlp_dim": self.channel_mlp_dim, **dtypes}
        encoder = Stack(MixerBlock, block, self.depth, self.drop_path, self.remat, self.scan, name="encoder")
        x, _ = encoder(x, deterministic)
        tokens = LayerNorm(**dtypes, name="norm")(x)
        features = jnp.mean(tokens, axis=1, dtype=jnp.float32).astype(self.dtype)
        logits = logits_of(features, self.num_classes, self.param_dtype)
        grid = image.shape[1] // self.patch_size, image.shape[2] // self.patch_size
        return ImageOutputs(logits, features, tokens, on_grids(tokens, [grid]))
