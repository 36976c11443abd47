"""Segmenter's decoder: classes as tokens among the patches (Strudel et al. 2021, section 3.2)."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.block import Block
from jaxformer.models.conv import Conv
from jaxformer.models.dense import Dense
from jaxformer.models.mlp import ActivationName
from jaxformer.models.norms import LayerNorm
from jaxformer.models.problems import heads, rates, sizes
from jaxformer.models.stack import Stack

Dtype = Any
normal = nn.initializers.normal(0.02)
UNIT = 1e-12  # the least length that a token is divided by


class MaskTransformer(nn.Module):
    """A few blocks over patches and one learned token a class; a mask is how alike its token and each patch are."""

    width: int = 192
    """D, of the tokens."""
    depth: int = 2
    """blocks."""
    num_heads: int = 3
    """Attention heads; must divide width."""
    mlp_dim: int | None = None
    """The MLPs' hidden width; None: 4 x width."""
    level: int = -1
    """Which of the backbone's maps is decoded; -1 is the last."""
    activation: ActivationName = "gelu_erf"
    """The MLPs'; the authors' code has the exact GELU."""
    norm_epsilon: float = 1e-5
    """Of every LayerNorm; the authors' code has PyTorch's 1e-5."""
    dropout: float = 0.0
    """After attention and in the MLPs."""
    drop_path: float = 0.0
    """Stochastic depth: the last block's rate, growing linearly from 0."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        """Yields a line for every impossible combination of fields."""
        yield from heads(self)
        yield from sizes(self, "depth", "mlp_dim")
        yield from rates(self, "dropout", "drop_path")

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], num_classes: int, deterministic: bool) -> jax.Array:
        """Logits float32 [B, h, w, K] on the grid of one of the maps."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        chosen = maps[self.level]
        batch, rows, columns = chosen.shape[:3]
        x = Conv(self.width, 1, use_bias=True, kernel_init=normal, **dtypes, name="conv_in")(chosen)
        x = x.reshape(batch, rows * columns, self.width)  # [B, T, D]
        classes = self.param("probe", normal, (1, num_classes, self.width), self.param_dtype)
        classes = jnp.broadcast_to(classes.astype(self.dtype), (batch, num_classes, self.width))
        block = {
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim or 4 * self.width,
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
            "dropout": self.dropout,
            "mlp_dropout": self.dropout,
            **dtypes,
        }
        stack = Stack(Block, block, self.depth, self.drop_path, name="encoder")
        x, _ = stack(jnp.concatenate([x, classes], axis=1), deterministic)
        x = LayerNorm(self.norm_epsilon, **dtypes, name="norm")(x)

        scaled = {"use_bias": False, "kernel_init": nn.initializers.normal(self.width**-0.5), **dtypes}
        patches = Dense(self.width, **scaled, name="head_patch")(x[:, :-num_classes])
        classes = Dense(self.width, **scaled, name="head_class")(x[:, -num_classes:])
        # The products of unit vectors are small numbers, all alike at first: in float32, and normalised over classes.
        masks = jnp.einsum("btd,bkd->btk", unit(patches), unit(classes), precision="highest")
        masks = LayerNorm(self.norm_epsilon, param_dtype=self.param_dtype, name="norm_mask")(masks)
        return masks.reshape(batch, rows, columns, num_classes)


def unit(x: jax.Array) -> jax.Array:
    """Vectors [..., D] at a length of 1, float32."""
    x = x.astype(jnp.float32)
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, UNIT**2))
