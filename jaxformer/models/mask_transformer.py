"""Segmenter's decoder: classes as tokens among the patches (Strudel et al. 2021, section 3.2)."""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.config.fields import PositiveFloat, PositiveInt, Rate
from jaxformer.models.base import head_problems
from jaxformer.models.block import Block
from jaxformer.models.conv import Conv
from jaxformer.models.dense import Dense
from jaxformer.models.mlp import ActivationName
from jaxformer.models.norms import LayerNorm
from jaxformer.models.segmentation_decoders import Decoder
from jaxformer.models.stack import Stack
from jaxformer.models.token_layout import Grid, TokenLayout, plain_layout

normal = nn.initializers.normal(0.02)
UNIT = 1e-12  # the least length that a token is divided by


class MaskTransformer(Decoder):
    """A few blocks over patches and one learned token a class; a mask is how alike its token and each patch are."""

    width: PositiveInt = 192
    """D, width of the tokens."""
    depth: PositiveInt = 2
    """Number of blocks."""
    num_heads: PositiveInt = 3
    """Number of attention heads; must divide width."""
    mlp_dim: PositiveInt | None = None
    """Hidden width of the MLPs; None: 4 x width."""
    level: int = -1
    """Which of the backbone's maps is decoded; -1 is the last."""
    activation: ActivationName = "gelu_erf"
    """Activation of the MLPs; the authors' code has the exact GELU."""
    norm_epsilon: PositiveFloat = 1e-5
    """Epsilon of every LayerNorm; the authors' code has PyTorch's 1e-5."""
    dropout: Rate = 0.0
    """Rate of dropout after attention and in the MLPs."""
    drop_path: Rate = 0.0
    """Stochastic depth: the last block's rate, growing linearly from 0."""

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        yield from head_problems(self.width, self.num_heads)

    @nn.nowrap
    def token_layout(self, grids: Sequence[Grid], asks: int, sees: int, cross: bool) -> TokenLayout:
        return plain_layout(
            grids, asks, sees, cross, in_front=0, whose="the classes' tokens"
        )  # they are behind

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], num_classes: int, deterministic: bool) -> jax.Array:
        """Logits float32 [B, h, w, K] on the grid of one of the maps."""
        chosen = maps[self.level]
        batch, rows, columns = chosen.shape[:3]
        x = Conv(self.width, 1, use_bias=True, kernel_init=normal, **self.dtypes, name="conv_in")(chosen)
        x = x.reshape(batch, rows * columns, self.width)  # [B, T, D]
        classes = self.param("probe", normal, (1, num_classes, self.width), self.param_dtype)
        classes = jnp.broadcast_to(classes.astype(self.dtype), (batch, num_classes, self.width))
        block = self.passed_on("num_heads", "activation", "norm_epsilon", "dropout")
        block |= {"mlp_dim": self.mlp_dim or 4 * self.width, "mlp_dropout": self.dropout}
        stack = Stack(Block, block, self.depth, self.drop_path, name="encoder")
        x, _ = stack(jnp.concatenate([x, classes], axis=1), deterministic)
        x = LayerNorm(self.norm_epsilon, **self.dtypes, name="norm")(x)

        scaled = {"use_bias": False, "kernel_init": nn.initializers.normal(self.width**-0.5), **self.dtypes}
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
