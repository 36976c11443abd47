"""What tasks over images have in common: normalised pixels, and what does not fit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp

from jaxformer.config.fields import Constraint, length
from jaxformer.errors import counted
from jaxformer.tasks.base import Arrays, Batch, Batches, Task, lacks

CHANNELS = length(1, 3, expected="one number for all channels, or three for RGB")
REMEDY = "divide by 255 if they are in 0..255"
SHARES = Constraint(f"values in 0..1; {REMEDY}", lambda v: all(0 <= x <= 1 for x in v))
NOT_ZERO = Constraint(f"values in 0.001..1; {REMEDY}", lambda v: all(0.001 <= x <= 1 for x in v))


@dataclass(frozen=True)
class ImageTask(Task):
    """A task over images: batches have `image` (uint8, or float 0..255, [B, H, W, C])."""

    mean: Annotated[tuple[float, ...], CHANNELS, SHARES] = (0.5,)
    """Mean of the pixels in 0..1, for all channels or for each; subtracted on the device."""
    std: Annotated[tuple[float, ...], CHANNELS, NOT_ZERO] = (0.5,)
    """Standard deviation of the pixels, for all channels or for each; the centred pixels are divided by it."""

    needs: ClassVar[tuple[str, ...]] = ("image",)
    """The arrays that a batch must have."""
    examples: ClassVar[str] = "images"
    """The kind of examples whose batches have these arrays."""
    kind: ClassVar[str] = "image"
    """The kind of model that the task needs."""
    kind_does: ClassVar[tuple[str, str]] = ("classify images", "vit")
    """For messages: what models of that kind do, and the name of one."""

    def fits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        if lacking := lacks(self.needs, train):
            yield f'{lacking}: choose "{self.examples}", or another task'
            return
        if model.kind != self.kind:
            does, such = self.kind_does
            yield f'model: {type(model).__name__} does not {does}; choose another, such as "{such}"'
            return
        yield from self.misfits(model, train, evaluation)
        channels = train.element_spec["image"][0][-1]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                remedy = f"give {channels} numbers, or one for all"
                yield f"task.{name}={list(values)}: the images have {channels} channels; {remedy}"
        names, classes = train.class_names, model.num_classes
        if names is not None and classes is not None and classes < len(names):
            there = counted(len(names), "class", "classes")
            yield f"model.num_classes={classes}: the dataset has {there}; set it to that, or to None"

    def misfits(self, model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
        """Yields a line for every further way in which the data, the model and the task do not fit each other."""
        yield from ()

    def inputs(self, batch: Batch) -> Arrays:
        return self.normalised(batch)

    def normalised(self, batch: Batch) -> Arrays:
        """A batch's "image": (image / 255 - mean) / std, float32 [B, H, W, C]."""
        image = jnp.asarray(batch["image"])
        mean, std = (jnp.asarray(x, jnp.float32)[None, None, None, :] for x in (self.mean, self.std))
        return {"image": (image.astype(jnp.float32) / 255 - mean) / std}


def sizes_fit(model: Any, train: Batches, evaluation: Batches) -> Iterator[str]:
    """Yields a line for images of another size than a model takes, or than training has."""
    height, width, channels = train.element_spec["image"][0]
    size = model.image_size
    if size is not None and (height, width) != (size, size):
        made = f"the training images are {height}x{width} after data.transforms"
        resize = f"end data.transforms and data.eval_transforms with dict(name='resize', size={size})"
        other = f", or set model.image_size={height} if all are so" if height == width else ""
        yield f"model.image_size={size}: {made}; {resize}{other}"
    shown = evaluation.element_spec["image"][0]
    if shown != (height, width, channels):
        wanted = (height, width, channels)
        yield f"data.eval_transforms give images of {shown}, data.transforms of {wanted}: make them the same"
