"""The Vision Transformer (Dosovitskiy et al. 2021)."""

from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.attention import Attention
from jaxformer.models.block import Block
from jaxformer.models.dense import Dense
from jaxformer.models.dropout import Dropout
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.patches import PatchEmbedding, patch_problems
from jaxformer.models.positions import sincos2d
from jaxformer.models.problems import heads, rates, sizes
from jaxformer.models.stack import RematName, Stack

Dtype = Any
normal = nn.initializers.normal(0.02)  # of positions and tokens, as in google-research/vision_transformer
lecun_normal = nn.initializers.lecun_normal()


class MapPool(nn.Module):
    """Multi-head attention pooling by one learned query (Zhai et al. 2022, section 3.4), as in big_vision.

    Attributes:
      num_heads: attention heads.
      mlp_dim: the MLP's hidden width.
      activation: the MLP's.
      norm_epsilon: of the LayerNorm.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    num_heads: int
    mlp_dim: int
    activation: ActivationName = "gelu_tanh"
    norm_epsilon: float = 1e-6
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Pools [B, T, D] to [B, D]."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        batch, _, width = tokens.shape
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, width), self.param_dtype)
        query = jnp.broadcast_to(probe.astype(self.dtype), (batch, 1, width))
        x, _ = Attention(self.num_heads, **dtypes, name="attention")(query, tokens)
        y = LayerNorm(self.norm_epsilon, **dtypes, name="norm")(x)
        x = x + Mlp(self.mlp_dim, self.activation, **dtypes, name="mlp")(y)
        return x[:, 0]


class ViT(nn.Module):
    """A Vision Transformer that classifies images.

    Attributes:
      image_size: height and width of the images, in pixels.
      patch_size: height and width of a patch; must divide image_size.
      width: D, of the tokens.
      depth: blocks.
      num_heads: attention heads; must divide width.
      num_classes: K.
      mlp_dim: the MLPs' hidden width; None: 4 x width.
      pool: what the head sees: the class token ("cls"), the mean of the patches ("average"), or attention
        pooling ("map"). Only "cls" has a class token.
      positions: a learned table, or fixed sines and cosines ("sincos2d").
      registers: extra learned tokens that are thrown away at the end (Darcet et al. 2024).
      representation: width of a tanh layer before the head, as Dosovitskiy et al. 2021 pretrain; None: no layer.
      layer_scale: first value of LayerScale (Touvron et al. 2021, CaiT); None has none.
      qk_norm: RMSNorm on queries and keys (Dehghani et al. 2023).
      activation: the MLPs'; "gelu_tanh" in JAX's ViTs, "gelu_erf" in transformers' and timm's.
      norm_epsilon: of every LayerNorm; 1e-6 in JAX's ViTs and timm's, 1e-12 in transformers'.
      dropout: after the embedding, after attention and in the MLPs.
      attention_dropout: of attention weights.
      drop_path: stochastic depth: the last block's rate, growing linearly from 0.
      remat: what the backward pass keeps instead of all activations: "none" keeps them all, "full" nothing
        but each block's input, "dots" the products, "dots_without_batch" those of dense layers.
      scan: scans over stacked layers instead of unrolling them: compiles faster.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    num_classes: int = 1000
    mlp_dim: int | None = None
    pool: Literal["cls", "average", "map"] = "cls"
    positions: Literal["learned", "sincos2d"] = "learned"
    registers: int = 0
    representation: int | None = None
    layer_scale: float | None = None
    qk_norm: bool = False
    activation: ActivationName = "gelu_tanh"
    norm_epsilon: float = 1e-6
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    remat: RematName = "none"
    scan: bool = False
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        """Yields a line for every impossible combination of fields."""
        yield from patch_problems(self.image_size, self.patch_size)
        yield from heads(self)
        yield from sizes(self, "depth", "num_classes", "mlp_dim", "representation")
        yield from rates(self, "dropout", "attention_dropout", "drop_path")
        if self.positions == "sincos2d" and (self.width % 4 or self.width < 8):
            yield f'width={self.width}: positions="sincos2d" needs a multiple of 4 from 8 on'
        if self.registers < 0:
            yield f"registers={self.registers}: expected 0 or more"
        if self.norm_epsilon <= 0:
            yield f"norm_epsilon={self.norm_epsilon}: expected more than 0, such as 1e-6"

    @property
    def prefix_tokens(self) -> int:
        """Tokens in front of the patches: the class token and the registers."""
        return (self.pool == "cls") + self.registers

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C].

        The outputs' "tokens" are the class token, the registers, then the patches, row by row.
        """
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        mlp_dim = self.mlp_dim or 4 * self.width
        x = PatchEmbedding(self.patch_size, self.width, **dtypes, name="patch_embedding")(image)  # [B, T, D]
        x = self.with_prefix_and_positions(x)
        x = Dropout(self.dropout)(x, deterministic=deterministic)

        block = {
            "num_heads": self.num_heads,
            "mlp_dim": mlp_dim,
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
            "layer_scale": self.layer_scale,
            "qk_norm": self.qk_norm,
            "dropout": self.dropout,
            "mlp_dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            **dtypes,
        }
        encoder = Stack(Block, block, self.depth, self.drop_path, self.remat, self.scan, name="encoder")
        x, _ = encoder(x, deterministic)
        tokens = LayerNorm(self.norm_epsilon, **dtypes, name="norm")(x)

        patches = tokens[:, self.prefix_tokens :]
        if self.pool == "cls":
            features = tokens[:, 0]  # [B, D]
        elif self.pool == "average":
            features = jnp.mean(patches, axis=1, dtype=jnp.float32).astype(self.dtype)
        else:
            pool = MapPool(self.num_heads, mlp_dim, self.activation, self.norm_epsilon, **dtypes, name="pool")
            features = pool(patches)
        if self.representation is not None:
            layer = Dense(self.representation, kernel_init=lecun_normal, **dtypes, name="representation")
            features = jnp.tanh(layer(features))
        # A head of zeros: every class is equally likely at first, as in google-research/vision_transformer.
        head = Dense(
            self.num_classes, kernel_init=nn.initializers.zeros, param_dtype=self.param_dtype, name="head"
        )
        return ImageOutputs(head(features), features, tokens)

    def with_prefix_and_positions(self, patches: jax.Array) -> jax.Array:
        """Patches [B, T, D] with their positions added, behind the class token and the registers.

        The learned table has a row for the class token and none for the registers, as in DINOv2.
        """
        batch, count, width = patches.shape
        has_class = self.pool == "cls"

        def for_batch(tokens: jax.Array) -> jax.Array:
            return jnp.broadcast_to(tokens.astype(self.dtype), (batch, *tokens.shape[1:]))

        x = patches
        if self.positions == "sincos2d":
            side = self.image_size // self.patch_size
            x = x + for_batch(jnp.asarray(sincos2d(side, side, width)))
        if has_class:
            token = self.param("class_token", nn.initializers.zeros, (1, 1, width), self.param_dtype)
            x = jnp.concatenate([for_batch(token), x], axis=1)  # [B, 1 + T, D]
        if self.positions == "learned":
            shape = (1, count + has_class, width)
            x = x + for_batch(self.param("position_embedding", normal, shape, self.param_dtype))
        if self.registers:
            tokens = self.param("register_tokens", normal, (1, self.registers, width), self.param_dtype)
            x = jnp.concatenate([x[:, :has_class], for_batch(tokens), x[:, has_class:]], axis=1)
        return x
