"""One input of `predict`; images that a user gives: which files they are, which can be read, where drawings go."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.data.cropping import ResizeShorter
from jaxformer.data.decoding import FORMATS, decode_image
from jaxformer.data.transforms import Resize
from jaxformer.drawing import is_drawing, remove_others
from jaxformer.errors import UserError, counted
from jaxformer.files import incomplete, json_line, made, put_in_place, writing_to
from jaxformer.reading import IMAGE_EXTENSIONS, named, regular
from jaxformer.tasks.base import Row

logger = logging.getLogger("jaxformer")

REMEDY = "choose another output folder"
KEEP_ALL = (Resize, ResizeShorter)  # transforms after which a share of the image is what it was


@dataclass(frozen=True)
class Input:
    """One input of `predict`."""

    place: str
    """How messages name it."""
    asked: dict[str, Any]
    """The beginning of its answer, as JSON values: its file, its text, ..."""
    rows: list[Row]
    """The model's arrays: one example, or the windows of a question."""
    example: dict[str, Any] = field(default_factory=dict)
    """What `Task.answers` needs besides."""


def image_input(run: Any, image: str | Path | np.ndarray) -> Input:
    """An image file, or uint8 [H, W, C], as the run's evaluation transforms make it.

    Raises:
      UserError: it is something else, or cannot be read.
    """
    example = run.example(image)
    place, asked = ("the image", {}) if isinstance(image, np.ndarray) else (str(image), {"file": str(image)})
    arrays = {name: np.asarray(example[name]) for name in ("image", "extent") if name in example}
    one = Input(place, asked, [run.task.prepare(arrays, run)], {"source": image, **example})
    if "extent" in example:
        one.example["original_size"] = shown_image(run, one).shape[:2]
    return one


def shown_image(run: Any, one: Input) -> np.ndarray:
    """The input's own image, uint8 [H, W, 3], which answers refer to and are drawn on.

    Where positions count and the run's transforms cut something off, it is what they left.
    """
    image = one.example["source"]
    transforms = run.config.data.eval_transforms
    if "extent" in one.example and not all(isinstance(transform, KEEP_ALL) for transform in transforms):
        image = one.example["transformed"]
    elif not isinstance(image, np.ndarray):
        image = decode_image(regular(named(image)).read_bytes(), channels=3, upright=True)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def check_places(paths: Iterable[str | Path], folder: Path) -> None:
    """Raises UserError if there are no images, or `folder`, for what is made of them, is a file."""
    find_images(paths)
    if folder.is_file():
        raise UserError(f"{folder}: cannot write there (is a file); {REMEDY}")


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """The files, and the images in the folders and below them; each once.

    Raises:
      UserError: there is none.
    """
    given, found = [named(path) for path in paths], []
    for path in given:
        if path.is_dir():
            inside = (p for p in path.rglob("*") if p.suffix.lower() in IMAGE_EXTENSIONS and p.is_file())
            found += sorted(p for p in inside if not p.name.startswith("."))
        else:
            found.append(path)
    if not found:
        where = f"{', '.join(map(str, given))}: there are no images" if given else "no images were named"
        raise UserError(f"{where}; expected files, or folders of {', '.join(FORMATS)}")
    return list(dict.fromkeys(found))


def readable(paths: Iterable[str | Path], example: Any, skip_broken: bool) -> list[Path]:
    """The images of `find_images` that `example` takes; others are logged or, unless they may be skipped, raised."""
    files, broken = find_images(paths), {}
    for path in files:
        try:
            example(path)
        except (OSError, ValueError, UserError) as error:
            broken[path] = f"{path}: {reason(path, error)}"
    if broken and (not skip_broken or len(broken) == len(files)):
        them = "it" if len(broken) == 1 else "them"
        remedy = "" if skip_broken else f"; fix {them}, or leave {them} out with `skip_broken`"
        found = f"{len(broken)} of {counted(len(files), 'image')} cannot be read"
        raise UserError(f"{found}{remedy}", *broken.values())
    for line in broken.values():
        logger.warning("skipped %s", line)
    return [path for path in files if path not in broken]


def reason(path: Path, error: Exception) -> str:
    """Why a file cannot be read, without its name."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "is a folder; name an image in it"
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
      UserError: one would overwrite one of the files, another image, or what no drawing of ours is.
    """
    endings, used = {"": "", **(written or {})}, Counter[str]()
    places: list[dict[str, Path]] = []
    for path in files:
        name = path.stem
        while used[name]:
            used[path.stem] += 1
            name = f"{path.stem}-{used[path.stem]}"
        used[name] += 1
        places.append({key: output_dir / f"{name}{ending}.png" for key, ending in endings.items()})
    taken = {path.resolve() for path in files}
    for place in (place[key] for key in endings for place in places):  # the annotated ones come first
        if place.resolve() in taken or (place.exists() and not is_drawing(place)):
            raise UserError(f"{place}: would be overwritten; {REMEDY}")
        taken.add(place.resolve())
    return places


@contextmanager
def all_at_once(
    folder: Path, lines: str, drawings: str = "*.png", originals: Collection[Path] = ()
) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """A hidden folder in which drawings are made, and a list of objects about them; all get their places at the end.

    What was written earlier goes then. If the context ends with an error, or the process is killed, it is still there.

    Args:
      folder: where they belong; it is made if it is not there.
      lines: the name of the file of the objects, a JSON line each; when it is there, all drawings are.
      drawings: the pattern of their paths.
      originals: what is drawn on, which stays in any case.

    Raises:
      UserError: the folder cannot be written.
    """
    with ExitStack() as stack:
        with writing_to(folder, REMEDY):
            stack.enter_context(made(folder))
            hidden = stack.enter_context(incomplete(folder / lines))
            hidden.mkdir()
        listed: list[dict[str, Any]] = []
        yield hidden, listed
        with writing_to(folder, REMEDY):
            (hidden / lines).write_text("".join(map(json_line, listed)), encoding="utf-8")
            (folder / lines).unlink(missing_ok=True)
            remove_others(folder, drawings, originals)
            for drawn in list(hidden.glob(drawings)):
                place = folder / drawn.relative_to(hidden)
                place.parent.mkdir(exist_ok=True)
                put_in_place(drawn, place)
            put_in_place(hidden / lines, folder / lines)
