"""A small detector whose backbone looks at patches one by one, and pictures with objects."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from helpers.tiny import random_params
from jaxformer.models.detr import DETR
from jaxformer.models.outputs import ImageOutputs
from jaxformer.models.patches import PatchEmbedding, on_grids

PATCH, CLASSES = 8, 3


class Patches(nn.Module):
    """A backbone of one map, of which each place is a patch of its own; a second one is twice as coarse."""

    num_classes: int = 0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    image_size = None  # any

    @nn.compact
    def __call__(self, image, deterministic=True):
        maps = []
        for size in (PATCH, 2 * PATCH):
            rows, columns = image.shape[1] // size, image.shape[2] // size
            patches = PatchEmbedding(size, 12, name=f"patch_embedding_{size}")(image)
            maps += on_grids(patches, [(rows, columns)])
        return ImageOutputs(None, jnp.mean(maps[0], axis=(1, 2)), maps[0], tuple(maps))


def detector(**fields):
    """A DETR with width 16 and five queries that sees the finer map."""
    sizes = {
        "width": 16,
        "encoder_depth": 1,
        "decoder_depth": 2,
        "num_heads": 2,
        "mlp_dim": 24,
        "num_queries": 5,
    }
    usual = {"backbone": Patches(), "num_classes": CLASSES, "levels": (0,), "dropout": 0.0}
    return DETR(**{**usual, **sizes, **fields})


def anchored(**fields):
    """One with anchors and without a class for no object."""
    return detector(queries="anchors", no_object=False, **fields)


def objects(rng, counts, most):
    """Boxes float32 [B, most, 4] within the picture and labels int32 [B, most], `counts` of each picture."""
    shape = (len(counts), most)
    sides = rng.uniform(0.1, 0.5, (*shape, 2))
    centres = rng.uniform(sides / 2, 1 - sides / 2)
    there = np.arange(most)[None] < np.asarray(counts)[:, None]
    boxes = np.where(there[..., None], np.concatenate([centres, sides], axis=-1), 0).astype(np.float32)
    return boxes, np.where(there, rng.integers(0, CLASSES, shape), -1).astype(np.int32)


def batch_of(counts, most=4, size=32, seed=0):
    """A batch of pictures of noise."""
    rng = np.random.default_rng(seed)
    boxes, labels = objects(rng, counts, most)
    image = rng.integers(0, 256, (len(counts), size, size, 3), dtype=np.uint8)
    extent = np.full((len(counts), 2), size, np.int32)
    return {"image": image, "extent": extent, "boxes": boxes, "labels": labels}


def variables_of(model, batch):
    """Random ones: no zero of the first values hides a mistake."""
    return {"params": random_params(model, jnp.asarray(batch["image"][:1], jnp.float32), scale=0.4)}
