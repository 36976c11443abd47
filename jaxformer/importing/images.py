"""Opening images: whether a file can be used, and what of it is stored."""

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from jaxformer.files import BrokenFile
from jaxformer.importing.sources import Sources

EXIF_ORIENTATION = 0x0112
GREY_MODES = {"1", "L", "LA", "I", "I;16"}

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Opened:
    """An image that was opened and decoded."""

    path: Path
    """The file."""
    size: tuple[int, int]
    """Height and width, upright."""
    grey: bool
    """Whether it has no colour."""
    as_is: bool
    """Whether the file's bytes can be stored: an 8-bit RGB or grey JPEG or PNG that stands upright."""
    digest: bytes
    """SHA-256 of the file."""

    def stored(self, mode: str = "RGB") -> bytes:
        """The file's bytes, or the upright image as PNG in Pillow's `mode`."""
        if self.as_is:
            return self.path.read_bytes()
        with Image.open(self.path) as image:
            upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits; Pillow's own conversion clips them
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        return as_png(upright.convert(mode))


def as_png(image: Image.Image) -> bytes:
    """An image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def open_image(path: Path) -> Opened:
    """Opens and decodes a file.

    Raises:
      BrokenFile: it is no image, or a damaged one.
    """
    content = b""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            kind, mode = image.format, image.mode
            orientation = image.getexif().get(EXIF_ORIENTATION, 1)
            image.load()
            size = (image.height, image.width)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        system = error.strerror if isinstance(error, OSError) else None
        reason = system or (str(error).split("<")[0].strip() if content else "empty file")
        raise BrokenFile(path, f"not a readable image ({reason})") from error
    if orientation >= 5:  # lies on its side
        size = size[::-1]
    as_is = kind in ("JPEG", "PNG") and mode in ("L", "RGB") and orientation == 1
    return Opened(path, size, mode in GREY_MODES, as_is, hashlib.sha256(content).digest())


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
