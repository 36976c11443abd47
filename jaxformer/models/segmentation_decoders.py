"""From a backbone's feature maps to the logits of classes, by convolutions and products.

A decoder is a linen module (maps, num_classes, deterministic) -> logits float32 [B, h, w, K]; maps are [B, H, W, C],
the finest first. `least_maps` is how many of them it needs.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import jax
from flax import linen as nn

from jaxformer.config.fields import PositiveFloat, PositiveInt, Rate
from jaxformer.models.base import Dtype, Layer
from jaxformer.models.conv import Conv
from jaxformer.models.dropout import Dropout
from jaxformer.models.head import logits_of
from jaxformer.models.norms import LayerNorm, NormKind, image_norm
from jaxformer.models.resampling import resized_maps, size_of


class Decoder(Layer, kw_only=True):
    """What a `Segmenter` asks of its decoder."""

    least_maps: ClassVar[int] = 1
    """How many of the backbone's maps it needs."""
    level = -1
    """Which of the backbone's maps is decoded, where it is one; -1 is the last."""

    dropout: Rate = 0.0
    """Rate of dropout before the classes."""


class Linear(Decoder):
    """A linear map of each place of one of the maps (Strudel et al. 2021, section 3.2)."""

    level: int = -1
    """Which of the backbone's maps is decoded; -1 is the last."""

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], num_classes: int, deterministic: bool) -> jax.Array:
        """Logits float32 [B, h, w, K] on the map's grid."""
        x = Dropout(self.dropout)(maps[self.level], deterministic)
        return classified(x, num_classes, self.param_dtype)


class Convolutional(Decoder):
    """What the decoders below have in common: norms, and a width."""

    width: PositiveInt = 256
    """Number of channels inside the decoder."""
    norm: NormKind = "batch"
    """ "batch", "group" or "frozen"; see `norms.image_norm`."""
    groups: PositiveInt = 32
    """Number of groups of GroupNorm."""
    norm_epsilon: PositiveFloat = 1e-5
    """Epsilon of the norms."""

    @nn.nowrap
    def norm_of(self, deterministic: bool) -> Callable[..., nn.Module]:
        """A normalisation of feature maps."""
        return image_norm(self, self.norm, self.norm_epsilon, deterministic, self.groups)


class PUP(Convolutional):
    """Progressive upsampling (Zheng et al. 2021, SETR-PUP, section 3.3): a 3x3 and twice the size, again and again."""

    steps: PositiveInt = 4
    """How often; the paper's 4 go from patches of 16 pixels to the whole image."""
    level: int = -1
    """Which of the backbone's maps is decoded; -1 is the last."""

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], num_classes: int, deterministic: bool) -> jax.Array:
        """Logits float32 [B, h, w, K], 2^steps times as high and wide as the map."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = self.norm_of(deterministic)
        x = LayerNorm(1e-6, **dtypes, name="norm_in")(maps[self.level])
        for i in range(1, self.steps + 1):
            x = Conv(self.width, 3, **dtypes, name=f"conv_{i}")(x)
            x = nn.relu(norm(name=f"norm_{i}")(x))
            x = resized_maps(x, (2 * x.shape[1], 2 * x.shape[2]))
        return classified(Dropout(self.dropout)(x, deterministic), num_classes, self.param_dtype)


class AllMLP(Convolutional):
    """SegFormer's head (Xie et al. 2021, section 3.2): every map at one width and at the finest one's size, joined.

    The layer that joins them is linear, and so is interpolation: it is applied to each map before that is enlarged.
    """

    dropout: Rate = 0.1
    """Rate of dropout before the classes; the paper has 0.1."""
    least_maps: ClassVar[int] = 2

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], num_classes: int, deterministic: bool) -> jax.Array:
        """Logits float32 [B, h, w, K] on the finest map's grid."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        joined = []
        for i, x in enumerate(maps, 1):
            x = Conv(self.width, 1, use_bias=True, **dtypes, name=f"conv_level_{i}")(x)
            x = Conv(self.width, 1, **dtypes, name=f"conv_fuse_{i}")(x)
            joined.append(resized_maps(x, size_of(maps[0])))
        x = nn.relu(self.norm_of(deterministic)(name="norm")(sum(joined[1:], joined[0])))
        return classified(Dropout(self.dropout)(x, deterministic), num_classes, self.param_dtype)


class FPN(Convolutional):
    """A feature pyramid (Lin et al. 2017, section 3): from the coarsest map to the finest, each added on the way.

    Unlike the paper's, a 3x3 with a norm stands on the way down, as in a U-Net (Ronneberger et al. 2015), and there is
    one output, the finest.
    """

    width: PositiveInt = 64
    """Number of channels of the pyramid."""
    least_maps: ClassVar[int] = 2

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], num_classes: int, deterministic: bool) -> jax.Array:
        """Logits float32 [B, h, w, K] on the finest map's grid."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv: Callable[..., nn.Module] = partial(Conv, **dtypes)
        norm = self.norm_of(deterministic)
        x = None
        for i, own in reversed(list(enumerate(maps, 1))):
            y = norm(name=f"norm_level_{i}")(conv(self.width, 1, name=f"conv_level_{i}")(own))
            x = nn.relu(y if x is None else y + resized_maps(x, size_of(own)))
            x = nn.relu(norm(name=f"norm_{i}")(conv(self.width, 3, name=f"conv_{i}")(x)))
        assert x is not None
        return classified(Dropout(self.dropout)(x, deterministic), num_classes, self.param_dtype)


def classified(x: jax.Array, num_classes: int, param_dtype: Dtype) -> jax.Array:
    """Logits float32 [B, h, w, K] of [B, h, w, D], by a sub-module "head" of the linen module that calls this."""
    logits = logits_of(x, num_classes, param_dtype)
    assert logits is not None
    return logits
