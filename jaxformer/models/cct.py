"""The Compact Convolutional Transformer (Hassani et al. 2021, Escaping the Big Data Paradigm)."""

from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.attention import ATTENTION_MAPS, Attention
from jaxformer.models.block import Beside, Layer, Shared
from jaxformer.models.conv import Conv
from jaxformer.models.dense import Dense
from jaxformer.models.drop_path import drop_path
from jaxformer.models.dropout import Dropout
from jaxformer.models.head import logits_of
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.patches import on_grids
from jaxformer.models.pooling import max_pool
from jaxformer.models.positions import sinusoidal
from jaxformer.models.problems import classes, epsilons, heads, rates, sizes
from jaxformer.models.stack import RematName, Stack

Dtype = Any
truncated_normal = nn.initializers.truncated_normal(0.02)
he_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class CCTBlock(nn.Module):
    """Attention and MLP, each around a residual; the second norm is not in its branch but before the sum.

    That is how the authors' code has it (SHI-Labs/Compact-Transformers, src/utils/transformers.py): what the MLP adds
    to is normalised, x = norm_2(x + attention(norm_1(x))), then x + mlp(x). Query, key and value have no biases.
    """

    num_heads: int
    """Attention heads."""
    mlp_dim: int
    """The MLP's hidden width."""
    activation: ActivationName
    """The MLP's."""
    norm_epsilon: float
    """Of the norms."""
    dropout: float
    """Of each branch's result, and in the MLP."""
    attention_dropout: float
    """Of the attention weights."""
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
            y = Dropout(self.dropout)(y, deterministic=deterministic)
            if layer.drop_path is not None and not deterministic:
                y = drop_path(y, layer.drop_path, self.make_rng("dropout"))
            return y

        attention = Attention(
            self.num_heads,
            qkv_bias=False,
            dropout=self.attention_dropout,
            kernel_init=truncated_normal,
            out_init=truncated_normal,
            **dtypes,
            name="attention",
        )
        mlp = Mlp(
            self.mlp_dim,
            self.activation,
            self.dropout,
            kernel_init=truncated_normal,
            out_init=truncated_normal,
            **dtypes,
            name="mlp",
        )
        y = LayerNorm(self.norm_epsilon, **dtypes, name="norm_1")(x)
        x = x + branch(attention(y, deterministic=deterministic)[0])
        x = LayerNorm(self.norm_epsilon, **dtypes, name="norm_2")(x)
        return x + branch(mlp(x, deterministic=deterministic)), Beside()


class CCT(nn.Module):
    """A Transformer whose tokens are made by convolutions, that classifies images."""

    image_size: int = 32
    """Height and width of the images, in pixels; a learned table of positions is for this size."""
    conv_layers: int = 1
    """Convolutions before the Transformer; a ReLU and a max-pool that halves the map follow each."""
    kernel_size: int = 3
    """Of the convolutions, odd."""
    stride: int = 1
    """Of the convolutions."""
    stem_width: int = 64
    """Channels of all convolutions but the last."""
    width: int = 256
    """D, of the tokens."""
    depth: int = 7
    """blocks."""
    num_heads: int = 4
    """Attention heads; must divide width."""
    num_classes: int = 10
    """K; 0 has no head."""
    mlp_dim: int | None = None
    """The MLPs' hidden width; None: 2 x width."""
    pool: Literal["sequence", "average"] = "sequence"
    """What the head sees: the tokens, weighted by a softmax over all of them of one number that a linear map
    gives for each ("sequence", section 3.3 of the paper), or their mean ("average")."""
    positions: Literal["learned", "sinusoidal", "none"] = "learned"
    """A learned table, fixed sines and cosines, or "none": the convolutions tell positions, too."""
    activation: ActivationName = "gelu_erf"
    """The MLPs'."""
    norm_epsilon: float = 1e-5
    """Of every LayerNorm."""
    dropout: float = 0.0
    """After the positions, after attention and in the MLPs."""
    attention_dropout: float = 0.0
    """Of attention weights; 0.1 in the authors' code."""
    drop_path: float = 0.0
    """Stochastic depth: the last block's rate, growing linearly from 0; 0.1 in the authors' code."""
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
        yield from heads(self)
        yield from sizes(self, "image_size", "conv_layers", "stride", "stem_width", "depth", "mlp_dim")
        yield from classes(self)
        yield from rates(self, "dropout", "attention_dropout", "drop_path")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            yield f"kernel_size={self.kernel_size}: expected an odd number, such as 3"
        if self.positions == "sinusoidal" and self.width % 2:
            yield f'width={self.width}: positions="sinusoidal" needs an even number'
        yield from epsilons(self)

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs are the map's places, row by row."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = self.tokenized(image)
        batch, rows, columns, _ = x.shape
        x = x.reshape(batch, -1, self.width)  # [B, T, D]
        x = Dropout(self.dropout)(self.with_positions(x), deterministic=deterministic)
        block = {
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim or 2 * self.width,
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            **dtypes,
        }
        encoder = Stack(CCTBlock, block, self.depth, self.drop_path, self.remat, self.scan, name="encoder")
        x, _ = encoder(x, deterministic)
        tokens = LayerNorm(self.norm_epsilon, **dtypes, name="norm")(x)
        features = self.pooled(tokens)
        logits = logits_of(features, self.num_classes, self.param_dtype)
        return ImageOutputs(logits, features, tokens, on_grids(tokens, [(rows, columns)]))

    def tokenized(self, image: jax.Array) -> jax.Array:
        """The images' feature map [B, h, w, D] (Hassani et al. 2021, equation 4)."""
        x = image
        for i in range(1, self.conv_layers + 1):
            conv = Conv(
                self.width if i == self.conv_layers else self.stem_width,
                self.kernel_size,
                self.stride,
                kernel_init=he_fan_in,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
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
