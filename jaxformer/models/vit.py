"""The Vision Transformer (Dosovitskiy et al. 2021)."""

from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.attention import Attention
from jaxformer.models.dense import Dense
from jaxformer.models.encoder import Encoder, RematName
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.patches import PatchEmbedding
from jaxformer.models.positions import sincos2d

Dtype = Any


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
        x = Attention(self.num_heads, **dtypes, name="attention")(query, tokens)
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
      pool: what the head sees: the class token ("cls"), the mean of the patches ("average"), or attention pooling
        ("map"). Only "cls" has a class token.
      positions: a learned table, or fixed sines and cosines ("sincos2d").
      registers: extra learned tokens that are thrown away at the end (Darcet et al. 2024).
      representation: width of a tanh layer before the head, as in pretraining by Dosovitskiy et al. 2021; or None.
      layer_scale: first value of LayerScale (Touvron et al. 2021, CaiT); None has none.
      qk_norm: RMSNorm on queries and keys (Dehghani et al. 2023).
      activation: the MLPs'.
      norm_epsilon: of every LayerNorm; 1e-6 in JAX's ViTs, 1e-12 in transformers'.
      dropout: after the embedding, after attention and in the MLPs.
      attention_dropout: of attention weights.
      drop_path: stochastic depth: the last block's rate, growing linearly from 0.
      remat: what the backward pass keeps instead of all activations: "none" keeps them all, "full" nothing but
        each block's input, "dots" the products, "dots_without_batch" those of dense layers.
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
        if self.patch_size < 1 or self.image_size % self.patch_size:
            divisors = [
                d for d in range(1, self.image_size + 1) if self.image_size % d == 0 and d < self.image_size
            ]
            near = min(divisors, key=lambda d: abs(d - self.patch_size), default=1)
            yield (
                f"patch_size={self.patch_size} does not divide image_size={self.image_size}: "
                f"use one that does, as {near}"
            )
        if self.num_heads < 1 or self.width % self.num_heads:
            yield f"num_heads={self.num_heads} does not divide width={self.width}: use a number of heads that does"
        if self.positions == "sincos2d" and self.width % 4:
            yield f'width={self.width}: positions="sincos2d" needs a multiple of 4'
        for name in ("depth", "num_classes"):
            if getattr(self, name) < 1:
                yield f"{name}={getattr(self, name)}: expected at least 1"
        for name in ("dropout", "attention_dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                yield f"{name}={getattr(self, name)}: expected a rate of at least 0 and less than 1"
        if self.registers < 0:
            yield f"registers={self.registers}: expected 0 or more"

    @property
    def prefix_tokens(self) -> int:
        """Tokens in front of the patches: the class token and the registers."""
        return (self.pool == "cls") + self.registers

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs are class token, registers, patches."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        mlp_dim = self.mlp_dim or 4 * self.width
        x = PatchEmbedding(self.patch_size, self.width, **dtypes, name="patch_embedding")(image)  # [B, T, D]
        x = self.with_prefix_and_positions(x)
        x = nn.Dropout(self.dropout)(x, deterministic=deterministic)

        block = {
            "num_heads": self.num_heads,
            "mlp_dim": mlp_dim,
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
            "layer_scale": self.layer_scale,
            "qk_norm": self.qk_norm,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "drop_paths": self.drop_path > 0,
            **dtypes,
        }
        x = Encoder(self.depth, block, self.drop_path, self.remat, self.scan, name="encoder")(
            x, deterministic
        )
        tokens = LayerNorm(self.norm_epsilon, **dtypes, name="norm")(x)

        if self.pool == "cls":
            features = tokens[:, 0]
        elif self.pool == "average":
            features = jnp.mean(tokens[:, self.prefix_tokens :].astype(jnp.float32), axis=1).astype(
                self.dtype
            )
        else:
            pool = MapPool(self.num_heads, mlp_dim, self.activation, self.norm_epsilon, **dtypes, name="pool")
            features = pool(tokens[:, self.prefix_tokens :])
        if self.representation is not None:
            features = jnp.tanh(Dense(self.representation, **dtypes, name="representation")(features))
        # A head of zeros: every class is equally likely at first, as in google-research/vision_transformer.
        head = Dense(self.num_classes, kernel_init=nn.initializers.zeros, **dtypes, name="head")
        return ImageOutputs(head(features).astype(jnp.float32), features, tokens)

    def with_prefix_and_positions(self, patches: jax.Array) -> jax.Array:
        """Patches [B, T, D] with their positions added, behind the class token and the registers.

        The learned table has a row for the class token and none for the registers, as in DINOv2.
        """
        batch, count, width = patches.shape
        has_class = self.pool == "cls"
        normal = nn.initializers.normal
        if self.positions == "sincos2d":
            side = self.image_size // self.patch_size
            x = patches + jnp.broadcast_to(
                jnp.asarray(sincos2d(side, side, width), self.dtype), patches.shape
            )
        else:
            x = patches
        if has_class:
            token = self.param("class_token", nn.initializers.zeros, (1, 1, width), self.param_dtype)
            x = jnp.concatenate([jnp.broadcast_to(token.astype(self.dtype), (batch, 1, width)), x], axis=1)
        if self.positions == "learned":
            # Of standard deviation 0.02, as in google-research/vision_transformer.
            shape = (1, count + has_class, width)
            table = self.param("position_embedding", normal(0.02), shape, self.param_dtype)
            x = x + jnp.broadcast_to(table.astype(self.dtype), x.shape)
        if self.registers:
            shape = (1, self.registers, width)
            tokens = self.param("register_tokens", normal(0.02), shape, self.param_dtype).astype(self.dtype)
            tokens = jnp.broadcast_to(tokens, (batch, *shape[1:]))
            x = jnp.concatenate([x[:, : int(has_class)], tokens, x[:, int(has_class) :]], axis=1)
        return x
