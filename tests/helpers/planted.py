"""Models, and labels, with a fault in them that `debug` has to find."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxformer.data.base import Source
from jaxformer.data.kinds.images import Images
from jaxformer.models.base import ImageModel
from jaxformer.models.outputs import ImageOutputs


@jax.custom_vjp
def doubled(x):
    """2 x, with the derivative of 3 x."""
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (3 * g,))


@jax.custom_vjp
def steep(x):
    """x, with an infinite derivative."""
    return x


steep.defvjp(lambda x: (x, None), lambda _, g: (g / 0.0,))


class Block(nn.Module):
    """A residual block with a fault."""

    width: int
    fault: str

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(self.width, name="up")(x)
        if self.fault == "frozen":
            y = jax.lax.stop_gradient(y)
        if self.fault == "nan":
            y = jnp.log(-1 - jnp.square(y))
        if self.fault == "nan backwards":
            y = steep(y)
        if self.fault == "gradient":
            y = doubled(y)
        return x + (y if self.fault == "unbounded" else nn.tanh(y))


class Model(ImageModel):
    """Four blocks on the pixels; one of them has the fault."""

    num_classes: int | None = None
    width: int = 16
    depth: int = 4
    fault: str = ""
    """ "frozen", "nan", "nan backwards", "gradient" or "unbounded" (an infinity goes on); "" has none."""
    faulty: int = 3
    """The block with the fault."""

    @nn.compact
    def __call__(self, image, deterministic):
        x = nn.Dense(self.width, name="embedding")(image.reshape(len(image), -1))
        for i in range(self.depth):
            x = Block(self.width, self.fault if i == self.faulty else "", name=f"block_{i}")(x)
        return ImageOutputs(nn.Dense(self.known("num_classes"), name="head")(x), x, x[:, None])


class ShiftedSource(Source):
    """A source whose examples have the labels of those after them."""

    def __init__(self, source):
        self.source = source
        vars(self).update(name=source.name, split=source.split, class_names=source.class_names)

    def __len__(self):
        return len(self.source)

    def read(self, indices):
        after = self.source.read([(index + 1) % len(self) for index in indices])
        return [{**e, "labels": a["labels"]} for e, a in zip(self.source.read(indices), after)]


@dataclass(frozen=True)
class Shifted(Images):
    """Images with the labels of the examples after them."""

    def open(self, config, split, train):
        return ShiftedSource(super().open(config, split, train))
