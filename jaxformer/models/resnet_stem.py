"""What stands in front of a ResNet's stages."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.conv import PaddingName
from jaxformer.models.pooling import max_pool

StemName: TypeAlias = Literal["imagenet", "bit", "deep", "small"]


def resnet_stem(
    image: jax.Array,
    kind: StemName,
    width: int,
    activates: bool,
    padding: PaddingName,
    conv: Callable[..., nn.Module],
    norm: Callable[..., nn.Module],
) -> jax.Array:
    """The stem's feature map, by sub-modules of the linen module that calls this.

    Args:
      image: [B, H, W, C].
      kind: see `resnet.ResNet`.
      width: channels that come out.
      activates: whether a norm and a ReLU follow the (last) convolution.
      padding: of the max-pool.
      conv: makes a convolution from features, kernel size, stride and name.
      norm: makes a normalisation from its name.

    Returns:
      [B, H / 4, W / 4, width], rounded up; [B, H, W, width] of a "small" one.
    """
    x = image
    if kind == "deep":
        for i, stride in ((1, 2), (2, 1)):
            x = conv(max(1, width // 2), 3, stride, name=f"conv_stem_{i}")(x)
            x = nn.relu(norm(name=f"norm_stem_{i}")(x))
    size, stride = (3, 1) if kind in ("deep", "small") else (7, 2)
    x = conv(width, size, stride, name="conv_stem")(x)
    if activates:
        x = nn.relu(norm(name="norm_stem")(x))
    if kind == "small":
        return x
    if kind == "bit":
        return max_pool_of_zeros(x)
    return max_pool_same(x) if padding == "same" else max_pool(x)


def max_pool_same(x: jax.Array) -> jax.Array:
    """`max_pool`, padded as TensorFlow does: of an even height or width at the end alone."""
    down, right = (1 - n % 2 for n in x.shape[1:3])
    moved = jnp.pad(x, [(0, 0), (down, 0), (right, 0), (0, 0)], constant_values=-jnp.inf)
    return max_pool(moved)[:, down:, right:]


def max_pool_of_zeros(x: jax.Array) -> jax.Array:
    """The maximum of every 3x3 at a stride of 2, the border padded by a zero, and windows from its first place on."""
    height, width = (-(-n // 2) for n in x.shape[1:3])
    bordered = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    moved = jnp.pad(bordered, [(0, 0), (1, 0), (1, 0), (0, 0)], constant_values=-jnp.inf)
    return max_pool(moved)[:, 1 : 1 + height, 1 : 1 + width]
