"""The MLP of a Transformer block, and a mixture of experts in its place."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from jaxformer.config.fields import NonNegativeFloat, PositiveFloat, PositiveInt, at_least
from jaxformer.models.base import Dtype, Layer
from jaxformer.models.dense import Dense, Initializer, xavier
from jaxformer.models.dropout import Dropout
from jaxformer.models.norms import recomputed
from jaxformer.models.remat import CHOICE, PRODUCT, named

ActivationName: TypeAlias = Literal[
    "gelu_tanh", "gelu_erf", "quick_gelu", "relu", "relu_squared", "silu", "swiglu", "geglu", "geglu_erf"
]


def gelu_erf(x: Array) -> Array:
    """x Phi(x), the exact GELU (Hendrycks and Gimpel 2016), by the error function and in float32.

    (jax.nn.gelu takes the complement of the error function, which costs more than twice as much on CPUs.)
    """
    x32 = x.astype(jnp.float32)
    return (0.5 * x32 * (1 + jax.lax.erf(x32 * 0.5**0.5))).astype(x.dtype)


def gelu_tanh(x: Array) -> Array:
    """Its approximation by a tanh (Hendrycks and Gimpel 2016, section 2), in float32."""
    return jax.nn.gelu(x.astype(jnp.float32), approximate=True).astype(x.dtype)


def quick_gelu(x: Array) -> Array:
    """Its approximation x sigmoid(1.702 x) (Hendrycks and Gimpel 2016, section 2), in float32."""
    x32 = x.astype(jnp.float32)
    return (x32 * jax.nn.sigmoid(1.702 * x32)).astype(x.dtype)


def relu_squared(x: Array) -> Array:
    """max(x, 0)^2 (So et al. 2021, Primer)."""
    return jnp.square(jax.nn.relu(x))


# What is done to the hidden units. With a gate it is done to the gate, which they are then multiplied by
# (Shazeer 2020, GLU Variants Improve Transformer).
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu_tanh": gelu_tanh,  # JAX's ViTs, GPT-2
    "gelu_erf": gelu_erf,  # BERT, transformers' ViT
    "quick_gelu": quick_gelu,  # OpenAI's CLIP
    "relu": jax.nn.relu,
    "relu_squared": relu_squared,
    "silu": jax.nn.silu,
    "swiglu": jax.nn.silu,  # Llama, Qwen
    "geglu": gelu_tanh,  # T5 1.1
    "geglu_erf": gelu_erf,
}
GATED = frozenset({"swiglu", "geglu", "geglu_erf"})


def hidden_units(activation: ActivationName, layer: Callable[[str], Array]) -> Array:
    """What the layer "up" gives after the activation; with a gate, times what the layer "gate" gives after it.

    For the backward pass only what the layers give is kept; the activation is computed again there.
    """
    act = ACTIVATIONS[activation]
    if activation in GATED:
        return recomputed(lambda up, gate: act(gate) * up)(layer("up"), layer("gate"))
    return recomputed(act)(layer("up"))


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
    """Initial values of the kernels that go up."""
    out_init: Initializer = xavier
    """Initial values of the kernel that goes down."""

    @nn.compact
    def __call__(self, x: Array, *, deterministic: bool = True) -> Array:
        """Maps [..., D] to [..., D]."""
        hidden = hidden_units(self.activation, lambda name: self.hidden(x, name))  # [..., F]
        hidden = Dropout(self.dropout)(hidden, deterministic=deterministic)
        return self.dense(x.shape[-1], self.out_init, "down")(hidden)

    def hidden(self, x: Array, name: str) -> Array:
        """What the activation, or the gate, is given: [..., F], by the layer of this name."""
        return self.dense(self.mlp_dim, self.kernel_init, name)(x)

    def dense(self, features: int, init: Initializer, name: str) -> Dense:
        """A layer; biases of standard deviation 1e-6, as in google-research/vision_transformer."""
        common = {"use_bias": self.use_bias, "bias_init": nn.initializers.normal(1e-6), **self.dtypes}
        return Dense(features, kernel_init=init, name=name, **common)


@dataclass(frozen=True)
class Experts:
    """How many experts there are and how tokens find them."""

    count: Annotated[int, at_least(2, "at least 2 experts")]
    """Number of experts E."""
    top_k: PositiveInt = 2
    """Number of experts that each token goes to; 1 is Switch (Fedus et al. 2022), 2 GShard (Lepikhin et al. 2021)."""
    capacity: PositiveFloat = 1.25
    """Places an expert has for a sequence, as a multiple of its even share of the tokens; tokens that find no
    place skip the expert. 1.25 is Switch's. Where places are few, which tokens get them depends on the whole
    text, later tokens too; where a text is written, each of its tokens has a place, and each of the prompt's."""
    balance: NonNegativeFloat = 0.01
    """Weight of the load-balance loss (Fedus et al. 2022, equation 4)."""
    z: NonNegativeFloat = 0.001
    """Weight of the router's z-loss (Zoph et al. 2022, ST-MoE, equation 5)."""

    def problems(self) -> Iterator[str]:
        """Yields a line for more choices than experts."""
        if self.top_k > self.count:
            yield f"top_k={self.top_k}: expected 1 to count={self.count}"

    @property
    def roomy(self) -> "Experts":
        """The same experts with a place for every token."""
        return replace(self, capacity=self.count / self.top_k)

    def places(self, tokens: int) -> int:
        """Places that each expert has for a sequence of `tokens`."""
        return min(tokens, max(1, -int(-self.capacity * self.top_k * tokens // self.count)))


@struct.dataclass
class RouterLosses:
    """What a router is taught besides the task, for each sequence, weighted; float32 [B].

    Of each sequence and not of the batch, so that they add up over microbatches and devices.
    """

    balance: Array
    """E sum_e (share of tokens sent to e) (mean probability of e): 1 where all experts get as much."""
    z: Array
    """The mean square of the logits' logarithm of sums."""


def route(probabilities: Array, valid: Array, config: Experts) -> tuple[Array, Array, Array]:
    """Which token takes which place of which expert, first come first served, first choices before second ones.

    Args:
      probabilities: float32 [B, T, E].
      valid: bool [B, T]; padding takes no place.
      config: the experts.

    Returns:
      experts: int32 [B, T, k], the chosen experts.
      places: int32 [B, T, k]; `config.places(T)` where there was no room. A sequence has the room of its own tokens,
        however long the others of the batch are.
      weights: float32 [B, T, k], what the experts' results are multiplied by: 0 where there was no room. With
        several experts a token's weights add up to 1 before that.
    """
    batch, tokens, count = probabilities.shape
    weights, experts = jax.lax.top_k(probabilities, config.top_k)
    if config.top_k > 1:
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    chosen = jax.nn.one_hot(experts, count, dtype=jnp.int32) * valid[:, :, None, None]  # [B, T, k, E]
    queue = chosen.swapaxes(1, 2).reshape(batch, -1, count)  # first choices of all tokens first
    before = (jnp.cumsum(queue, axis=1) - queue).reshape(batch, config.top_k, tokens, count).swapaxes(1, 2)
    places = jnp.sum(before * chosen, axis=-1)
    room = jnp.array([config.places(count) for count in range(tokens + 1)])[jnp.sum(valid, axis=1)]  # [B]
    fits = (places < room[:, None, None]) & valid[:, :, None]
    return experts, jnp.where(fits, places, config.places(tokens)), jnp.where(fits, weights, 0.0)


class ExpertMlp(Layer):
    """An MLP of experts: kernels have an axis for experts in front."""

    config: Experts
    """The experts."""
    mlp_dim: int
    """Each expert's hidden width F."""
    activation: ActivationName = "gelu_tanh"
    """The experts'."""
    kernel_init: Initializer = xavier
    """Initial values of the kernels that go up, each as of one matrix."""
    out_init: Initializer = xavier
    """Initial values of the kernels that go down."""

    @nn.compact
    def __call__(self, x: Array, valid: Array | None = None) -> tuple[Array, RouterLosses]:
        """Maps [B, T, D] to [B, T, D], beside the router's losses; `valid` bool [B, T] is False on padding."""
        batch, tokens, width = x.shape
        config = self.config
        valid = jnp.ones((batch, tokens), bool) if valid is None else valid
        router = self.param("router", self.kernel_init, (width, config.count), self.param_dtype)
        logits = x.astype(jnp.float32) @ router.astype(jnp.float32)  # [B, T, E]
        probabilities = jax.nn.softmax(logits, axis=-1)
        experts, places, weights = (named(x, CHOICE) for x in route(probabilities, valid, config))
        capacity = config.places(tokens)

        # Tokens to their places [B, E, C] by index; what found no room is written behind the last place.
        rows = jnp.arange(batch)[:, None, None]
        filled = jnp.zeros((batch, config.count, capacity + 1), jnp.int32)
        index = jnp.broadcast_to(jnp.arange(tokens)[None, :, None], experts.shape)
        token_at = filled.at[rows, experts, places].set(index)[:, :, :capacity]
        taken = filled.at[rows, experts, places].set(1)[:, :, :capacity]
        inputs = x[rows, token_at]  # [B, E, C, D]
        inputs = inputs * taken[..., None].astype(x.dtype)
        # In front, experts are a batch axis that XLA's CPU products take in 16 bits.
        inputs = inputs.swapaxes(0, 1)  # [E, B, C, D]

        up = partial(self.each, self.mlp_dim, self.kernel_init, inputs)
        hidden = hidden_units(self.activation, up)
        outputs = self.each(width, self.out_init, hidden, "down")

        back = outputs[experts, rows, jnp.minimum(places, capacity - 1)]  # [B, T, k, D]
        y = jnp.sum(back.astype(jnp.float32) * weights[..., None], axis=2).astype(self.dtype)
        return y, self.losses(logits, probabilities, experts, valid)

    def each(self, features: int, init: Initializer, x: Array, name: str) -> Array:
        """Every expert's own product: x [E, B, C, n] to [E, B, C, features]."""
        count, inputs = self.config.count, x.shape[-1]

        def initialize(key: Array, shape: tuple[int, ...], dtype: Dtype) -> Array:
            return jnp.stack([init(k, shape[1:], dtype) for k in jax.random.split(key, shape[0])])

        kernel = self.param(f"{name}_kernel", initialize, (count, inputs, features), self.param_dtype)
        y = jnp.einsum("ebcn,enf->ebcf", x, kernel.astype(self.dtype), preferred_element_type=jnp.float32)
        return named(y.astype(self.dtype), PRODUCT)

    def losses(self, logits: Array, probabilities: Array, experts: Array, valid: Array) -> RouterLosses:
        """The router's losses over each sequence's tokens."""
        count = jnp.maximum(jnp.sum(valid, axis=1), 1).astype(jnp.float32)  # [B]
        seen = valid.astype(jnp.float32)
        sent = jnp.sum(jax.nn.one_hot(experts, self.config.count) * seen[..., None, None], axis=(1, 2))
        mean = jnp.sum(probabilities * seen[..., None], axis=1) / count[:, None]
        share = sent / (count * self.config.top_k)[:, None]
        balance = self.config.count * jnp.sum(share * mean, axis=-1)
        z = jnp.sum(jnp.square(jax.nn.logsumexp(logits, axis=-1)) * seen, axis=1) / count
        return RouterLosses(self.config.balance * balance, self.config.z * z)
