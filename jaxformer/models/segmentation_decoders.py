"""From a backbone's feature maps to the logits of classes: by convolutions, products, or tokens of classes."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.config.fields import Input, Layers, PositiveFloat, PositiveInt, Rate
from jaxformer.models.base import Layer, head_problems
from jaxformer.models.block import Block
from jaxformer.models.conv import Conv
from jaxformer.models.dense import Dense
from jaxformer.models.dropout import Dropout
from jaxformer.models.mlp import ActivationName
from jaxformer.models.norms import LayerNorm, NormKind, image_norm
from jaxformer.models.outputs import logits_of
from jaxformer.models.resampling import resized_maps
from jaxformer.models.stack import Stack
from jaxformer.models.token_layout import Grid, TokenLayout, plain_layout

DECODERS = {
    "fpn": "jaxformer.models.segmentation_decoders:FPN",
    "linear": "jaxformer.models.segmentation_decoders:Linear",
    "mask_transformer": "jaxformer.models.segmentation_decoders:MaskTransformer",
    "mlp": "jaxformer.models.segmentation_decoders:AllMLP",
    "pup": "jaxformer.models.segmentation_decoders:PUP",
}


class Decoder(Layer, kw_only=True):
    """The decoder of a `Segmenter`: a feature map with dropout and a linear map of each place behind it."""

    least_maps: ClassVar[int] = 1
    """How many of the backbone's maps it needs."""
    level = -1
    """Which of the backbone's maps is decoded, where it is one; -1 is the last."""

    dropout: Input[Rate] = 0.0
    """Rate of dropout before the classes."""

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], num_classes: int, deterministic: bool) -> jax.Array:
        """Logits float32 [B, h, w, K] of the backbone's maps [B, H, W, C], the finest first."""
        x = Dropout(self.dropout)(self.decoded(maps, deterministic), deterministic)
        return logits_of(x, num_classes, self.param_dtype)

    def decoded(self, maps: Sequence[jax.Array], deterministic: bool) -> jax.Array:
        """The feature map [B, h, w, D] that the classes are read from."""
        return maps[self.level]


class Linear(Decoder):
    """A linear map of each place of one of the maps (Strudel et al. 2021, section 3.2)."""

    level: int = -1
    """Which of the backbone's maps is decoded; -1 is the last."""


class Convolutional(Decoder):
    """The base of the decoders of convolutions: norms, and a width."""

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

    steps: Layers = 4
    """How often; the paper's 4 go from patches of 16 pixels to the whole image."""
    level: int = -1
    """Which of the backbone's maps is decoded; -1 is the last."""

    def decoded(self, maps: Sequence[jax.Array], deterministic: bool) -> jax.Array:
        """[B, h, w, D], 2^steps times as high and wide as the map."""
        norm = self.norm_of(deterministic)
        x = LayerNorm(1e-6, **self.dtypes, name="norm_in")(maps[self.level])
        for i in range(1, self.steps + 1):
            x = Conv(self.width, 3, **self.dtypes, name=f"conv_{i}")(x)
            x = nn.relu(norm(name=f"norm_{i}")(x))
            x = resized_maps(x, (2 * x.shape[1], 2 * x.shape[2]))
        return x


class AllMLP(Convolutional):
    """SegFormer's head (Xie et al. 2021, section 3.2): every map at one width and at the finest one's size, joined.

    The layer that joins them is linear, and so is interpolation: it is applied to each map before that is enlarged.
    """

    least_maps: ClassVar[int] = 2

    dropout: Input[Rate] = 0.1
    """Rate of dropout before the classes; the paper has 0.1."""

    def decoded(self, maps: Sequence[jax.Array], deterministic: bool) -> jax.Array:
        joined = []
        for i, x in enumerate(maps, 1):
            x = Conv(self.width, 1, use_bias=True, **self.dtypes, name=f"conv_level_{i}")(x)
            x = Conv(self.width, 1, **self.dtypes, name=f"conv_fuse_{i}")(x)
            joined.append(resized_maps(x, maps[0].shape[1:3]))
        return nn.relu(self.norm_of(deterministic)(name="norm")(sum(joined[1:], joined[0])))


class FPN(Convolutional):
    """A feature pyramid (Lin et al. 2017, section 3): from the coarsest map to the finest, each added on the way.

    Unlike the paper's, a 3x3 with a norm stands on the way down, as in a U-Net (Ronneberger et al. 2015), and there is
    one output, the finest.
    """

    least_maps: ClassVar[int] = 2

    width: PositiveInt = 64
    """Number of channels of the pyramid."""

    def decoded(self, maps: Sequence[jax.Array], deterministic: bool) -> jax.Array:
        conv: Callable[..., nn.Module] = partial(Conv, self.width, **self.dtypes)
        norm = self.norm_of(deterministic)
        x: Any = None
        for i, own in reversed(list(enumerate(maps, 1))):
            y = norm(name=f"norm_level_{i}")(conv(1, name=f"conv_level_{i}")(own))
            x = nn.relu(y if x is None else y + resized_maps(x, own.shape[1:3]))
            x = nn.relu(norm(name=f"norm_{i}")(conv(3, name=f"conv_{i}")(x)))
        return x


class MaskTransformer(Decoder):
    """Segmenter's decoder: classes as tokens among the patches (Strudel et al. 2021, section 3.2).

    A few blocks over patches and one learned token a class; a mask is how alike its token and each patch are.
    """

    width: PositiveInt = 192
    """D, width of the tokens."""
    depth: Layers = 2
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
    dropout: Input[Rate] = 0.0
    """Rate of dropout after attention and in the MLPs."""
    drop_path: Input[Rate] = 0.0
    """Stochastic depth: the last block's rate, growing linearly from 0."""

    def problems(self) -> Iterator[str]:
        yield from head_problems(self.width, self.num_heads)

    def token_layout(self, grids: Sequence[Grid], asks: int, sees: int, cross: bool) -> TokenLayout:
        whose = "the classes' tokens"  # which are behind the patches
        return plain_layout(grids, asks, sees, cross, in_front=0, whose=whose)

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], num_classes: int, deterministic: bool) -> jax.Array:
        """Logits on the grid of one of the maps."""
        normal = nn.initializers.normal(0.02)
        chosen = maps[self.level]
        batch, rows, columns = chosen.shape[:3]
        x = Conv(self.width, 1, use_bias=True, kernel_init=normal, **self.dtypes, name="conv_in")(chosen)
        x = x.reshape(batch, rows * columns, self.width)  # [B, T, D]
        classes = self.param("probe", normal, (1, num_classes, self.width), self.param_dtype)
        classes = jnp.broadcast_to(classes.astype(self.dtype), (batch, num_classes, self.width))
        block = self.passed_to(Block) | {
            "mlp_dim": self.mlp_dim or 4 * self.width,
            "mlp_dropout": self.dropout,
        }
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
    """Vectors [..., D] at a length of 1, float32; those shorter than 1e-12 stay shorter than 1."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-12**2))
