"""A user's own images and texts in; a trained model's answers out, for any task: dicts, JSON lines, drawn images."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count, islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import jax
import numpy as np

from jaxformer import drawing
from jaxformer.errors import UserError, counted
from jaxformer.files import json_line, write_to, writing_to
from jaxformer.inference.inputs import (
    REMEDY,
    Input,
    all_at_once,
    image_input,
    place_images,
    readable,
    shown_image,
)
from jaxformer.inference.texts import naming, text_inputs
from jaxformer.inference.writing import BATCH, rounded
from jaxformer.tasks.base import Batch, Row

if TYPE_CHECKING:
    from jaxformer.inference.loaded import LoadedRun

logger = logging.getLogger("jaxformer")

LINES = "predictions.jsonl"

Prediction = dict[str, Any]


def predict(run: "LoadedRun", inputs: Any, top: int = 5) -> Iterator[Prediction]:
    """Yields the model's answer to each input, in their order, as JSON values.

    What was asked comes first: "file" of an image file, "text" (or "texts" of a pair), "words", "question". Then what
    the task's `answers` gives: "predictions", "objects", "classes", "value", "tags", "masks", "answer", "translation".

    Args:
      run: a trained run.
      inputs: one input or several: of a model of images, files or uint8 [H, W, C]; of a model of texts, texts (words
        and tags: strings or lists of words), pairs of texts or (question, context); or `texts.Given`.
      top: how many answers to list where there are several.

    Raises:
      UserError: the task predicts nothing; an input cannot be read, or its prediction is not finite.
    """
    check_top(top)
    check_task(run.task)
    for one, _, answer in run.answered(inputs, top):
        yield {**one.asked, **answer}


def check_top(top: int) -> None:
    """Raises UserError for a number that cannot be."""
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 1:
        raise UserError(f"top={top!r}: expected at least 1, an int")


def check_task(task: Any) -> None:
    """Raises UserError for a task that predicts nothing."""
    if task.reads is None:
        raise UserError(
            f"this run's task is {type(task).__name__}: it learns to go on with texts",
            "use generate to continue texts",
        )


def answered(run: "LoadedRun", inputs: Any, top: int) -> Iterator[tuple[Input, Row, Prediction]]:
    """Yields each input with its prediction and the answer in it.

    A prediction is a row of `Task.predict`, or several rows stacked of a question.

    Raises:
      UserError: an input cannot be read, or a prediction is not finite.
    """
    for one, found in computed(run, inputs, partial(step, run.task, run.model, top)):
        row = found[0]
        if run.task.reads == "question":
            row = {name: np.stack([window[name] for window in found]) for name in row}
        yield one, row, run.task.answers(row, one.example, run, top)


def featured(run: "LoadedRun", inputs: Any) -> Iterator[Prediction]:
    """Yields what was asked and the "features" of each input, a list of numbers: what the model's head sees of it, or
    the mean of its tokens; of a question with several windows, their mean.

    Args:
      run: a trained run.
      inputs: as of `predict`.

    Raises:
      UserError: the model has no features of whole inputs; an input cannot be read, or a feature is not finite.
    """
    from jaxformer.evaluation.features import features

    check_task(run.task)

    def of_batch(variables: Any, batch: Batch) -> dict[str, jax.Array]:
        return {"features": features(run.task, run.model, variables, batch)}

    for one, found in computed(run, inputs, of_batch):
        mean = np.mean([row["features"] for row in found], axis=0)
        yield {**one.asked, "features": [float(f"{value:.6g}") for value in mean.tolist()]}


def computed(
    run: "LoadedRun", inputs: Any, compute: Callable[[Any, Batch], dict[str, jax.Array]]
) -> Iterator[tuple[Input, list[Row]]]:
    """Yields each input with what is computed of each of its rows.

    All batches have one shape, so that it is compiled once. Images are read as they are needed.

    Args:
      run: a trained run.
      inputs: as of `predict`.
      compute: (variables, batch) -> arrays with a row for each of the batch's.

    Raises:
      UserError: an input cannot be read, or what is computed is not finite.
    """
    size, lengths = run.batch_size, {}
    if run.task.modality == "image":
        single = isinstance(inputs, (str, Path)) or not isinstance(inputs, Iterable)
        single |= isinstance(inputs, np.ndarray) and inputs.ndim < 4
        given, places = ([inputs], ["the image"]) if single else (inputs, (f"image {n}" for n in count(1)))
        asked: Iterable[Input] = (named_image(run, image, place) for image, place in zip(given, places))
    else:
        asked = text_inputs(run, inputs)
        rows = [row for one in asked for row in one.rows]
        lengths = {name: max(len(row[name]) for row in rows) for name in rows[0]}
        longest = min(rounded(lengths["tokens"]), run.model.longest_text)
        lengths |= dict.fromkeys(("tokens", "token_types", "token_mask"), longest)
        shards = run.layout.batch_shards
        size = -(-min(BATCH, len(rows)) // shards) * shards
    asked, coming = tee(asked)
    predicted = computed_rows(run, (row for one in coming for row in one.rows), size, lengths, compute)
    for one in asked:
        found = list(islice(predicted, len(one.rows)))
        values = (np.asarray(value) for row in found for value in row.values())
        if not all(np.isfinite(value).all() for value in values if value.dtype.kind == "f"):
            raise UserError(f"{one.place}: the model's predictions are not finite; try another checkpoint")
        yield one, found


def named_image(run: "LoadedRun", image: Any, name: str) -> Input:
    """As `image_input`; messages call a file by its path, and what has none by `name`."""
    with naming(str(image) or "''" if isinstance(image, (str, Path)) else name):
        return image_input(run, image)


def computed_rows(
    run: "LoadedRun", examples: Iterator[Row], size: int, lengths: Mapping[str, int], compute: Callable
) -> Iterator[Row]:
    """Yields a row of what is computed for each example, of which `size` are one batch."""
    while chunk := list(islice(examples, size)):
        batch = {
            name: collate([example[name] for example in chunk], size, lengths.get(name)) for name in chunk[0]
        }
        found = jax.device_get(compute(run.variables, run.layout.shard_batch(batch)))
        for row in range(len(chunk)):
            yield {name: values[row] for name, values in found.items()}


@partial(jax.jit, static_argnums=(0, 1, 2))
def step(task: Any, model: Any, top: int, variables: Any, batch: Batch) -> dict[str, jax.Array]:
    """`Task.predict`, compiled once for a task, a model and a shape."""
    return task.predict(model, variables, batch, top)


def collate(values: Sequence[np.ndarray], size: int, length: int | None) -> np.ndarray:
    """Arrays of one batch [size, ...], filled up with zeros; also on their first axis if `length` is given."""
    shape = values[0].shape if length is None else (length, *values[0].shape[1:])
    batch = np.zeros((size, *shape), values[0].dtype)
    for row, value in zip(batch, values):
        row[: len(value)] = value
    return batch


def predict_files(
    run: "LoadedRun",
    paths: Iterable[str | Path],
    output_dir: Path,
    top: int = 5,
    *,
    skip_broken: bool = False,
    lines: TextIO | None = None,
) -> list[Prediction]:
    """Predicts image files.

    Writes output_dir/predictions.jsonl, one object a file and in the order of the files, such as
      {"file": "cats/1.jpg", "predictions": [{"label": "cat", "index": 3, "probability": 0.98}, ...]}
    or with "objects", whose boxes are x0, y0, x1, y1 in pixels of the image, or with "classes" of the pixels. Each
    image with its answer is drawn as output_dir/NAME.png; a segmentation's "map" of the classes' numbers is
    output_dir/NAME-classes.png, a grey image of 8 bits (with the classes' colours as its palette) or of 16. All of them
    appear at the end, together, and take the place of what an earlier prediction left in the folder.

    Args:
      run: a trained run of a task over images.
      paths: image files, and folders, whose images are taken in alphabetical order.
      output_dir: is made if it is not there.
      top: how many classes to list, the likeliest first.
      skip_broken: log the files that cannot be read and leave them out, instead of stopping.
      lines: takes the JSON lines, too, as they are made.

    Returns:
      The objects.

    Raises:
      UserError: files are missing or cannot be read (all are listed, before anything is done), there is
        no image at all, `output_dir` cannot be written or holds the files themselves, or a prediction is not
        finite.
    """
    check_top(top)
    files = readable(paths, run.example, skip_broken)
    places = place_images(files, output_dir, run.task.written)
    with all_at_once(output_dir, LINES, originals=files) as (hidden, results):
        for (one, predicted, answer), place in zip(run.answered(files, top), places):
            results.append({**one.asked, **{key: place[key].name for key in run.task.written}, **answer})
            drawn = run.task.draw(shown_image(run, one), answer, predicted, one.example)
            with writing_to(output_dir, REMEDY):
                for key, image in drawn.items():
                    drawing.save(image, hidden / place[key].name)
            if lines is not None:
                write_to(lines, json_line(results[-1]))
    logger.info("predictions for %s are in %s", counted(len(files), "image"), output_dir)
    return results
