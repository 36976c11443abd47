"""Attention inside CNNs: what a ResNet's blocks can be given, by name.

To add one: a linen module that is derived from `CnnAttention`, and its line in ATTENTIONS.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.config.fields import PositiveFloat, PositiveInt, not_empty
from jaxformer.config.schema import choice
from jaxformer.models.attention import Attention, sown_attention
from jaxformer.models.base import Layer, OddInt
from jaxformer.models.conv import Conv
from jaxformer.models.dense import HeadsIn
from jaxformer.models.mlp import Mlp
from jaxformer.models.resampling import halved
from jaxformer.models.token_layout import Grid, TokenLayout, plain_layout

Maker: TypeAlias = Callable[..., nn.Module]
Numbers: TypeAlias = Annotated[tuple[int, ...], not_empty("at least one, or None for all")]
ATTENTIONS = {
    "botnet": "jaxformer.models.cnn_attention:BottleneckAttention",
    "cbam": "jaxformer.models.cnn_attention:CBAM",
    "coordinate": "jaxformer.models.cnn_attention:CoordinateAttention",
    "eca": "jaxformer.models.cnn_attention:EfficientChannelAttention",
    "non_local": "jaxformer.models.cnn_attention:NonLocal",
    "se": "jaxformer.models.cnn_attention:SqueezeExcitation",
}


@dataclass(frozen=True)
class Placement:
    """Which attention stands where in a ResNet."""

    module: Any = choice(ATTENTIONS)  # noqa: RUF009
    """One of ATTENTIONS, such as {"name": "se", "reduction": 8}."""
    stages: Numbers | None = None
    """Stages that have it, counted from 1; None: all."""
    blocks: Numbers | None = None
    """Blocks of each of these stages that have it, counted from 0, or from the end: -1 is the last; None:
    all."""

    def holds(self, stage: int, block: int, size: int) -> bool:
        """Whether block number `block` of the `size` blocks in a stage has it."""
        in_stage = self.stages is None or stage in self.stages
        return in_stage and (self.blocks is None or block in self.blocks or block - size in self.blocks)

    def misplaced(self, stage_sizes: tuple[int, ...]) -> Iterator[str]:
        """Yields a line if a network with these stages has no such stage or block."""
        for stage in self.stages or ():
            if not 1 <= stage <= len(stage_sizes):
                yield f"stages={list(self.stages or ())}: there are {len(stage_sizes)} stages, counted from 1"
        sizes = [size for stage, size in enumerate(stage_sizes, 1) if not self.stages or stage in self.stages]
        for block in self.blocks or ():
            if sizes and not any(-size <= block < size for size in sizes):
                yield f"blocks={list(self.blocks or ())}: there are {max(sizes)} blocks in a stage, counted from 0"


class CnnAttention(Layer):
    """A module that maps a feature map [B, H, W, C] to one of the same shape, `module(x, norm)`.

    `norm` makes the network's normalisation from linen keyword arguments. `where` says what the module is given:

      "branch"  the result of the residual branch, before it is added to the shortcut;
      "inner"   the input of a bottleneck's 3x3 convolution, which the module replaces; the block halves the result by
                the mean of each 2x2 where that convolution would have had a stride of 2;
      "block"   the result of the whole block.
    """

    where: ClassVar[Literal["branch", "inner", "block"]] = "branch"
    num_heads = 1

    def token_layout(self, grids: Sequence[Grid], asks: int, sees: int, cross: bool) -> TokenLayout:
        against = "its attention stands between convolutions"
        return plain_layout(grids, asks, sees, cross, against_rollout=against)


class SqueezeExcitation(CnnAttention):
    """A gate for each channel, by an MLP of the mean over all places (Hu et al. 2018, section 3)."""

    reduction: PositiveInt = 16
    """Number of channels over the number of hidden ones of the MLP."""

    @nn.compact
    def __call__(self, x: jax.Array, norm: Maker) -> jax.Array:
        mlp = Mlp(max(1, x.shape[-1] // self.reduction), "relu", **self.dtypes, name="mlp")
        return gated(x, mlp(squeezed(x, (1, 2), self.dtype)))


class EfficientChannelAttention(CnnAttention):
    """A gate for each channel, by a convolution over the channels' means (Wang et al. 2020, ECA-Net, section 3.2)."""

    gamma: PositiveFloat = 2.0
    """The gamma of equation 12, which gives the size of the convolution's kernel."""
    b: float = 1.0
    """The b of the same equation."""

    @nn.compact
    def __call__(self, x: jax.Array, norm: Maker) -> jax.Array:
        conv = Conv(1, (self.kernel_size(x.shape[-1]), 1), **self.dtypes, name="conv")
        means = squeezed(x, (1, 2), self.dtype).reshape(x.shape[0], -1, 1, 1)  # channels as a column
        return gated(x, conv(means).reshape(x.shape[0], 1, 1, -1))

    @nn.nowrap
    def kernel_size(self, channels: int) -> int:
        """How many neighbouring channels a gate sees: the odd number for this number of channels (equation 12)."""
        return int(abs((math.log2(channels) + self.b) / self.gamma)) | 1


class CBAM(CnnAttention):
    """A gate for each channel, then one for each place, both by means and maxima (Woo et al. 2018, section 3).

    The norm behind the convolution over places comes from the authors' code; the paper does not mention it.
    """

    reduction: PositiveInt = 16
    """Number of channels over the number of hidden ones of the MLP that gives channels their gates."""
    kernel_size: OddInt = 7
    """Size of the convolution that gives places their gates, odd."""
    use_bias: bool = True
    """Whether the MLP has biases: yes in the authors' code, no in timm's."""

    @nn.compact
    def __call__(self, x: jax.Array, norm: Maker) -> jax.Array:
        hidden = max(1, x.shape[-1] // self.reduction)
        mlp = Mlp(hidden, "relu", use_bias=self.use_bias, **self.dtypes, name="mlp")
        places = x.reshape(x.shape[0], -1, x.shape[3])  # [B, H W, C]
        of_channels = mlp(squeezed(places, 1, self.dtype)) + mlp(largest(places, 1))
        x = gated(x, of_channels[:, None])
        both = jnp.concatenate([squeezed(x, 3, self.dtype), largest(x, 3)], axis=3)
        return gated(x, norm(name="norm")(Conv(1, self.kernel_size, **self.dtypes, name="conv")(both)))


class CoordinateAttention(CnnAttention):
    """Gates for each row and each column, by the means over the other direction (Hou et al. 2021, section 3.2)."""

    reduction: PositiveInt = 32
    """Number of channels over the number of hidden ones."""
    least: PositiveInt = 8
    """Least number of hidden channels."""

    @nn.compact
    def __call__(self, x: jax.Array, norm: Maker) -> jax.Array:
        _, height, _, channels = x.shape
        conv: Maker = partial(Conv, kernel_size=1, use_bias=True, **self.dtypes)
        rows, columns = squeezed(x, 2, self.dtype), squeezed(x, 1, self.dtype).swapaxes(1, 2)
        y = jnp.concatenate([rows, columns], axis=1)  # [B, H + W, 1, C]
        y = conv(max(self.least, channels // self.reduction), name="conv")(y)
        y = nn.hard_swish(norm(name="norm")(y))
        of_rows = conv(channels, name="conv_rows")(y[:, :height])
        of_columns = conv(channels, name="conv_columns")(y[:, height:]).swapaxes(1, 2)
        return gated(gated(x, of_rows), of_columns)


class NonLocal(CnnAttention):
    """Attention from every place to all others, around a residual (Wang et al. 2018, section 3.2).

    It is the embedded Gaussian: one head of half the channels, whose logits are not scaled. The norm behind it starts
    as zero, so that the block starts as it would be without the attention (section 4.1).
    """

    where = "block"

    subsample: bool = True
    """Whether keys and values are of the maxima of each 2x2, which saves three quarters of the products
    (section 3.3)."""

    @nn.compact
    def __call__(self, x: jax.Array, norm: Maker) -> jax.Array:
        batch, _, _, channels = x.shape
        seen = halved(x, "max") if self.subsample else x
        attention = Attention(1, head_dim=max(1, channels // 2), scale=1.0, **self.dtypes, name="attention")
        y, _ = attention(x.reshape(batch, -1, channels), seen.reshape(batch, -1, channels))
        return x + norm(name="norm", scale_init=nn.initializers.zeros)(y.reshape(x.shape))


class BottleneckAttention(CnnAttention):
    """Self-attention with relative positions along both directions, for a 3x3 (Srinivas et al. 2021, BoTNet, figure 4).

    The tables of positions make the feature map's size part of the parameters. There is no projection behind it: the
    last 1x1 of the bottleneck is one. The weights are sown as those of `models.attention.Attention`.
    """

    where = "inner"

    num_heads: PositiveInt = 4
    """Number of heads H, which divides the channels."""

    @nn.compact
    def __call__(self, x: jax.Array, norm: Maker) -> jax.Array:
        batch, height, width, channels = x.shape
        head_dim = channels // self.num_heads
        tokens = x.reshape(batch, height * width, channels)

        def table(name: str, size: int) -> jax.Array:
            init, shape = nn.initializers.normal(head_dim**-0.5), (2 * size - 1, head_dim)
            return self.param(f"{name}_position_embedding", init, shape, self.param_dtype).astype(self.dtype)

        query, key, value = (
            HeadsIn(self.num_heads, head_dim, use_bias=False, **self.dtypes, name=name)(
                tokens
            )  # [B, H, T, Dh]
            for name in ("query", "key", "value")
        )
        query = query * jnp.asarray(head_dim**-0.5, query.dtype)
        bias = relative_logits(query, table("row", height), table("column", width))
        attended = sown_attention(self, query, key, value, bias=bias, scale=1.0)
        return attended.swapaxes(1, 2).reshape(x.shape)


def relative_logits(query: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """The logits that a query adds for the distance to each place (Srinivas et al. 2021, figure 4).

    Args:
      query: [B, H, T, Dh], T places row by row.
      rows: [2 height - 1, Dh], by the key's row minus the query's, from 1 - height on.
      columns: [2 width - 1, Dh], likewise.

    Returns:
      [B, H, T, T].
    """
    height, width = (len(rows) + 1) // 2, (len(columns) + 1) // 2
    batch, heads, places, head_dim = query.shape
    grid = query.reshape(batch, heads, height, width, head_dim)

    def distances(size: int) -> np.ndarray:
        """int [query, key]: where the embedding of each distance stands in its table."""
        return np.arange(size)[None, :] - np.arange(size)[:, None] + size - 1

    of_rows = jnp.einsum("bhyxd,yud->bhyxu", grid, rows[distances(height)])
    of_columns = jnp.einsum("bhyxd,xvd->bhyxv", grid, columns[distances(width)])
    shape = (batch, heads, height, width, height, width)
    both = jnp.broadcast_to(of_rows[..., None], shape) + jnp.broadcast_to(of_columns[..., None, :], shape)
    return both.reshape(batch, heads, places, places)


def gated(x: jax.Array, logits: jax.Array) -> jax.Array:
    """`x` [B, H, W, C] times the sigmoids of `logits`, which have one where all places or channels share a gate."""
    gates = nn.sigmoid(logits.astype(jnp.float32)).astype(x.dtype)
    return x * jnp.broadcast_to(gates, x.shape)


def squeezed(x: jax.Array, axis: int | tuple[int, ...], dtype: Any) -> jax.Array:
    """The mean of [B, H, W, C] over some axes, in float32, then in `dtype`; the axes stay, of size 1."""
    return jnp.mean(x, axis=axis, keepdims=True, dtype=jnp.float32).astype(dtype)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def largest(x: jax.Array, axis: int) -> jax.Array:
    """The maximum of `x` over one axis, which stays, of size 1.

    The gradient goes to the place of the maximum. The gradient of jnp.max asks which numbers equal the maximum, and
    where XLA computes `x` twice and rounds differently there may be none: 0 / 0.
    """
    return jnp.max(x, axis=axis, keepdims=True)


def largest_forward(x: jax.Array, axis: int) -> tuple[jax.Array, Any]:
    """The result, and what the backward pass needs."""
    place = jnp.argmax(x, axis=axis, keepdims=True)
    places = jax.lax.broadcasted_iota(place.dtype, x.shape, axis)
    return jnp.max(x, axis=axis, keepdims=True), places == jnp.broadcast_to(place, x.shape)


def largest_backward(axis: int, chosen: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    """The gradient of x from the gradient of the result."""
    return (jnp.where(chosen, jnp.broadcast_to(gradient, chosen.shape), jnp.zeros((), gradient.dtype)),)


largest.defvjp(largest_forward, largest_backward)
