"""What the tests of importing annotated pictures share: a scene of coloured rectangles, and what comes back."""

import io
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxformer.data import DataConfig, make_batches
from jaxformer.data.kinds.detection import Detection
from jaxformer.errors import UserError
from jaxformer.importing import import_dataset

import_detection = partial(import_dataset, "detection")
import_segmentation = partial(import_dataset, "segmentation")

NAMES = ["blob", "chip", "disc"]
HEIGHT, WIDTH = 40, 60
COLOURS = [(250, 20, 20), (20, 250, 20), (20, 20, 250)]


def boxes_of(seed: int) -> list[tuple[int, int, int, int, int]]:
    """(label, x0, y0, x1, y1) in pixels; every third picture has none."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(0 if seed % 3 == 2 else 2):
        left = 30 * number
        x0, y0 = left + int(rng.integers(1, 12)), int(rng.integers(1, 20))
        made.append(
            (int(rng.integers(3)), x0, y0, x0 + int(rng.integers(4, 16)), y0 + int(rng.integers(4, 18)))
        )
    return made


def picture_of(seed: int) -> Image.Image:
    """The rectangles in their classes' colours, on grey that differs."""
    image = np.full((HEIGHT, WIDTH, 3), 100 + seed, np.uint8)
    for label, x0, y0, x1, y1 in boxes_of(seed):
        image[y0:y1, x0:x1] = COLOURS[label]
    return Image.fromarray(image)


def mask_of(seed: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for label, x0, y0, x1, y1 in boxes_of(seed):
        mask[y0:y1, x0:x1] = label + 1
    return mask


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture_of(seed).save(path)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def coco(path: Path, seeds, folder: Path, **changes) -> Path:
    """A file of annotations and its pictures."""
    images, annotations = [], []
    for seed in seeds:
        save(folder / f"{seed}.png", seed)
        images.append({"id": seed, "file_name": f"{seed}.png", "height": HEIGHT, "width": WIDTH})
        for label, x0, y0, x1, y1 in boxes_of(seed):
            box = {
                "image_id": seed,
                "category_id": 10 * label + 7,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": 0,
            }
            annotations.append({"id": len(annotations), **box})
    categories = [{"id": 10 * n + 7, "name": name} for n, name in reversed(list(enumerate(NAMES)))]
    content = {"images": images, "annotations": annotations, "categories": categories} | changes
    return text(path, json.dumps(content))


def voc(path: Path, seed: int, picture: Path, extra: str = "", first: int = 1, size=(WIDTH, HEIGHT)) -> Path:
    """A picture and its annotations; pixels are counted from `first`."""
    save(picture, seed)
    objects = ""
    for label, *corners in boxes_of(seed):
        keys = zip(("xmin", "ymin", "xmax", "ymax"), corners, (first, first, 0, 0))
        bounds = "".join(f"<{key}>{value + more}</{key}>" for key, value, more in keys)
        name = f"<name>{NAMES[label]}</name><difficult>0</difficult>"
        objects += f"<object>{name}<bndbox>{bounds}</bndbox></object>"
    sizes = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    head = f'<?xml version="1.0" encoding="utf-8"?>\n<annotation><filename>{picture.name}</filename>{sizes}'
    return text(path, f"{head}{objects}{extra}</annotation>")


def yolo(labels: Path, seed: int, picture: Path) -> Path:
    save(picture, seed)
    lines = []
    for label, x0, y0, x1, y1 in boxes_of(seed):
        shares = (x0 + x1) / 2 / WIDTH, (y0 + y1) / 2 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT
        lines.append(" ".join([str(label), *(f"{share:.9f}" for share in shares)]))
    return text(labels, "\n".join(lines) + "\n" if lines else "")


def bring(source, tmp_path: Path, **options):
    return import_detection(source, "mine", str(tmp_path / "tfds"), **options)


def refusal(source, tmp_path: Path, make=import_detection, **options) -> str:
    """What is said of a source that cannot be imported; nothing is left behind."""
    folder = tmp_path / "tfds"
    with pytest.raises(UserError) as error:
        make(source, "mine", str(folder), **options)
    assert not folder.exists() or os.listdir(folder) == []
    return str(error.value).replace(f"{tmp_path}/", "")


def bring_masks(source, tmp_path: Path, **options):
    return import_segmentation(source, "mine", str(tmp_path / "tfds"), **options)


def seen(tmp_path: Path, split: str) -> dict[int, list[tuple[int, ...]]]:
    """What a split's batches say, by the seed of each picture: (label, x0, y0, x1, y1) as in `boxes_of`."""
    settings = Detection(size=(HEIGHT, WIDTH), max_objects=5)
    config = DataConfig(name="mine", data_dir=str(tmp_path / "tfds"), examples=settings, batch_size=50)
    made = make_batches(config, split, train=False)
    assert made.class_names == NAMES
    batch, found = made[0], {}
    for row in np.flatnonzero(batch["example_mask"]):
        seed = int(batch["image"][row, 0, 0, 0]) - 100
        np.testing.assert_array_equal(batch["image"][row], np.array(picture_of(seed)))
        there = batch["labels"][row] >= 0
        boxes = batch["boxes"][row][there] * np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
        corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
        np.testing.assert_allclose(corners, corners.round(), atol=1e-4)
        found[seed] = [
            (int(label), *map(int, box.round())) for label, box in zip(batch["labels"][row][there], corners)
        ]
    return found


def expected(seeds) -> dict[int, list[tuple[int, ...]]]:
    return {seed: boxes_of(seed) for seed in seeds}


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()
