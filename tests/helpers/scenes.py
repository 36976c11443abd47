"""A small dataset of scenes: rectangles of three colours on grey, with their boxes and a mask."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jaxformer.data.writing import write_dataset

NAME, SIDE = "scenes", 32
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
CLASSES = (*COLOURS, "ground")  # of the masks


def png(pixels):
    """Pixels as a file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def scene(rng):
    """A picture with one or two rectangles; the later one lies above."""
    image = rng.integers(110, 140, (SIDE, SIDE, 3)).astype(np.uint8)
    mask = np.full((SIDE, SIDE), len(COLOURS), np.uint8)  # the ground
    objects = []
    for _ in range(rng.integers(1, 3)):
        top, left = rng.integers(0, SIDE // 2, 2)
        height, width = rng.integers(8, SIDE // 2, 2)
        label = int(rng.integers(len(COLOURS)))
        place = np.s_[top : top + height, left : left + width]
        image[place], mask[place] = list(COLOURS.values())[label], label
        corners = (top, left, top + height, left + width)
        objects.append({"bbox": tfds.features.BBox(*(float(c / SIDE) for c in corners)), "label": label})
    return {"image": png(image), "objects": objects, "segmentation_mask": png(mask)}


def write_scenes(folder, train=24, test=8):
    """Writes the dataset into a TFDS folder, and returns the folder."""
    label = tfds.features.ClassLabel(names=list(COLOURS))
    features = {
        "image": tfds.features.Image(shape=(SIDE, SIDE, 3)),
        "objects": tfds.features.Sequence({"bbox": tfds.features.BBoxFeature(), "label": label}),
        "segmentation_mask": tfds.features.Image(shape=(SIDE, SIDE, 1)),
    }
    rng = np.random.default_rng(0)
    splits = {name: [scene(rng) for _ in range(n)] for name, n in (("train", train), ("test", test))}
    write_dataset(folder, NAME, "1.0.0", features, splits)
    return folder
