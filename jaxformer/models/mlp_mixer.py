"""MLP-Mixer (Tolstikhin et al. 2021)."""

from collections.abc import Iterator

import jax
from flax import linen as nn

from jaxformer.config.fields import Input, Layers, Pixels, PositiveInt, Rate
from jaxformer.models.base import ImageModel, Stacked
from jaxformer.models.block import Aux, BlockInputs, StackInputs
from jaxformer.models.dropout import ResidualLayer
from jaxformer.models.mlp import Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import ImageOutputs, classified
from jaxformer.models.patches import PatchEmbedding, on_grids, patch_problems
from jaxformer.models.placement import split_by_rows
from jaxformer.models.stack import Stack
from jaxformer.models.token_layout import Grid


class MixerBlock(ResidualLayer):
    """An MLP over patches, then one over channels (Tolstikhin et al. 2021, equation 1)."""

    token_mlp_dim: int
    """Hidden width of the MLP over patches."""
    channel_mlp_dim: int
    """Hidden width of the MLP over channels."""

    @nn.compact
    def __call__(
        self, x: jax.Array, inputs: BlockInputs, shared: StackInputs, deterministic: bool
    ) -> tuple[jax.Array, Aux]:
        """Maps [B, T, D] to [B, T, D], as a block of a `Stack`."""
        x = split_by_rows(x)
        y = LayerNorm(**self.dtypes, name="norm_1")(x).swapaxes(1, 2)  # [B, D, T]
        y = Mlp(self.token_mlp_dim, **self.dtypes, name="mlp_tokens")(y)
        x = x + self.branch(y.swapaxes(1, 2), deterministic, inputs.drop_path)  # [B, T, D]
        y = LayerNorm(**self.dtypes, name="norm_2")(x)
        y = Mlp(self.channel_mlp_dim, **self.dtypes, name="mlp_channels")(y)
        return x + self.branch(y, deterministic, inputs.drop_path), Aux()


class MLPMixer(ImageModel, Stacked):
    """An MLP-Mixer that classifies images."""

    image_size: Pixels = 224
    """Height and width of the images, in pixels."""
    patch_size: PositiveInt = 16
    """Height and width of a patch; must divide image_size."""
    width: PositiveInt = 768
    """D, number of channels."""
    depth: Layers = 12
    """Number of blocks."""
    token_mlp_dim: PositiveInt = 384
    """Hidden width of the MLPs over patches."""
    channel_mlp_dim: PositiveInt = 3072
    """Hidden width of the MLPs over channels."""
    drop_path: Input[Rate] = 0.0
    """Stochastic depth: the last block's rate, growing linearly from 0."""

    def problems(self) -> Iterator[str]:
        yield from patch_problems(self.image_size, self.patch_size)

    @property
    def grid(self) -> Grid:
        """Rows and columns of the patches."""
        return (self.image_size // self.patch_size,) * 2

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs are the patches."""
        embedding = PatchEmbedding(self.patch_size, self.width, **self.dtypes, name="patch_embedding")
        block = self.passed_to(MixerBlock)
        encoder = Stack(MixerBlock, block, self.depth, self.drop_path, self.remat, self.scan, name="encoder")
        x, _ = encoder(embedding(image), deterministic)  # [B, T, D]
        tokens = LayerNorm(**self.dtypes, name="norm")(x)
        grid = image.shape[1] // self.patch_size, image.shape[2] // self.patch_size
        return classified(self, tokens, on_grids(tokens, [grid]))
