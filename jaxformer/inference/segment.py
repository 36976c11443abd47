"""Image files in; the class of each of their pixels out, as JSON lines, maps and coloured pictures."""

import json
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import cv2
import jax
import numpy as np
from PIL import Image

from jaxformer.errors import UserError
from jaxformer.inference.annotate import annotate
from jaxformer.inference.predict import LINES, find_images, place_pictures, readable, writing
from jaxformer.inference.restore import Trained
from jaxformer.observe import class_colours

logger = logging.getLogger("jaxformer")

MAP = "-classes"  # ends the name of a map of classes
BYTE = 256


def segment_files(
    trained: Trained,
    paths: Iterable[Path],
    output_dir: Path,
    *,
    skip_broken: bool = False,
    lines: TextIO | None = None,
) -> list[dict[str, Any]]:
    """Predicts the class of each pixel of image files.

    Writes output_dir/predictions.jsonl, one object a file and in the order of the files, "classes" being those that
    were found, the largest first, with the share of the pixels that have them:
      {"file": "street.jpg", "map": "street-classes.png", "classes": [{"label": "road", "index": 3, "share": 0.4}, ...]}
    each picture in the classes' colours, with their names below it, as output_dir/NAME.png, and the numbers of the
    classes as output_dir/NAME-classes.png, a grey image of 8 bits (with these colours as its palette) or of 16.

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
    maps = map_places(pictures, files)
    predict = make_predict(trained)
    results: list[dict[str, Any]] = []
    with writing(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / LINES).write_text("")
    for first in range(0, len(files), trained.batch_size):
        examples = [trained.example(path) for path in files[first : first + trained.batch_size]]
        for number, (example, found) in enumerate(zip(examples, predict(examples)), first):
            picture = example["picture"]
            classes = at_size(found, example["extent"], picture.shape)
            shares = shares_of(classes, trained.class_names)
            result = {"file": str(files[number]), "map": maps[number].name, "classes": shares}
            line = json.dumps(result, ensure_ascii=False) + "\n"
            shown = annotate(
                class_colours.over_image(picture, classes),
                [(entry["label"], entry["share"]) for entry in shares],
                [class_colours.css(entry["index"]) for entry in shares],
            )
            with writing(output_dir):
                shown.save(pictures[number])
                map_image(classes, len(trained.class_names)).save(maps[number])
                with (output_dir / LINES).open("a") as file:
                    file.write(line)
            if lines is not None:
                lines.write(line)
            results.append(result)
    what = "1 picture with its" if len(files) == 1 else f"{len(files)} pictures with their"
    logger.info("%s classes are in %s", what, output_dir)
    return results


def make_predict(trained: Trained) -> Any:
    """A function from examples to their classes, int [N, H, W], all in one batch of `trained.batch_size`."""
    model, task = trained.experiment.build_model(), trained.experiment.task
    layout = trained.experiment.layout

    @partial(jax.jit, out_shardings=layout.replicated)
    def classes_of(variables: Any, batch: Any) -> jax.Array:
        outputs = model.apply(variables, **task.inputs(batch), deterministic=True)
        return task.predictions(outputs, batch)["classes"]

    def predict(examples: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
        images = np.stack([example["image"] for example in examples])
        padding = np.zeros((trained.batch_size - len(images), *images.shape[1:]), images.dtype)
        batch = layout.shard_batch({"image": np.concatenate([images, padding])})
        return np.asarray(classes_of(trained.variables, batch))[: len(images)]

    return predict


def at_size(classes: np.ndarray, extent: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """int32 [h, w]: a frame's classes [H, W] without its padding, at a picture's own height and width."""
    inside = np.ascontiguousarray(classes[: extent[0], : extent[1]], np.float32)  # OpenCV resizes no int32
    return cv2.resize(inside, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT).astype(np.int32)


def shares_of(classes: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """The classes that there are, the largest first: "label", "index", and the "share" of the pixels."""
    counts = np.bincount(classes.reshape(-1), minlength=len(names))
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    return [
        {
            "label": names[index] if index < len(names) else str(index),
            "index": int(index),
            "share": round(float(counts[index] / classes.size), 6),
        }
        for index in order
    ]


def map_image(classes: np.ndarray, count: int) -> Image.Image:
    """An image whose values are the classes."""
    if count > BYTE:
        return Image.fromarray(classes.astype(np.uint16))
    image = Image.fromarray(classes.astype(np.uint8), "P")
    image.putpalette(class_colours.palette(count).tobytes(), "RGB")
    return image


def map_places(pictures: Sequence[Path], files: Sequence[Path]) -> list[Path]:
    """Where the maps beside pictures go.

    Raises:
      UserError: that would overwrite one of the files, or another one's picture.
    """
    places = [picture.with_name(f"{picture.stem}{MAP}.png") for picture in pictures]
    taken = {path.resolve() for path in (*files, *pictures)}
    for place in places:
        if place.resolve() in taken:
            raise UserError(
                f"{place}: is needed for a map of classes; name another folder with --output, or rename the file"
            )
    return places
