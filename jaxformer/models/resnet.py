"""Residual networks: v1.5 (He et al. 2016a, with the stride in the 3x3) and v2 (He et al. 2016b: norms first)."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.models.conv import Conv
from jaxformer.models.dense import Dense
from jaxformer.models.norms import image_norm
from jaxformer.models.outputs import ImageOutputs

Dtype = Any
EXPANSION = 4  # a bottleneck block's output channels over its width


class ResidualBlock(nn.Module):
    """A basic block (two 3x3) or a bottleneck (1x1, 3x3 with the stride, 1x1), around a residual.

    Attributes:
      width: channels inside; a bottleneck gives EXPANSION times as many.
      stride: of the block.
      bottleneck: which kind.
      version: 1: a norm after each convolution, a ReLU at the end; 2: norm and ReLU before each convolution.
      norm: makes a normalisation from its linen keyword arguments.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    width: int
    stride: int
    bottleneck: bool
    version: int
    norm: Callable[..., nn.Module]
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, channels]."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
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
            residual = Conv(channels, 1, self.stride, **dtypes, name="conv_shortcut")(residual)
            if self.version == 1:
                residual = self.norm(name="norm_shortcut")(residual)
        for i, (kernel, stride) in enumerate(zip(kernels, strides), 1):
            if self.version == 2 and i > 1:
                y = nn.relu(self.norm(name=f"norm_{i}")(y))
            y = Conv(channels if i == last else self.width, kernel, stride, **dtypes, name=f"conv_{i}")(y)
            if self.version == 1:
                # The last scale is zero at first: every block starts as its shortcut (Goyal et al. 2017).
                zero = {"scale_init": nn.initializers.zeros} if i == last else {}
                y = self.norm(name=f"norm_{i}", **zero)(y)
                y = nn.relu(y) if i < last else y
        return nn.relu(residual + y) if self.version == 1 else residual + y


class ResNet(nn.Module):
    """A residual network that classifies images.

    Attributes:
      stage_sizes: blocks in each stage; every stage but the first halves the image and doubles the width.
      width: channels of the stem and inside the first stage's blocks.
      num_classes: K.
      block: "basic" (two 3x3) or "bottleneck".
      version: 1 (v1.5) or 2 (pre-activation).
      norm: "batch", whose running statistics are the collection "batch_stats", or "group".
      groups: of GroupNorm; a width that it does not divide takes the largest smaller number that does.
      norm_epsilon: added to variances.
      stem: "imagenet": 7x7 of stride 2 and a max-pool; "small": 3x3, for images of about 32 pixels.
      axis_name: pmap's axis, over which batch statistics are averaged.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    num_classes: int = 1000
    block: Literal["basic", "bottleneck"] = "bottleneck"
    version: Literal[1, 2] = 1
    norm: Literal["batch", "group"] = "batch"
    groups: int = 32
    norm_epsilon: float = 1e-5
    stem: Literal["imagenet", "small"] = "imagenet"
    axis_name: str | None = None
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.nowrap
    def problems(self) -> Iterator[str]:
        """Yields a line for every impossible combination of fields."""
        if not self.stage_sizes or min(self.stage_sizes) < 1:
            yield f"stage_sizes={list(self.stage_sizes)}: expected at least one stage of at least one block"
        for name in ("width", "num_classes", "groups"):
            if getattr(self, name) < 1:
                yield f"{name}={getattr(self, name)}: expected at least 1"
        if self.norm_epsilon <= 0:
            yield f"norm_epsilon={self.norm_epsilon}: expected more than 0, such as 1e-5"

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs is the last feature map."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = image_norm(
            self.norm,
            train=not deterministic,
            axis_name=self.axis_name,
            groups=self.groups,
            epsilon=self.norm_epsilon,
            **dtypes,
        )
        small = self.stem == "small"
        x = Conv(self.width, 3 if small else 7, 1 if small else 2, **dtypes, name="conv_stem")(image)
        if self.version == 1:
            x = nn.relu(norm(name="norm_stem")(x))
        if not small:
            x = nn.max_pool(x, (3, 3), (2, 2), padding=[(1, 1), (1, 1)])
        for stage, size in enumerate(self.stage_sizes, 1):
            for i in range(size):
                block = ResidualBlock(
                    width=self.width * 2 ** (stage - 1),
                    stride=2 if stage > 1 and i == 0 else 1,
                    bottleneck=self.block == "bottleneck",
                    version=self.version,
                    norm=norm,
                    **dtypes,
                    name=f"stage_{stage}_block_{i}",
                )
                x = block(x)
        if self.version == 2:
            x = nn.relu(norm(name="norm")(x))
        features = jnp.mean(x, axis=(1, 2), dtype=jnp.float32).astype(self.dtype)  # [B, C]
        head = Dense(
            self.num_classes, kernel_init=nn.initializers.zeros, param_dtype=self.param_dtype, name="head"
        )
        return ImageOutputs(head(features), features, x)
