"""What image models look at: patches of images, and the feature maps of backbones."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.config.fields import not_empty
from jaxformer.config.schema import choice
from jaxformer.models import BACKBONES, CONTRACT
from jaxformer.models.base import Layer, Model
from jaxformer.models.dense import flat, product
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.placement import platform
from jaxformer.models.token_layout import Grid

Levels: TypeAlias = Annotated[tuple[int, ...], not_empty("indices of the backbone's maps, such as [-1]")]
UNFIT = (ArithmeticError, TypeError, ValueError)  # raised for images that do not suit a backbone


def on_grids(patches: jax.Array, grids: Sequence[Grid]) -> tuple[jax.Array, ...]:
    """Patches [B, T, D], those of one grid after the other, as maps [B, rows, columns, D]."""
    ends = np.cumsum([rows * columns for rows, columns in grids])
    parts = jnp.split(patches, ends[:-1], axis=1)
    return tuple(part.reshape(len(part), *grid, part.shape[-1]) for part, grid in zip(parts, grids))


def patch_problems(image_size: int, patch_size: int) -> Iterator[str]:
    """Yields a line if patches do not tile the image."""
    if patch_size < 1 or image_size % patch_size:
        near = nearest_divisor(image_size, patch_size)
        yield f"patch_size={patch_size} does not divide image_size={image_size}: use one that does, as {near}"


def nearest_divisor(total: int, wanted: int) -> int:
    """The divisor of `total` that is nearest to `wanted`."""
    divisors = [d for d in range(1, total + 1) if total % d == 0]
    return min(divisors, key=lambda d: abs(d - wanted))


class PatchEmbedding(Layer):
    """A linear map of each patch (Dosovitskiy et al. 2021, equation 1).

    The kernel [size, size, C, D] is that of a convolution with stride `size`. So TPUs apply it, where a reshape copies
    the image; elsewhere it is a reshape and one product, which is twice as fast on CPUs.
    """

    patch_size: int
    """Height and width of a patch."""
    features: int
    """D."""
    use_bias: bool = True
    """Whether there is a bias."""

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, T, D]."""
        shape = (self.patch_size, self.patch_size, image.shape[-1], self.features)
        kernel = self.param("kernel", flat(nn.initializers.lecun_normal(), 3), shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        batch, size, (height, width) = len(image), self.patch_size, image.shape[1:3]
        if platform() == "tpu":
            operands, axes = (image.astype(self.dtype), kernel.astype(self.dtype)), ("NHWC", "HWIO", "NHWC")
            maps = jax.lax.conv_general_dilated(*operands, (size, size), "VALID", dimension_numbers=axes)
            patches = maps.reshape(batch, -1, self.features)
            return (
                patches
                if bias is None
                else patches + jnp.broadcast_to(bias.astype(self.dtype), patches.shape)
            )
        grid = image.astype(self.dtype).reshape(batch, height // size, size, width // size, size, -1)
        patches = grid.swapaxes(2, 3).reshape(batch, (height // size) * (width // size), -1)
        return product(patches, kernel.reshape(-1, self.features), bias, self.dtype)

    def on_grid(self, image: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / size, W / size, D]; rows and columns over are left out."""
        rows, columns = (side // self.patch_size for side in image.shape[1:3])
        whole = image[:, : rows * self.patch_size, : columns * self.patch_size]
        return self(whole).reshape(-1, rows, columns, self.features)


class Backboned(Model):
    """A model that looks at the feature maps of a backbone and tells the classes of its parts."""

    sizes: ClassVar[tuple[str, ...]] = ("num_classes",)

    backbone: Any = choice(BACKBONES, contract=CONTRACT)
    """The model that gives feature maps: any of BACKBONES, with num_classes=0. Its parameters are
    "backbone/...": `optimizer.freeze` freezes them. Those that need no `image_size` take images of any size."""

    def problems(self) -> Iterator[str]:
        yield from own_head_problems(self.backbone)

    @property
    def image_size(self) -> int | None:
        """Height and width of the images that the backbone takes; None: any."""
        return self.backbone.image_size


def own_head_problems(backbone: Model, field: str = "backbone") -> Iterator[str]:
    """Yields a line if a backbone, the model in this field, has a head."""
    if backbone.num_classes:
        yield f"{field}.num_classes={backbone.num_classes}: a backbone's own head is never read; set it to 0"


def backbone_outputs(backbone: Model, image_size: int) -> ImageOutputs:
    """What a backbone gives for one image of `image_size` x `image_size` pixels: shapes, nothing is computed."""
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    return jax.eval_shape(backbone.init_with_output, jax.random.key(0), image)[0]


def backbone_problems(
    backbone: Model, image_size: int, levels: Sequence[int], patch_sizes: Sequence[int]
) -> Iterator[str]:
    """Yields a line for everything that keeps a backbone's maps from being cut into patches.

    Args:
      backbone: a linen module that gives ImageOutputs.
      image_size: of the images, in pixels.
      levels: of its maps.
      patch_sizes: one for each level.
    """
    yield from own_head_problems(backbone)
    own_size = backbone.image_size
    if own_size not in (None, image_size):
        yield f"backbone.image_size={own_size}: set it to this model's image_size={image_size}"
        return
    try:
        outputs = backbone_outputs(backbone, image_size)
    except UNFIT as error:
        said = str(error).partition("\n")[0]
        yield f"image_size={image_size}: too small for this backbone, or not a multiple of its strides ({said})"
        return
    count = len(outputs.maps)
    for level, size in zip(levels, patch_sizes):
        if not -count <= level < count:
            yield f"levels: there is no {level}; this backbone has {count} maps, 0 to {count - 1}"
            continue
        side = outputs.maps[level].shape[1]
        if side < 1:
            yield f"image_size={image_size}: too small, nothing is left of it in this backbone's map {level}"
        elif size < 1 or side % size:
            near = nearest_divisor(side, size)
            remedy = f"use one that does, as {near}"
            yield f"patch_size={size} does not divide the backbone's map of {side}x{side}: {remedy}"
