"""Image files in; JSON lines and annotated pictures out."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from jaxformer.data.decoding import decode_image
from jaxformer.errors import UserError
from jaxformer.files import IMAGE_EXTENSIONS
from jaxformer.observe.annotate import annotate

logger = logging.getLogger("jaxformer")

LINES = "predictions.jsonl"

Prediction = dict[str, Any]


def predict_files(
    paths: Iterable[Path],
    predict_fn: Callable[[np.ndarray], np.ndarray],
    preprocess: Callable[[Path], np.ndarray],
    class_names: Sequence[str],
    output_dir: Path,
    top: int = 5,
    *,
    skip_broken: bool = False,
    batch_size: int = 32,
    lines: TextIO | None = None,
) -> list[Prediction]:
    """Predicts the classes of image files.

    Writes output_dir/predictions.jsonl, one object a file and in the order of the files:
      {"file": "cats/1.jpg", "predictions": [{"label": "cat", "index": 3, "probability": 0.98}, ...]}
    and each picture with its predictions below it as output_dir/NAME.png.

    Args:
      paths: image files, and folders, whose pictures (IMAGE_EXTENSIONS) are taken in alphabetical order.
      predict_fn: images uint8 [batch_size, H, W, C] -> probabilities [batch_size, K]. All calls have the same
        shape, so that it is compiled once; the last batch is filled up with zeros.
      preprocess: a file -> uint8 [H, W, C], as the model takes it. Raises ValueError, OSError or UserError.
      class_names: names of the first classes; the others are called by their numbers.
      output_dir: is made if it is not there.
      top: how many classes to list, the likeliest first.
      skip_broken: log the files that cannot be read and leave them out, instead of stopping.
      batch_size: images that are predicted at a time.
      lines: takes the JSON lines, too, as they are made.

    Returns:
      The objects.

    Raises:
      UserError: files are missing or cannot be read (all are listed, before anything is done), there is
        no image at all, `output_dir` cannot be written or holds the files themselves, or a probability is not
        finite.
    """
    check_top(top)
    files = readable(find_images(paths), preprocess, skip_broken)
    pictures = place_pictures(files, output_dir)
    results = []
    with writing(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / LINES).write_text("")
    for first in range(0, len(files), batch_size):
        batch = files[first : first + batch_size]
        probabilities = predict_batch(batch, predict_fn, preprocess, batch_size)
        for path, picture, row in zip(batch, pictures[first:], probabilities):
            predictions = likeliest(str(path), row, class_names, top)
            result = {"file": str(path), "predictions": predictions}
            line = json.dumps(result, ensure_ascii=False) + "\n"
            shown = annotate(
                decode_image(path.read_bytes(), channels=3, upright=True),
                [(prediction["label"], prediction["probability"]) for prediction in predictions],
            )
            with writing(output_dir):
                shown.save(picture)
                with (output_dir / LINES).open("a") as file:
                    file.write(line)
            if lines is not None:
                lines.write(line)
            results.append(result)
    what = "1 picture with its" if len(files) == 1 else f"{len(files)} pictures with their"
    logger.info("%s predictions are in %s", what, output_dir)
    return results


def check_top(top: int) -> None:
    """Raises UserError for a number that cannot be."""
    if top < 1:
        raise UserError(f"--top {top}: expected at least 1")


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files, and the pictures in the folders and below them; each once.

    Raises:
      UserError: there is none.
    """
    given, found = list(paths), []
    for path in given:
        if path.is_dir():
            inside = (p for p in path.rglob("*") if p.suffix.lower() in IMAGE_EXTENSIONS and p.is_file())
            found += sorted(p for p in inside if not p.name.startswith("."))
        else:
            found.append(path)
    if not found:
        kinds = ", ".join(sorted(IMAGE_EXTENSIONS))
        where = f"{', '.join(map(str, given))}: there are no images" if given else "no images were named"
        raise UserError(f"{where}; expected files, or folders of {kinds}")
    return list(dict.fromkeys(found))


def readable(files: Sequence[Path], preprocess: Callable[[Path], Any], skip_broken: bool) -> list[Path]:
    """The files that `preprocess` takes; the others are logged or, unless they may be skipped, raised."""
    broken = {}
    for path in files:
        try:
            preprocess(path)
        except (OSError, ValueError, UserError) as error:
            broken[path] = reason(path, error)
    lines = [f"{path}: {why}" for path, why in broken.items()]
    if broken and (not skip_broken or len(broken) == len(files)):
        remedy = "" if skip_broken else "; mend them, or leave them out with --skip-broken"
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


def predict_batch(
    files: Sequence[Path],
    predict_fn: Callable[[np.ndarray], np.ndarray],
    preprocess: Callable[[Path], np.ndarray],
    batch_size: int,
) -> np.ndarray:
    """Probabilities [N, K] of N <= batch_size files, predicted as one full batch."""
    images = np.stack([preprocess(path) for path in files])
    padding = np.zeros((batch_size - len(files), *images.shape[1:]), images.dtype)
    return np.asarray(predict_fn(np.concatenate([images, padding])))[: len(files)]


def likeliest(
    where: str, probabilities: np.ndarray, class_names: Sequence[str], top: int
) -> list[Prediction]:
    """The `top` classes of probabilities [K], the likeliest first; of equal ones the first class."""
    if not np.isfinite(probabilities).all():
        raise UserError(f"{where}: the model's probabilities are not finite; try another --checkpoint")
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [
        {
            "label": class_names[index] if index < len(class_names) else str(index),
            "index": int(index),
            "probability": round(float(probabilities[index]), 6),
        }
        for index in order
    ]


def place_pictures(files: Sequence[Path], output_dir: Path) -> list[Path]:
    """Where each file's annotated picture goes: NAME.png, with a number where another file has the same name.

    Raises:
      UserError: that would overwrite one of the files.
    """
    used: Counter[str] = Counter()
    places: list[Path] = []
    for path in files:
        name = path.stem
        while used[name]:
            used[path.stem] += 1
            name = f"{path.stem}-{used[path.stem]}"
        used[name] += 1
        places.append(output_dir / f"{name}.png")
    originals = {path.resolve() for path in files}
    for place in places:
        if place.resolve() in originals:
            raise UserError(f"{place}: would be overwritten; name another folder with --output")
    return places


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what the file system refuses into a UserError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder}: cannot write there ({reason}); name another with --output") from error
