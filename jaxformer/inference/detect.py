"""Image files in; the objects in them out, as JSON lines and pictures with boxes."""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np
from PIL import Image

from jaxformer.data.cropping import ResizeShorter
from jaxformer.data.decoding import decode_image
from jaxformer.data.listing import font
from jaxformer.data.transforms import Resize
from jaxformer.inference.predict import LINES, find_images, place_pictures, readable, writing
from jaxformer.inference.restore import Trained
from jaxformer.observe.drawn_boxes import draw_boxes

logger = logging.getLogger("jaxformer")

SMALLEST, LARGEST = 640, 1280  # pixels of a picture's longer side as it is drawn
TEXT = 12  # pixels
KEEP_ALL = (Resize, ResizeShorter)  # transforms after which a share of the picture is what it was

Tree = Any


def detect_files(
    trained: Trained,
    paths: Iterable[Path],
    output_dir: Path,
    *,
    skip_broken: bool = False,
    lines: TextIO | None = None,
) -> list[dict[str, Any]]:
    """Finds the objects in image files.

    Writes output_dir/predictions.jsonl, one object a file and in the order of the files; boxes are x0, y0, x1, y1 in
    pixels of the file's own picture, and scores are at least the task's `score_threshold`, the highest first:
      {"file": "cells.jpg", "objects": [{"label": "RBC", "index": 0, "score": 0.93, "box": [10.5, 4.0, 92.1, 85]}, ...]}
    and each picture with its boxes as output_dir/NAME.png.

    Args:
      trained: the model.
      paths: image files, and folders, as of `predict.predict_files`.
      output_dir: is made if it is not there.
      skip_broken: log the files that cannot be read and leave them out, instead of stopping.
      lines: takes the JSON lines, too, as they are made.

    Returns:
      The objects.

    Raises:
      UserError: files are missing or cannot be read, there is no image at all, or `output_dir` cannot be written or
        holds the files themselves.
    """
    files = readable(find_images(paths), trained.example, skip_broken)
    pictures = place_pictures(files, output_dir)
    predict, task = make_predict(trained), trained.experiment.task
    results: list[dict[str, Any]] = []
    with writing(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / LINES).write_text("")
    for first in range(0, len(files), trained.batch_size):
        examples = [trained.example(path) for path in files[first : first + trained.batch_size]]
        for number, (example, found) in enumerate(zip(examples, predict(examples)), first):
            picture = own_picture(files[number], example, trained)
            objects = task.described(found, picture.shape[:2], trained.class_names)
            result = {"file": str(files[number]), "objects": objects}
            line = json.dumps(result, ensure_ascii=False) + "\n"
            size = min(max(max(picture.shape[:2]), SMALLEST), LARGEST)
            with writing(output_dir):
                Image.fromarray(draw_boxes(picture, objects, size, font(TEXT))).save(pictures[number])
                with (output_dir / LINES).open("a") as file:
                    file.write(line)
            if lines is not None:
                lines.write(line)
            results.append(result)
    what = "1 picture with its" if len(files) == 1 else f"{len(files)} pictures with their"
    logger.info("%s objects are in %s", what, output_dir)
    return results


def own_picture(path: Path, example: dict[str, np.ndarray], trained: Trained) -> np.ndarray:
    """The file's own picture, uint8 [H, W, 3]; where the run's transforms cut something off, what they left."""
    transforms = trained.experiment.config.data.eval_transforms
    if all(isinstance(transform, KEEP_ALL) for transform in transforms):
        return decode_image(path.read_bytes(), 3, upright=True)
    return example["picture"]


def make_predict(
    trained: Trained,
) -> Callable[[Sequence[dict[str, np.ndarray]]], list[dict[str, np.ndarray]]]:
    """A function from examples to the detections of each, all in one batch of `trained.batch_size`."""
    model, task = trained.experiment.build_model(), trained.experiment.task
    layout = trained.experiment.layout

    @partial(jax.jit, out_shardings=layout.replicated)
    def detect(variables: Tree, batch: Tree) -> dict[str, jax.Array]:
        return task.detections(model.apply(variables, **task.inputs(batch), deterministic=True))

    def predict(examples: Sequence[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        rows = {name: np.stack([example[name] for example in examples]) for name in ("image", "extent")}
        missing = trained.batch_size - len(examples)
        batch = {name: np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for name, x in rows.items()}
        found = jax.device_get(detect(trained.variables, layout.shard_batch(batch)))
        return [{name: values[row] for name, values in found.items()} for row in range(len(examples))]

    return predict
