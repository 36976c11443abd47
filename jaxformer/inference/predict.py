"""A user's own images and texts in; a trained model's answers out, for any task: dicts, JSON lines, drawn images."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TextIO

import jax
import numpy as np

from jaxformer.data.scanning import EXTENSIONS
from jaxformer.errors import UserError
from jaxformer.inference.inputs import Input, image_input, shown_image, text_inputs
from jaxformer.inference.writing import BATCH, rounded
from jaxformer.tasks.base import Batch, Row

logger = logging.getLogger("jaxformer")

LINES = "predictions.jsonl"

Prediction = dict[str, Any]


class Run(Protocol):
    """What predictions need of a trained run."""

    config: Any
    model: Any
    task: Any
    variables: Any
    tokenizer: Any
    layout: Any

    @property
    def class_names(self) -> list[str]:
        """Names of the first classes."""

    @property
    def batch_size(self) -> int:
        """How many images are predicted at a time."""

    def example(self, image: Any) -> dict[str, np.ndarray]:
        """An image as the model takes it; see `inputs.image_input`."""


def predict(run: Run, inputs: Any, top: int = 5) -> Iterator[Prediction]:
    """Yields the model's answer to each input, in their order, as JSON values.

    What was asked comes first: "file" of an image file, "text" (or "texts" of a pair), "words", "question". Then what
    the task's `answers` gives: "predictions", "objects", "classes", "value", "tags", "masks", "answer", "translation".

    Args:
      run: a trained run, such as a `LoadedRun`.
      inputs: one input or several: of a model of images, files or uint8 [H, W, C]; of a model of texts, texts (words
        and tags: strings or lists of words), pairs of texts or (question, context); or `given.Given`.
      top: how many answers to list where there are several.

    Raises:
      UserError: the task predicts nothing; an input cannot be read, or its prediction is not finite.
    """
    check_top(top)
    check_task(run.task)
    for one, predicted in apply(run, read(run, inputs), top):
        yield {**one.asked, **run.task.answers(predicted, one.example, run, top)}


def check_top(top: int) -> None:
    """Raises UserError for a number that cannot be."""
    if top < 1:
        raise UserError(f"top={top}: expected at least 1")


def check_task(task: Any) -> None:
    """Raises UserError for a task that predicts nothing."""
    if task.reads is None:
        raise UserError(
            f"this run's task is {type(task).__name__}: it learns to go on with texts",
            "`jaxformer generate` does that",
        )


def read(run: Run, inputs: Any) -> Iterable[Input]:
    """The inputs as the model takes them; images as they are asked for."""
    if run.task.reads != "image":
        return text_inputs(run, inputs)
    several = [inputs] if isinstance(inputs, (str, Path, np.ndarray)) else inputs
    return (image_input(run, image) for image in several)


def apply(run: Run, inputs: Iterable[Input], top: int) -> Iterator[tuple[Input, Row]]:
    """Yields each input with its prediction: a row of `Task.predict`, or several rows stacked of a question.

    All batches have one shape, so that it is compiled once.

    Raises:
      UserError: a prediction is not finite.
    """
    shards, rows, lengths = run.layout.batch_shards, run.batch_size, {}
    if run.task.modality == "text":
        inputs = list(inputs)
        every = [row for one in inputs for row in one.rows]
        longest = max((len(row["tokens"]) for row in every), default=1)
        text = min(rounded(longest), run.model.context_length)
        lengths = {"tokens": text, "token_types": text, "token_mask": text}
        if every and "places" in every[0]:
            lengths["places"] = max(len(row["places"]) for row in every)
        rows = -(-min(BATCH, max(1, len(every))) // shards) * shards
    waiting: list[Input] = []

    def examples() -> Iterator[Row]:
        for one in inputs:
            waiting.append(one)
            yield from one.rows

    found: list[Row] = []
    for row in predicted_rows(run, examples(), rows, lengths, top):
        found.append(row)
        one = waiting[0]
        if len(found) == len(one.rows):
            check_finite(found, one.place)
            windows = {name: np.stack([row[name] for row in found]) for name in row}
            yield one, windows if run.task.reads == "question" else found[0]
            waiting.pop(0)
            found = []


def predicted_rows(
    run: Run, examples: Iterator[Row], rows: int, lengths: Mapping[str, int], top: int
) -> Iterator[Row]:
    """Yields a row of `Task.predict` for each example, of which `rows` are one batch."""
    fill = {"tokens": 0 if run.tokenizer is None else run.tokenizer.pad_id or 0}
    while chunk := list(islice(examples, rows)):
        batch = {
            name: collate([example[name] for example in chunk], rows, lengths.get(name), fill.get(name, 0))
            for name in chunk[0]
        }
        found = jax.device_get(step(run.task, run.model, top, run.variables, run.layout.put(batch)))
        for row in range(len(chunk)):
            yield {name: values[row] for name, values in found.items()}


@partial(jax.jit, static_argnums=(0, 1, 2))
def step(task: Any, model: Any, top: int, variables: Any, batch: Batch) -> dict[str, jax.Array]:
    """`Task.predict`, compiled once for a task, a model and a shape."""
    return task.predict(model, variables, batch, top)


def collate(values: Sequence[np.ndarray], rows: int, length: int | None, fill: int) -> np.ndarray:
    """Arrays of one batch [rows, ...]: filled up at the end of their first axis if `length` is given, and with rows."""
    shape = (rows, *values[0].shape) if length is None else (rows, length, *values[0].shape[1:])
    batch = np.full(shape, fill, values[0].dtype)
    for row, value in zip(batch, values):
        row[: len(value)] = value
    return batch


def check_finite(rows: Sequence[Row], place: str) -> None:
    """Raises UserError for NaN and infinities in a prediction."""
    values = (np.asarray(value) for row in rows for value in row.values())
    if not all(np.isfinite(value).all() for value in values if value.dtype.kind == "f"):
        raise UserError(f"{place}: the model's predictions are not finite; try another checkpoint")


def predict_files(
    run: Run,
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
    output_dir/NAME-classes.png, a grey image of 8 bits (with the classes' colours as its palette) or of 16.

    Args:
      run: a trained run of a task over images.
      paths: image files, and folders, whose images (EXTENSIONS) are taken in alphabetical order.
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
    files = readable(find_images(map(Path, paths)), run.example, skip_broken)
    places = place_images(files, output_dir, run.task.written)
    results = []
    with writing(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / LINES).write_text("")
    for (one, predicted), place in zip(apply(run, read(run, files), top), places):
        answer = run.task.answers(predicted, one.example, run, top)
        names = {key: place[key].name for key in run.task.written}
        result = {**one.asked, **names, **answer}
        line = json.dumps(result, ensure_ascii=False) + "\n"
        drawn = run.task.draw(shown_image(run, one), answer, predicted, one.example)
        with writing(output_dir):
            for key, image in drawn.items():
                image.save(place[key])
            with (output_dir / LINES).open("a") as file:
                file.write(line)
        if lines is not None:
            lines.write(line)
        results.append(result)
    what = "1 image with its" if len(files) == 1 else f"{len(files)} images with their"
    logger.info("%s predictions are in %s", what, output_dir)
    return results


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files, and the images in the folders and below them; each once.

    Raises:
      UserError: there is none.
    """
    given, found = list(paths), []
    for path in given:
        if path.is_dir():
            inside = (p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
            found += sorted(p for p in inside if not p.name.startswith("."))
        else:
            found.append(path)
    if not found:
        kinds = ", ".join(sorted(EXTENSIONS))
        where = f"{', '.join(map(str, given))}: there are no images" if given else "no images were named"
        raise UserError(f"{where}; expected files, or folders of {kinds}")
    return list(dict.fromkeys(found))


def readable(files: Sequence[Path], preprocess: Any, skip_broken: bool) -> list[Path]:
    """The files that `preprocess` takes; the others are logged or, unless they may be skipped, raised."""
    broken = {}
    for path in files:
        try:
            preprocess(path)
        except (OSError, ValueError, UserError) as error:
            broken[path] = reason(path, error)
    lines = [f"{path}: {why}" for path, why in broken.items()]
    if broken and (not skip_broken or len(broken) == len(files)):
        remedy = "" if skip_broken else "; fix them, or skip broken files"
        raise UserError(f"{len(broken)} of {len(files)} images cannot be read{remedy}", *lines)
    for line in lines:
        logger.warning("skipped %s", line)
    return [path for path in files if path not in broken]


def reason(path: Path, error: Exception) -> str:
    """Why a file cannot be read, without its name."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.strip().removeprefix(f"{path}: ").replace("\n", " ")


def place_images(
    files: Sequence[Path], output_dir: Path, written: Mapping[str, str] | None = None
) -> list[dict[str, Path]]:
    """Where the images drawn for each file go: under "" NAME.png, with a number where another file has the same name.

    Args:
      files: the image files.
      output_dir: the folder.
      written: further images beside each (`Task.written`).

    Raises:
      UserError: one would overwrite one of the files or another image.
    """
    used: Counter[str] = Counter()
    taken = {path.resolve() for path in files}
    places: list[dict[str, Path]] = []
    for path in files:
        name = path.stem
        while used[name]:
            used[path.stem] += 1
            name = f"{path.stem}-{used[path.stem]}"
        used[name] += 1
        endings = {"": "", **(written or {})}
        places.append({key: output_dir / f"{name}{ending}.png" for key, ending in endings.items()})
    for key in ("", *(written or {})):  # the annotated ones have the first choice
        for place in places:
            if place[key].resolve() in taken:
                raise UserError(f"{place[key]}: would be overwritten; choose another output folder")
            taken.add(place[key].resolve())
    return places


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what the file system refuses into a UserError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder}: cannot write there ({reason}); choose another output folder") from error
