"""The MLP of a Transformer block."""

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.base import Layer
from jaxformer.models.dense import Dense, Initializer, xavier
from jaxformer.models.dropout import Dropout

ActivationName: TypeAlias = Literal[
    "gelu_tanh", "gelu_erf", "relu", "relu_squared", "silu", "swiglu", "geglu", "geglu_erf"
]


def gelu_erf(x: jax.Array) -> jax.Array:
    """x Phi(x), the exact GELU (Hendrycks and Gimpel 2016), by the error function and in float32.

    (jax.nn.gelu takes the complement of the error function, which costs more than twice as much on CPUs.)
    """
    x32 = x.astype(jnp.float32)
    return (0.5 * x32 * (1 + jax.lax.erf(x32 * 0.5**0.5))).astype(x.dtype)


def gelu_tanh(x: jax.Array) -> jax.Array:
    """Its approximation by a tanh (Hendrycks and Gimpel 2016, section 2), in float32."""
    return jax.nn.gelu(x.astype(jnp.float32), approximate=True).astype(x.dtype)


def relu_squared(x: jax.Array) -> jax.Array:
    """max(x, 0)^2 (So et al. 2021, Primer)."""
    return jnp.square(jax.nn.relu(x))


# What is done to the hidden units. With a gate it is done to the gate, which they are then multiplied by
# (Shazeer 2020, GLU Variants Improve Transformer).
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_tanh": gelu_tanh,  # JAX's ViTs, GPT-2
    "gelu_erf": gelu_erf,  # BERT, transformers' ViT
    "relu": jax.nn.relu,
    "relu_squared": relu_squared,
    "silu": jax.nn.silu,
    "swiglu": jax.nn.silu,  # Llama, Qwen
    "geglu": gelu_tanh,  # T5 1.1
    "geglu_erf": gelu_erf,
}
GATED = frozenset({"swiglu", "geglu", "geglu_erf"})


class Mlp(Layer):
    """Two dense layers with an activation between (Vaswani et al. 2017, section 3.3), or three with a gate."""

    mlp_dim: int
    """The hidden width F."""
    activation: ActivationName = "gelu_tanh"
    """A key of ACTIVATIONS."""
    dropout: float = 0.0
    """After the activation."""
    use_bias: bool = True
    """Whether the layers have biases."""
    kernel_init: Initializer = xavier
    """Of the layers that go up."""
    out_init: Initializer = xavier
    """Of the layer that goes down."""

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """Maps [..., D] to [..., D]."""
        # Biases of standard deviation 1e-6, as in google-research/vision_transformer.
        common = {"use_bias": self.use_bias, "bias_init": nn.initializers.normal(1e-6), **self.dtypes}
        dense: Callable[..., nn.Module] = partial(Dense, **common)
        activation = ACTIVATIONS[self.activation]
        hidden = dense(self.mlp_dim, kernel_init=self.kernel_init, name="up")(x)  # [..., F]
        if self.activation in GATED:
            gate = dense(self.mlp_dim, kernel_init=self.kernel_init, name="gate")(x)
            hidden = activation(gate) * hidden
        else:
            hidden = activation(hidden)
        hidden = Dropout(self.dropout)(hidden, deterministic=deterministic)
        return dense(x.shape[-1], kernel_init=self.out_init, name="down")(hidden)
