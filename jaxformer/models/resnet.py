"""Residual networks: v1.5 (He et al. 2016a, with the stride in the 3x3) and v2 (He et al. 2016b: norms first)."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import jax
from flax import linen as nn

from jaxformer.config.fields import PositiveFloat, PositiveInt
from jaxformer.models.base import ImageModel, Layer
from jaxformer.models.cnn_attention import Placement
from jaxformer.models.conv import Conv, PaddingName, StandardizationName
from jaxformer.models.norms import NormKind, image_norm
from jaxformer.models.outputs import ImageOutputs, classified
from jaxformer.models.resampling import halved, max_pool, max_pool_of_zeros, max_pool_same

EXPANSION = 4  # a bottleneck block's output channels over its width


class ResidualBlock(Layer):
    """A basic block (two 3x3) or a bottleneck (1x1, 3x3 with the stride, 1x1), around a residual."""

    width: int
    """Number of channels inside; a bottleneck gives EXPANSION times as many."""
    stride: int
    """Stride of the block."""
    bottleneck: bool
    """Whether it is a bottleneck."""
    version: int
    """1: a norm after each convolution, a ReLU at the end; 2: norm and ReLU before each convolution."""
    norm: Callable[..., nn.Module]
    """Makes a normalisation from its linen keyword arguments."""
    conv: Callable[..., nn.Module]
    """Makes a convolution from features, kernel size, stride and name."""
    attention: tuple[Placement, ...] = ()
    """The attentions that it has."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, channels]."""
        channels = self.width * (EXPANSION if self.bottleneck else 1)
        kernels = (1, 3, 1) if self.bottleneck else (3, 3)
        strides = (1, self.stride, 1) if self.bottleneck else (self.stride, 1)
        last = len(kernels)
        projects = x.shape[-1] != channels or self.stride > 1

        residual, y = x, x
        if self.version == 2:
            y = nn.relu(self.norm(name="norm_1")(x))
            residual = y if projects else x
        if projects:
            residual = self.conv(channels, 1, self.stride, name="conv_shortcut")(residual)
            if self.version == 1:
                residual = self.norm(name="norm_shortcut")(residual)
        for i, (kernel, stride) in enumerate(zip(kernels, strides), 1):
            if self.version == 2 and i > 1:
                y = nn.relu(self.norm(name=f"norm_{i}")(y))
            if kernel == 3 and self.at("inner"):
                y = self.attended(y, "inner", "attention")
                y = halved(y, "mean") if stride == 2 else y
            else:
                y = self.conv(channels if i == last else self.width, kernel, stride, name=f"conv_{i}")(y)
            if self.version == 1:
                # The last scale is zero at first: every block starts as its shortcut (Goyal et al. 2017).
                zero = {"scale_init": nn.initializers.zeros} if i == last else {}
                y = self.norm(name=f"norm_{i}", **zero)(y)
                y = nn.relu(y) if i < last else y
        y = residual + self.attended(y, "branch", "gate")
        return self.attended(nn.relu(y) if self.version == 1 else y, "block", "non_local")

    @nn.nowrap
    def at(self, where: str) -> list[Any]:
        """The attentions at a place; see `cnn_attention.CnnAttention`."""
        return [placement.module for placement in self.attention if placement.module.where == where]

    @nn.nowrap
    def attended(self, x: jax.Array, where: str, name: str) -> jax.Array:
        """`x` after the attentions at a place: sub-modules `name`, `name`_2 and so on."""
        for i, module in enumerate(self.at(where), 1):
            own: dict[str, Any] = {"name": name if i == 1 else f"{name}_{i}", "parent": self}
            x = module.clone(**self.dtypes, **own)(x, self.norm)
        return x


class ResNet(ImageModel):
    """A residual network that classifies images."""

    stage_sizes: tuple[PositiveInt, ...] = (3, 4, 6, 3)
    """Blocks in each stage; every stage but the first halves the image and doubles the width. Without stages
    there is the stem alone."""
    width: PositiveInt = 64
    """Number of channels of the stem and inside the first stage's blocks."""
    block: Literal["basic", "bottleneck"] = "bottleneck"
    """ "basic" (two 3x3) or "bottleneck"."""
    version: Literal[1, 2] = 1
    """1 (v1.5) or 2 (pre-activation)."""
    norm: NormKind = "batch"
    """ "batch", whose running statistics are the collection "batch_stats"; "frozen", which uses these in
    training, too, and leaves them as they are; or "group"."""
    groups: PositiveInt = 32
    """Number of groups of GroupNorm; a width that it does not divide takes the largest smaller number that does."""
    norm_epsilon: PositiveFloat = 1e-5
    """Added to variances."""
    stem: Literal["imagenet", "bit", "deep", "small"] = "imagenet"
    """ "imagenet": 7x7 of stride 2 and a max-pool; "bit": the same, with zeros around what is pooled
    (Kolesnikov et al. 2020); "deep": three 3x3 in the 7x7's place (He et al. 2019, ResNet-C); "small": 3x3,
    for images of about 32 pixels."""
    attention: tuple[Placement, ...] = ()
    """Attentions inside blocks, such as {"module": {"name": "se"}, "stages": (3, 4)}; see `cnn_attention`."""
    padding: PaddingName = "even"
    """Padding of convolutions and of the max-pool: "even" on both sides alike, or "same" as TensorFlow pads."""
    standardize: StandardizationName | None = None
    """How kernels are standardised ("bit", "vit_jax" or "timm"; see `conv.STANDARDIZATIONS`); None: not."""

    def problems(self) -> Iterator[str]:
        for i, placement in enumerate(self.attention):
            yield from (f"attention[{i}].{line}" for line in placement.misplaced(self.stage_sizes))
            heads = placement.module.num_heads
            if placement.module.where != "inner":
                continue
            if self.block != "bottleneck":
                yield f'attention[{i}].module: stands in a bottleneck\'s 3x3; it needs block="bottleneck"'
            elif heads > 0 and self.width % heads:
                yield f"attention[{i}].module.num_heads={heads} does not divide width={self.width}: use one that does"

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs is the last feature map.

        "maps" has the stages' feature maps, or the stem's if there is no stage. Of version 2 the last one has gone
        through the final norm.
        """
        norm = image_norm(self, self.norm, self.norm_epsilon, deterministic, self.groups)
        conv = partial(Conv, padding=self.padding, standardize=self.standardize, **self.dtypes)
        fields: dict[str, Any] = {"norm": norm, "conv": conv, "version": self.version, **self.dtypes}
        bottleneck = self.block == "bottleneck"
        x = self.after_stem(image, conv, norm)
        maps = []
        for stage, size in enumerate(self.stage_sizes, 1):
            for i in range(size):
                attention = tuple(a for a in self.attention if a.holds(stage, i, size))
                width, stride = self.width * 2 ** (stage - 1), 2 if stage > 1 and i == 0 else 1
                own = {"attention": attention, "name": f"stage_{stage}_block_{i}"}
                x = ResidualBlock(width, stride, bottleneck, **fields | own)(x)
            maps.append(x)
        if self.version == 2:
            x = nn.relu(norm(name="norm")(x))
        return classified(self, x, (*maps[:-1], x))

    def after_stem(
        self, image: jax.Array, conv: Callable[..., nn.Module], norm: Callable[..., nn.Module]
    ) -> jax.Array:
        """The stem's feature map [B, H / 4, W / 4, C], rounded up; [B, H, W, C] of a "small" one."""
        x = image
        if self.stem == "deep":
            for i, stride in ((1, 2), (2, 1)):
                x = conv(max(1, self.width // 2), 3, stride, name=f"conv_stem_{i}")(x)
                x = nn.relu(norm(name=f"norm_stem_{i}")(x))
        size, stride = (3, 1) if self.stem in ("deep", "small") else (7, 2)
        x = conv(self.width, size, stride, name="conv_stem")(x)
        if self.version == 1:
            x = nn.relu(norm(name="norm_stem")(x))
        if self.stem == "small":
            return x
        if self.stem == "bit":
            return max_pool_of_zeros(x)
        return max_pool_same(x) if self.padding == "same" else max_pool(x)
