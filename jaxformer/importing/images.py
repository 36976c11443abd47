"""Opening images: whether a file can be used, what of it is stored, and what is odd about it."""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from jaxformer.data.decoding import DEEP, GREY, decode_image, is_plain_png, is_turned, opened
from jaxformer.errors import counted
from jaxformer.importing.sources import Sources
from jaxformer.reading import BrokenFile, regular

ALL = ""  # in a class's place: all images, whatever their class

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Opened:
    """An image that was opened and decoded."""

    path: Path
    """The file."""
    size: tuple[int, int]
    """Height and width of what is stored, upright."""
    grey: bool
    """Whether it has no colour."""
    as_is: bool
    """Whether the file's bytes can be stored: an 8-bit RGB or grey JPEG or PNG that stands upright."""
    digest: bytes
    """SHA-256 of the file."""
    of_one_colour: bool
    """Whether all of its pixels are the same."""
    lost: tuple[str, ...]
    """What of the file is not stored."""

    def stored(self, channels: int = 3) -> bytes:
        """The file's bytes, or the upright image as PNG: grey for one channel, else RGB."""
        content = regular(self.path).read_bytes()
        if self.as_is:
            return content
        pixels = decode_image(content, channels, upright=True)
        return as_png(pixels if channels == 3 else pixels[:, :, 0])


def as_png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 [H, W] or [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def open_image(path: Path) -> Opened:
    """Opens and decodes a file.

    Raises:
      BrokenFile: it is no image, or a damaged one.
    """
    try:
        content = regular(path).read_bytes()
        with opened(content) as image:
            grey, deep = image.mode in GREY, image.mode in DEEP
            plain = (image.format == "JPEG" and image.mode in ("L", "RGB")) or is_plain_png(content, 3)
            as_is = plain and not is_turned(image)
            several = image.format != "MPO" and getattr(image, "is_animated", False)  # a camera's previews
        pixels = decode_image(content, 1 if grey else 3, upright=True)
    except (OSError, ValueError) as error:
        system = error.strerror if isinstance(error, OSError) else None
        raise BrokenFile(path, f"not a readable image ({system or error})") from error
    lost = ["the lower 8 of 16 bits"] * deep + ["all frames or pages but the first"] * several
    one, digest = bool((pixels == pixels[0, 0]).all()), hashlib.sha256(content).digest()
    return Opened(path, pixels.shape[:2], grey, as_is, digest, one, tuple(lost))


def remarks(images: Iterable[tuple[Opened, str]]) -> Iterator[str]:
    """Yields a line about everything odd in images that were read, and the classes that they are of."""
    lost, colours = Counter[str](), dict[str, list[bool]]()
    for image, label in images:
        lost.update(image.lost)
        for name in {ALL, label}:
            colours.setdefault(name, []).append(image.of_one_colour)
    for what, count in lost.items():
        yield f"not stored: {what} of {counted(count, 'image')}"
    of_one = [name for name, found in colours.items() if all(found)]
    if ALL in of_one:
        yield "every image is of one colour; look whether the files are what they should be"
    elif of_one:
        yield f"every image of the class {', '.join(of_one)} is of one colour; look at its files"


def open_all(items: Sequence[Item], opened: Callable[[Item], Found], sources: Sources) -> list[Found]:
    """Calls `opened` of each item, in threads; what it raises a BrokenFile about goes to `sources.broken`."""

    def attempt(item: Item) -> Found | BrokenFile:
        try:
            return opened(item)
        except BrokenFile as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(attempt, items))
    sources.broken.extend((error.path, error.reason) for error in results if isinstance(error, BrokenFile))
    return [result for result in results if not isinstance(result, BrokenFile)]
