"""Encoded images to pixels: the one decoder of imports, training and predictions."""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

cv2.setNumThreads(0)  # the threads are ours: OpenCV's own would fight with them for the cores
# A broken image is an error of ours, said once.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
OpenCVError = cv2.error

# What is read: Pillow's names of formats, and its modes in each.
FORMATS = {
    "AVIF": "L RGB RGBA",
    "BMP": "1 L P RGB RGBA",
    "GIF": "L P",
    "JPEG": "L RGB CMYK",
    "JPEG2000": "L LA RGB RGBA CMYK I;16",
    "MPO": "L RGB",
    "PNG": "1 L LA P RGB RGBA I;16",
    "PPM": "1 L RGB I",
    "TIFF": "1 L LA P PA RGB RGBA CMYK YCbCr LAB I;16 I;16B",
    "WEBP": "RGB RGBA",
}
OPENED = [name for name in FORMATS if name != "MPO"]  # which Pillow opens as a JPEG
GREY = ("1", "L", "LA", "I", "I;16", "I;16B")  # modes without colour
DEEP = ("I", "I;16", "I;16B")  # those of them with 16 bits a pixel
IDS = ("1", "L", "P", "I", "I;16", "I;16B")  # modes of one number a pixel
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**26)  # above it Pillow refuses to decode, by the header
ENDS = (b"\xff\xd9", b"IEND\xaeB`\x82")  # of a JPEG and a PNG
HEIC = re.compile(rb"....ftyp(he(ic|ix|im|is|vc|vx)|m[is]f1)", re.DOTALL)  # as it begins
ORIENTATION = 0x0112  # EXIF's tag


def decode_image(encoded: bytes, channels: int, upright: bool = False) -> np.ndarray:
    """Decodes an image: Pillow's pixels, whichever library makes them.

    Colours are kept where they are transparent. Of 16 bits the upper 8 are taken, of CMYK and its like Pillow's
    conversion to RGB, of several frames or pages the first.

    Args:
      encoded: a file of one of FORMATS.
      channels: 3 for RGB, 1 for grey.
      upright: turns it as its EXIF tag says, as people see it; else pixels are as they are stored, as TFDS has them
        (but Pillow turns every TIFF).

    Returns:
      uint8 [H, W, channels].

    Raises:
      ValueError: the bytes are not an image, only the beginning of one, one of another format or mode, or one of more
        than MOST_PIXELS.
    """
    image = by_opencv(encoded, channels) if not upright and is_plain_png(encoded, channels) else None
    if image is None:
        with opened(encoded) as found:
            if found.mode not in FORMATS[str(found.format)].split():
                of_mode = f"a {found.format} of the mode {found.mode}"
                raise ValueError(f"{of_mode}; save it as grey or RGB of 8 bits")
            turned = upright and is_turned(found)
            if found.format == "JPEG" and found.mode in ("L", "RGB")[:channels] and not turned:
                image = by_opencv(encoded, channels)
            if image is None:
                image = as_uint8(ImageOps.exif_transpose(found) if turned else found, channels)
    return image if channels == 3 else image[:, :, None]


def decode_mask(encoded: bytes, upright: bool = False) -> np.ndarray:
    """Decodes a mask of class ids: a grey image's values, or a palette's indices.

    Returns:
      uint8 or int32 [H, W].

    Raises:
      ValueError: the bytes are not an image, or one with colours.
    """
    with opened(encoded) as found:
        if found.mode not in IDS:
            raise ValueError(f"an image of mode {found.mode}, not of class ids: grey, or with a palette")
        mask = np.array(ImageOps.exif_transpose(found) if upright else found)
    return mask.astype(np.uint8 if mask.dtype in (bool, np.uint8) else np.int32, copy=False)


@contextmanager
def opened(encoded: bytes) -> Iterator[ImageFile.ImageFile]:
    """An image of one of FORMATS of which nothing but the header is read yet.

    Raises:
      ValueError: it is none, has more than MOST_PIXELS, or, inside, cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=OPENED) as image:
            yield image
    except UnidentifiedImageError as error:
        what = f"{len(encoded)} bytes that are not an image" if encoded else "empty file"
        if HEIC.match(encoded):
            what = "HEIC, which is not read; save it as JPEG or PNG"
        raise ValueError(f"{what}; {', '.join(FORMATS)} are read") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{str(error).split(',')[0]}; make it smaller") from error
    except ValueError:
        raise
    except Exception as error:  # of a damaged file Pillow raises whatever its reader stumbles over
        raise ValueError(str(error) or type(error).__name__) from error


def is_turned(image: Image.Image) -> bool:
    """Whether people see an image otherwise than it is stored."""
    return image.getexif().get(ORIENTATION) in range(2, 9)


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an image that is not decoded yet has more than 8 bits a channel, of which the upper 8 are taken."""
    # What Pillow tells its decoder names how numbers are stored and, for Netpbm, the largest.
    told = [
        each for tile in image.tile for each in (tile.args if isinstance(tile.args, tuple) else [tile.args])
    ]
    largest = told[-1] if image.format == "PPM" else 0
    return image.mode in DEEP or ";16" in str(told) or (isinstance(largest, int) and largest > 255)


def is_transparent(image: Image.Image) -> bool:
    """Whether any pixel lets something through."""
    if not image.has_transparency_data or image.mode in DEEP:
        return image.has_transparency_data
    # (Many images have the channel, and none of their pixels use it.)
    return bool(np.asarray(image.convert("RGBA"))[:, :, 3].min() < 255)


def is_plain_png(encoded: bytes, channels: int) -> bool:
    """Whether it begins as a PNG that OpenCV reads as Pillow does: of 8 bits, grey or RGB, and not animated.

    Small ones are decoded twice as quickly if Pillow need not open them.
    """
    if not encoded.startswith(b"\x89PNG\r\n\x1a\n") or b"acTL" in encoded:
        return False
    width, height, depth, colours = struct.unpack(">IIBB", encoded[16:26].ljust(10))
    return depth == 8 and colours in (0, 2)[:channels] and width * height <= MOST_PIXELS


def by_opencv(encoded: bytes, channels: int) -> np.ndarray | None:
    """uint8 [H, W, 3] or [H, W] of a JPEG or PNG, as it is stored; None if it is not whole."""
    if not encoded.endswith(ENDS):
        return None  # of a missing rest OpenCV makes grey, silently
    flags = cv2.IMREAD_COLOR_RGB if channels == 3 else cv2.IMREAD_GRAYSCALE
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)


def as_uint8(image: Image.Image, channels: int) -> np.ndarray:
    """uint8 [H, W, 3] or [H, W] of an image of any mode in FORMATS."""
    if image.mode in DEEP:  # Pillow's own conversion clips
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image.info.pop("transparency", None)
    if channels == 3 or image.mode not in GREY:
        image = image.convert("RGB")
    return np.array(image.convert("RGB" if channels == 3 else "L"))
