"""Test-time augmentation: the mean of a model's probabilities over several views of each image.

    step = make_eval_step(ManyViews(model, "ten_crop"), task)

One compiled function holds the model once and goes through the views in a loop, so that neither compiling nor memory
grow with their number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.errors import UserError
from jaxformer.evaluation.averaging import combined

Tree = Any

CROP = 7 / 8  # a crop's share of each side: 224 of 256 (Krizhevsky et al. 2012, section 4.1)
VIEWS = ("flip", "five_crop", "ten_crop")


@dataclass(frozen=True)
class ManyViews:
    """Averages the probabilities of a model over views of each image; evaluated in the place of that model."""

    model: Any
    """A linen module of images whose outputs have `logits`: [B, K], or maps [B, h, w, K]."""
    views: str
    """ "flip", the image and its mirror image; or parts of the image, enlarged to its size: "five_crop",
    the middle and the four corners, or "ten_crop", these and their mirror images (Krizhevsky et al. 2012)."""
    sigmoid: bool = False
    """Whether each class has a probability of its own; else they are a softmax."""

    def apply(self, variables: Tree, image: jax.Array, deterministic: bool = True) -> Any:
        """The model's outputs for images [B, H, W, C], with logits that say the views' mean probabilities.

        What else is in the outputs is only there as shapes.
        """
        height, width, places = view_places(self.views, *image.shape[1:3])

        def look(place: Sequence[jax.Array]) -> jax.Array:
            mirrored, top, left = place
            size = (len(image), height, width, image.shape[3])
            part = jax.lax.dynamic_slice(image, (0, top, left, 0), size)
            part = jax.image.resize(jnp.where(mirrored == 1, part[:, :, ::-1], part), image.shape, "linear")
            logits = self.model.apply(variables, part, deterministic=deterministic).logits.astype(jnp.float32)
            if logits.ndim == 4:
                logits = jnp.where(mirrored == 1, logits[:, :, ::-1], logits)
            return logits

        logits = combined(jax.lax.map(look, tuple(places.T)), "mean", self.sigmoid)
        outputs = jax.eval_shape(lambda: self.model.apply(variables, image, deterministic=deterministic))
        return outputs.replace(logits=logits)


def view_places(views: str, height: int, width: int) -> tuple[int, int, np.ndarray]:
    """The views of an image of this size.

    Returns:
      Their height and width, and int32 [V, 3]: whether each is mirrored, and where its top and its left side are.
    """
    if views == "flip":
        return height, width, np.array([[0, 0, 0], [1, 0, 0]], np.int32)
    h, w = round(height * CROP), round(width * CROP)
    down, right = height - h, width - w
    corners = [[0, top, left] for top in (0, down) for left in (0, right)]
    crops = np.array([[0, down // 2, right // 2], *corners], np.int32)
    return h, w, crops if views == "five_crop" else np.concatenate([crops, crops + np.array([[1, 0, 0]])])


def many_views(model: Any, task: Any, views: str) -> ManyViews:
    """The model with these views, for a task.

    Raises:
      UserError: the task has no use for them.
    """
    if views not in task.views:
        remedy = f"choose {' or '.join(task.views)}" if task.views else "leave it out"
        wrong = "there are no such views"
        if views in VIEWS:
            wrong = f"is not for the run's task, {type(task).__name__}"
        raise UserError(f"views={views!r}: {wrong}; {remedy}")
    return ManyViews(model, views, sigmoid=task.independent_classes)
