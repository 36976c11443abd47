"""The Compact Convolutional Transformer (Hassani et al. 2021, Escaping the Big Data Paradigm)."""

from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.config.fields import PositiveFloat, PositiveInt
from jaxformer.models.attention import ATTENTION_MAPS, Attention
from jaxformer.models.base import Classes, Dropouts, ImageModel, OddInt, Stacked, head_problems
from jaxformer.models.block import Aux, BlockInputs, StackInputs
from jaxformer.models.conv import Conv
from jaxformer.models.dense import Dense
from jaxformer.models.dropout import Dropout, ResidualLayer
from jaxformer.models.head import logits_of
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.patches import on_grids
from jaxformer.models.pooling import max_pool
from jaxformer.models.positions import sinusoidal
from jaxformer.models.stack import Stack

truncated_normal = nn.initializers.truncated_normal(0.02)
he_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class CCTBlock(ResidualLayer):
    """Attention and MLP, each around a residual; the second norm is not in its branch but before the sum.

    That is how the authors' code has it (SHI-Labs/Compact-Transformers, src/utils/transformers.py): what the MLP adds
    to is normalised, x = norm_2(x + attention(norm_1(x))), then x + mlp(x). Query, key and value have no biases.
    """

    num_heads: int
    """Number of attention heads."""
    mlp_dim: int
    """Hidden width of the MLP."""
    activation: ActivationName
    """Activation of the MLP."""
    norm_epsilon: float
    """Epsilon of the norms."""

    @nn.compact
    def __call__(
        self, x: jax.Array, inputs: BlockInputs, shared: StackInputs, deterministic: bool
    ) -> tuple[jax.Array, Aux]:
        """Maps [B, T, D] to [B, T, D], as a block of a `Stack`."""
        inits: dict[str, Any] = {"kernel_init": truncated_normal, "out_init": truncated_normal, **self.dtypes}
        attention = Attention(
            self.num_heads, qkv_bias=False, dropout=self.attention_dropout, **inits, name="attention"
        )
        mlp = Mlp(self.mlp_dim, self.activation, self.dropout, **inits, name="mlp")
        y = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm_1")(x)
        y, _ = attention(y, deterministic=deterministic)
        x = x + self.branch(y, deterministic, inputs.drop_path)
        x = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm_2")(x)
        y = mlp(x, deterministic=deterministic)
        return x + self.branch(y, deterministic, inputs.drop_path), Aux()


class CCT(ImageModel, Dropouts, Stacked):
    """A Transformer whose tokens are made by convolutions, that classifies images."""

    image_size: PositiveInt = 32
    """Height and width of the images, in pixels; a learned table of positions is for this size."""
    conv_layers: PositiveInt = 1
    """Number of convolutions before the Transformer; a ReLU and a max-pool that halves the map follow each."""
    kernel_size: OddInt = 3
    """Size of the convolutions' kernels, odd."""
    stride: PositiveInt = 1
    """Stride of the convolutions."""
    stem_width: PositiveInt = 64
    """Number of channels of all convolutions but the last."""
    width: PositiveInt = 256
    """D, width of the tokens."""
    depth: PositiveInt = 7
    """Number of blocks."""
    num_heads: PositiveInt = 4
    """Number of attention heads; must divide width."""
    num_classes: Classes = 10
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

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        yield from head_problems(self.width, self.num_heads)
        if self.positions == "sinusoidal" and self.width % 2:
            yield f'width={self.width}: positions="sinusoidal" needs an even number'

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs are the map's places, row by row."""
        x = self.tokenized(image)  # [B, h, w, D]
        batch, rows, columns, _ = x.shape
        x = x.reshape(batch, -1, self.width)  # [B, T, D]
        x = Dropout(self.dropout)(self.with_positions(x), deterministic=deterministic)
        block = self.passed_on("num_heads", "activation", "norm_epsilon", "dropout", "attention_dropout")
        block["mlp_dim"] = self.mlp_dim or 2 * self.width
        encoder = Stack(CCTBlock, block, self.depth, self.drop_path, self.remat, self.scan, name="encoder")
        x, _ = encoder(x, deterministic)
        tokens = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm")(x)
        features = self.pooled(tokens)  # [B, D]
        logits = logits_of(features, self.num_classes, self.param_dtype)
        return ImageOutputs(logits, features, tokens, on_grids(tokens, [(rows, columns)]))

    def tokenized(self, image: jax.Array) -> jax.Array:
        """The images' feature map [B, h, w, D] (Hassani et al. 2021, equation 4)."""
        x = image
        for i in range(1, self.conv_layers + 1):
            width = self.width if i == self.conv_layers else self.stem_width
            conv = Conv(
                width,
                self.kernel_size,
                self.stride,
                kernel_init=he_fan_in,
                **self.dtypes,
                name=f"conv_stem_{i}",
            )
            x = nn.relu(max_pool(conv(x)))  # the same as before the pool, and a quarter of the work
        return x

    def with_positions(self, tokens: jax.Array) -> jax.Array:
        """Tokens [B, T, D] with their positions added."""
        _, count, width = tokens.shape
        if self.positions == "none":
            return tokens
        if self.positions == "sinusoidal":
            table = sinusoidal(jnp.arange(count)[None], width)
        else:
            init = nn.initializers.truncated_normal(0.2)  # as the authors' code has it
            table = self.param("position_embedding", init, (1, count, width), self.param_dtype)
        return tokens + jnp.broadcast_to(table.astype(self.dtype), tokens.shape)

    def pooled(self, tokens: jax.Array) -> jax.Array:
        """What the head sees of tokens [B, T, D]: [B, D]."""
        if self.pool == "average":
            return jnp.mean(tokens, axis=1, dtype=jnp.float32).astype(self.dtype)
        score = Dense(1, kernel_init=truncated_normal, param_dtype=self.param_dtype, name="attention_pool")
        weights = nn.softmax(score(tokens), axis=1)  # [B, T, 1], float32
        if self.is_mutable_collection(ATTENTION_MAPS) and not self.is_initializing():
            self.put_variable(ATTENTION_MAPS, "pool", weights.swapaxes(1, 2)[:, None])  # [B, 1, 1, T]
        return jnp.einsum("bto,btd->bd", weights, tokens.astype(jnp.float32)).astype(self.dtype)
