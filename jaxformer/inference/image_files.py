"""Image files that a user names: which they are, which can be read, and where drawings of them go."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError
from jaxformer.files import IMAGE_EXTENSIONS

logger = logging.getLogger("jaxformer")


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files, and the images in the folders and below them; each once.

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
        remedy = "" if skip_broken else "; fix them, or leave them out with `skip_broken`"
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
