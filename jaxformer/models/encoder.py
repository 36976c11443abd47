"""The block of a Transformer encoder."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.attention import Attention
from jaxformer.models.drop_path import drop_path
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import LayerNorm

Dtype = Any


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


class EncoderBlock(nn.Module):
    """Attention and MLP, each behind a norm, around a residual (Dosovitskiy et al. 2021, equations 2 and 3).

    Attributes:
      num_heads: attention heads.
      mlp_dim: the MLP's hidden width.
      activation: the MLP's.
      norm_epsilon: of the LayerNorms.
      layer_scale: the first value of LayerScale; None has none.
      qk_norm: normalises queries and keys.
      dropout: after attention and in the MLP.
      attention_dropout: of the attention weights.
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
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, drop_path_rate: jax.Array | None, deterministic: bool
    ) -> tuple[jax.Array, None]:
        """Maps [B, T, D] to [B, T, D], as a block of a `Stack`."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def branch(y: jax.Array, number: int) -> jax.Array:
            if self.layer_scale is not None:
                y = LayerScale(self.layer_scale, **dtypes, name=f"layer_scale_{number}")(y)
            if drop_path_rate is not None and not deterministic:
                y = drop_path(y, drop_path_rate, self.make_rng("dropout"))
            return y

        y = LayerNorm(self.norm_epsilon, **dtypes, name="norm_1")(x)
        attention = Attention(
            self.num_heads, self.qk_norm, self.attention_dropout, **dtypes, name="attention"
        )
        y = attention(y, deterministic=deterministic)
        y = nn.Dropout(self.dropout)(y, deterministic=deterministic)
        x = x + branch(y, 1)
        y = LayerNorm(self.norm_epsilon, **dtypes, name="norm_2")(x)
        y = Mlp(self.mlp_dim, self.activation, self.dropout, **dtypes, name="mlp")(
            y, deterministic=deterministic
        )
        return x + branch(y, 2), None
