"""The Compact Convolutional Transformer (Hassani et al. 2021, Escaping the Big Data Paradigm)."""

from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.config.fields import Layers, Pixels, PositiveFloat, PositiveInt
from jaxformer.models.attention import ATTENTION_MAPS
from jaxformer.models.base import Adaptable, Classes, Dropouts, ImageModel, OddInt, head_problems
from jaxformer.models.block import Block
from jaxformer.models.conv import Conv, he_fan_in, truncated_normal
from jaxformer.models.dense import Dense
from jaxformer.models.dropout import Dropout
from jaxformer.models.mlp import ActivationName
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import ImageOutputs, classified
from jaxformer.models.patches import on_grids
from jaxformer.models.positions import sinusoidal
from jaxformer.models.resampling import max_pool
from jaxformer.models.stack import Stack


class CCT(ImageModel, Dropouts, Adaptable):
    """A Transformer whose tokens are made by convolutions, that classifies images."""

    image_size: Pixels = 32
    """Height and width of the images, in pixels; a learned table of positions is for this size."""
    conv_layers: Layers = 1
    """Number of convolutions before the Transformer; a ReLU and a max-pool that halves the map follow each."""
    kernel_size: OddInt = 3
    """Size of the convolutions' kernels, odd."""
    stride: PositiveInt = 1
    """Stride of the convolutions."""
    stem_width: PositiveInt = 64
    """Number of channels of all convolutions but the last."""
    width: PositiveInt = 256
    """D, width of the tokens."""
    depth: Layers = 7
    """Number of blocks."""
    num_heads: PositiveInt = 4
    """Number of attention heads; must divide width."""
    num_classes: Classes | None = 10
    """Number of classes K; 0 for a model without a head."""
    mlp_dim: PositiveInt | None = None
    """Hidden width of the MLPs; None: 2 x width."""
    pool: Literal["sequence", "average"] = "sequence"
    """What the head sees: the tokens, weighted by a softmax over all of them of one number that a linear map
    gives for each ("sequence", section 3.3 of the paper), or their mean ("average")."""
    positions: Literal["learned", "sinusoidal", "none"] = "learned"
    """A learned table, fixed sines and cosines, or "none": the convolutions tell positions, too."""
    activation: ActivationName = "gelu_erf"
    """Activation of the MLPs."""
    norm_epsilon: PositiveFloat = 1e-5
    """Epsilon of every LayerNorm."""

    def problems(self) -> Iterator[str]:
        yield from head_problems(self.width, self.num_heads)
        if self.positions == "sinusoidal" and self.width % 2:
            yield f'width={self.width}: positions="sinusoidal" needs an even number'

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs are the map's places, row by row."""
        x = image
        conv: dict[str, Any] = {"kernel_init": he_fan_in, **self.dtypes}
        for i in range(1, self.conv_layers + 1):  # equation 4
            width = self.width if i == self.conv_layers else self.stem_width
            x = Conv(width, self.kernel_size, self.stride, **conv, name=f"conv_stem_{i}")(x)
            x = nn.relu(max_pool(x))  # the same as before the pool, and a quarter of the work
        batch, rows, columns, width = x.shape
        x = x.reshape(batch, rows * columns, width)  # [B, T, D]
        if self.positions == "sinusoidal":
            x = x + jnp.broadcast_to(sinusoidal(jnp.arange(x.shape[1])[None], width).astype(x.dtype), x.shape)
        elif self.positions == "learned":
            init = nn.initializers.truncated_normal(0.2)  # as the authors' code has it
            table = self.param("position_embedding", init, (1, rows * columns, width), self.param_dtype)
            x = x + jnp.broadcast_to(table.astype(x.dtype), x.shape)
        x = Dropout(self.dropout)(x, deterministic=deterministic)
        # The MLP adds to normalised tokens, as in the authors' code (SHI-Labs/Compact-Transformers).
        own = {"norm_position": "between", "qkv_bias": False, "mlp_dim": self.mlp_dim or 2 * self.width}
        own |= {"kernel_init": truncated_normal, "out_init": truncated_normal, "mlp_dropout": self.dropout}
        block = self.passed_to(Block) | own
        encoder = Stack(Block, block, self.depth, self.drop_path, self.remat, self.scan, name="encoder")
        x, _ = encoder(x, deterministic)
        tokens = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm")(x)
        features = self.pooled(tokens) if self.pool == "sequence" else None  # [B, D]
        return classified(self, tokens, on_grids(tokens, [(rows, columns)]), features)

    def pooled(self, tokens: jax.Array) -> jax.Array:
        """The weighted mean [B, D] of tokens [B, T, D]."""
        score = Dense(1, kernel_init=truncated_normal, param_dtype=self.param_dtype, name="attention_pool")
        weights = nn.softmax(score(tokens), axis=1)  # [B, T, 1], float32
        if self.is_mutable_collection(ATTENTION_MAPS) and not self.is_initializing():
            self.put_variable(ATTENTION_MAPS, "pool", weights.swapaxes(1, 2)[:, None])  # [B, 1, 1, T]
        return jnp.einsum("bto,btd->bd", weights, tokens.astype(jnp.float32)).astype(self.dtype)
