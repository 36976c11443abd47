"""The MLP of a Transformer block."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.dense import Dense

Dtype = Any
ActivationName: TypeAlias = Literal["gelu_tanh", "gelu_erf", "relu", "silu"]


def gelu_erf(x: jax.Array) -> jax.Array:
    """x Phi(x), the exact GELU (Hendrycks and Gimpel 2016), by the error function and in float32.

    (jax.nn.gelu takes the complement of the error function, which costs more than twice as much on CPUs.)
    """
    x32 = x.astype(jnp.float32)
    return (0.5 * x32 * (1 + jax.lax.erf(x32 * 0.5**0.5))).astype(x.dtype)


def gelu_tanh(x: jax.Array) -> jax.Array:
    """Its approximation by a tanh (Hendrycks and Gimpel 2016, section 2), in float32."""
    return jax.nn.gelu(x.astype(jnp.float32), approximate=True).astype(x.dtype)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_tanh": gelu_tanh,  # JAX's ViTs, GPT-2
    "gelu_erf": gelu_erf,  # BERT, transformers' ViT
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


class Mlp(nn.Module):
    """Two dense layers with an activation between (Vaswani et al. 2017, section 3.3).

    Attributes:
      mlp_dim: the hidden width F.
      activation: a key of ACTIVATIONS.
      dropout: after the activation and at the end.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    mlp_dim: int
    activation: ActivationName = "gelu_tanh"
    dropout: float = 0.0
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """Maps [..., D] to [..., D]."""
        # Biases of standard deviation 1e-6, as in google-research/vision_transformer.
        dense = partial(
            Dense, bias_init=nn.initializers.normal(1e-6), dtype=self.dtype, param_dtype=self.param_dtype
        )
        hidden = ACTIVATIONS[self.activation](dense(self.mlp_dim, name="up")(x))  # [..., F]
        hidden = nn.Dropout(self.dropout)(hidden, deterministic=deterministic)
        y = dense(x.shape[-1], name="down")(hidden)
        return nn.Dropout(self.dropout)(y, deterministic=deterministic)
