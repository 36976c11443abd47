"""Tables of vectors: tokens, positions, token types."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.base import Layer
from jaxformer.models.dense import Initializer, accumulated, turned


class Embedding(Layer):
    """A vector for each number, and the way back from vectors to numbers (Press and Wolf 2017)."""

    rows: int
    """How many numbers V."""
    features: int
    """D."""
    table_init: Initializer = nn.initializers.normal(0.02)
    """Of the table [V, D]."""

    def setup(self) -> None:
        """The table."""
        self.embedding = self.param(
            "embedding", self.table_init, (self.rows, self.features), self.param_dtype
        )

    def __call__(self, ids: jax.Array) -> jax.Array:
        """The vectors [..., D] of `ids` int [...]; what is out of range takes the nearest row."""
        return jnp.take(self.embedding, ids, axis=0, mode="clip").astype(self.dtype)

    def logits(self, x: jax.Array) -> jax.Array:
        """The products of x [..., D] with every row, float32 [..., V]."""
        return unembed(x.astype(self.dtype), self.embedding)


@jax.custom_vjp
def unembed(x: jax.Array, table: jax.Array) -> jax.Array:
    """x table^T, float32 [..., V], from x [..., D] and a table [V, D]; computed in the dtype of `x`.

    The backward pass is written out, as in `dense.affine`: products of operands in that dtype, added up in float32.
    """
    return unembed_forward(x, table)[0]


def unembed_forward(x: jax.Array, table: jax.Array) -> tuple[jax.Array, Any]:
    """The result, and what `unembed_backward` needs."""
    return accumulated(x, table.astype(x.dtype), x.ndim - 1, 1), (x, table)


def unembed_backward(saved: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gradients of x and table from the result's."""
    x, table = saved
    gradient = gradient.astype(x.dtype)
    of_x = accumulated(gradient, table.astype(x.dtype), gradient.ndim - 1, 0).astype(x.dtype)
    rows, gradient_rows = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    return of_x, accumulated(turned(gradient_rows), rows, 1, 0).astype(table.dtype)


unembed.defvjp(unembed_forward, unembed_backward)
