"""The Transformer encoder: pre-norm blocks, unrolled or scanned over."""

from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.attention import ATTENTION_MAPS, Attention
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm

Dtype = Any
RematName: TypeAlias = Literal["none", "full", "dots", "dots_without_batch"]

# What a rematerialised block keeps for its backward pass, instead of all of its activations.
REMAT_POLICIES: dict[str, Any] = {
    "full": None,  # nothing but the block's input
    "dots": jax.checkpoint_policies.checkpoint_dots,  # the results of all matrix products
    "dots_without_batch": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,  # of dense layers alone
}


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch (Touvron et al. 2021, CaiT, section 2).

    Attributes:
      initial: the factor's first value.
      dtype: of the computation.
      param_dtype: of the factors.
    """

    initial: float
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Scales [..., D]."""
        scale = self.param("scale", nn.initializers.constant(self.initial), (x.shape[-1],), self.param_dtype)
        return x * jnp.broadcast_to(scale.astype(self.dtype), x.shape)


def drop_path(x: jax.Array, rate: jax.Array | float, key: jax.Array) -> jax.Array:
    """Leaves a residual branch out for some examples (Huang et al. 2016), keeping its expectation.

    Args:
      x: [B, ...].
      rate: the share of examples that lose the branch; may be traced.
      key: a random key.
    """
    keep = 1 - jnp.asarray(rate, jnp.float32)
    kept = jax.random.bernoulli(key, keep, (x.shape[0],) + (1,) * (x.ndim - 1))
    return x * jnp.broadcast_to((kept / keep).astype(x.dtype), x.shape)


class EncoderBlock(nn.Module):
    """Attention and MLP, each behind a norm and around a residual (Dosovitskiy et al. 2021, equations 2 and 3).

    Attributes:
      num_heads: attention heads.
      mlp_dim: the MLP's hidden width.
      activation: the MLP's.
      norm_epsilon: of the LayerNorms.
      layer_scale: the first value of LayerScale; None has none.
      qk_norm: normalises queries and keys.
      dropout: after attention and in the MLP.
      attention_dropout: of the attention weights.
      drop_paths: whether residual branches may be left out.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    num_heads: int
    mlp_dim: int
    activation: ActivationName = "gelu_tanh"
    norm_epsilon: float = 1e-6
    layer_scale: float | None = None
    qk_norm: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_paths: bool = False
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, drop_path_rate: jax.Array, deterministic: bool
    ) -> tuple[jax.Array, None]:
        """Maps [B, T, D] to [B, T, D]; `drop_path_rate` is this layer's. (None is what a scan collects.)"""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def branch(y: jax.Array, number: int) -> jax.Array:
            if self.layer_scale is not None:
                y = LayerScale(self.layer_scale, **dtypes, name=f"layer_scale_{number}")(y)
            if self.drop_paths and not deterministic:
                y = drop_path(y, drop_path_rate, self.make_rng("dropout"))
            return y

        y = LayerNorm(self.norm_epsilon, **dtypes, name="norm_1")(x)
        y = Attention(self.num_heads, self.qk_norm, self.attention_dropout, **dtypes, name="attention")(
            y, deterministic=deterministic
        )
        y = nn.Dropout(self.dropout)(y, deterministic=deterministic)
        x = x + branch(y, 1)
        y = LayerNorm(self.norm_epsilon, **dtypes, name="norm_2")(x)
        y = Mlp(self.mlp_dim, self.activation, self.dropout, **dtypes, name="mlp")(
            y, deterministic=deterministic
        )
        return x + branch(y, 2), None


class Encoder(nn.Module):
    """A stack of blocks.

    Attributes:
      depth: how many.
      block: fields of every EncoderBlock.
      drop_path: the last block's rate; it grows linearly from 0 in the first.
      remat: what the backward pass keeps; a key of REMAT_POLICIES, or "none" to keep everything.
      scan: one block scanned over stacked parameters ("blocks", a leading axis for layers) instead of `depth`
        blocks ("block_0", ...): compiles once whatever the depth. weights/layouts.py converts between the two.
    """

    depth: int
    block: dict[str, Any]
    drop_path: float = 0.0
    remat: RematName = "none"
    scan: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Maps [B, T, D] to [B, T, D]."""
        rates = jnp.linspace(0.0, self.drop_path, self.depth, dtype=jnp.float32)
        block: Any = EncoderBlock
        if self.remat != "none":
            policy = REMAT_POLICIES[self.remat]
            block = nn.remat(block, policy=policy, prevent_cse=not self.scan, static_argnums=(3,))
        if not self.scan:
            for i in range(self.depth):
                x, _ = block(**self.block, name=f"block_{i}")(x, rates[i], deterministic)
            return x
        stack = nn.scan(
            block,
            variable_axes={"params": 0, ATTENTION_MAPS: 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast),
            length=self.depth,
        )
        return stack(**self.block, name="blocks")(x, rates, deterministic)[0]
