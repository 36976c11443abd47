"""Encoded images to pixels."""

import io

import cv2
import numpy as np
from PIL import Image, ImageOps

cv2.setNumThreads(0)  # the threads are ours: OpenCV's own would fight with them for the cores
cv2.utils.logging.setLogLevel(
    cv2.utils.logging.LOG_LEVEL_SILENT
)  # a broken image is an error of ours, said once
OpenCVError = cv2.error
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
NO_COLOURS = ("1", "L", "P", "I", "I;16")  # Pillow's modes of one number a pixel


def decode_image(encoded: bytes, channels: int, upright: bool = False) -> np.ndarray:
    """Decodes an image.

    Args:
      encoded: a JPEG, PNG, BMP, WebP or other file that OpenCV reads.
      channels: 3 for RGB, 1 for grey.
      upright: turns it as its EXIF tag says, as people see it; else pixels are as they are stored, as TFDS has them.

    Returns:
      uint8 [H, W, channels].

    Raises:
      ValueError: the bytes are not an image, or only the beginning of one.
    """
    if encoded.startswith(JPEG_START) and not encoded.endswith(JPEG_END):
        return decode_strictly(encoded, channels, upright)  # OpenCV fills a missing rest with grey, silently
    flags = cv2.IMREAD_COLOR_RGB if channels == 3 else cv2.IMREAD_GRAYSCALE
    flags |= 0 if upright else cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags) if encoded else None
    if image is None:
        raise ValueError(f"{len(encoded)} bytes that are not an image")
    return image if channels == 3 else image[:, :, None]


def decode_strictly(encoded: bytes, channels: int, upright: bool) -> np.ndarray:
    """The same with Pillow, which refuses a truncated file."""
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            turned = ImageOps.exif_transpose(picture) if upright else picture
            image = np.array(turned.convert("RGB" if channels == 3 else "L"))
    except (OSError, SyntaxError) as error:
        raise ValueError(str(error)) from error
    return image if channels == 3 else image[:, :, None]


def decode_mask(encoded: bytes) -> np.ndarray:
    """Decodes a mask of class ids: a grey image's values, or a palette's indices.

    Returns:
      uint8 or int32 [H, W].

    Raises:
      ValueError: the bytes are not an image, or one with colours.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            if picture.mode not in NO_COLOURS:
                raise ValueError(
                    f"an image of mode {picture.mode}, not of class ids: grey, or with a palette"
                )
            mask = np.array(picture)
    except (OSError, SyntaxError) as error:
        raise ValueError(str(error)) from error
    return mask.astype(np.uint8 if mask.dtype in (bool, np.uint8) else np.int32, copy=False)
