"""Encoded images of every format and mode that is read, and of those that are refused; all are made by Pillow."""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

SIZE = (40, 60)  # height and width


def pixels(channels: int, dtype: Any = np.uint8, below: int = 256) -> np.ndarray:
    """Random values, [H, W] or [H, W, channels]."""
    shape = SIZE if channels == 1 else (*SIZE, channels)
    return np.random.default_rng(channels).integers(0, below, shape).astype(dtype)


def of_mode(mode: str) -> Image.Image:
    """A random image of one of Pillow's modes."""
    bands = {"LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "YCbCr": 3, "LAB": 3}
    if mode in bands:
        return Image.merge(mode, [Image.fromarray(band) for band in pixels(bands[mode]).transpose(2, 0, 1)])
    if mode in ("P", "PA"):
        return Image.fromarray(pixels(3)).quantize(200).convert(mode)
    if mode == "1":
        return Image.fromarray(pixels(1)).convert("1")
    dtypes = {"L": np.uint8, "I;16": np.uint16, "I;16B": ">u2", "I": np.int32, "F": np.float32}
    return Image.fromarray(pixels(1, dtypes[mode], 256 if mode == "L" else 65536))


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """An image as a file of a format."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_that_claims(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A small PNG whose header states a size."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


OPTIONS = {
    "WEBP": {"lossless": True, "exact": True},
    "MPO": {"save_all": True, "append_images": [of_mode("L")]},
}
WRITTEN = {("PPM", "I"): "I;16", ("WEBP", "RGB"): "YCbCr"}  # what a mode is made of
DEEP = ("I", "I;16", "I;16B")


def a_file(format: str, mode: str, **options) -> bytes:
    """A file that Pillow opens in this mode."""
    if (format, mode) == ("BMP", "RGBA"):  # Pillow writes none
        content = cv2.imencode(".bmp", pixels(4))[1].tobytes()
    else:
        image = of_mode(WRITTEN.get((format, mode), mode))
        content = encoded(image, format, **OPTIONS.get(format, {}), **options)
    with Image.open(io.BytesIO(content)) as found:
        assert (found.format, found.mode) == (format, mode)
    return content


def pillow(content: bytes, channels: int, upright: bool = True) -> np.ndarray:
    """What Pillow makes of a file: its upper 8 bits of 16, else its own conversions."""
    with Image.open(io.BytesIO(content)) as image:
        image = ImageOps.exif_transpose(image) if upright else image
        if image.mode in DEEP:
            grey = np.asarray(image).astype(np.int64) // 256
            return np.repeat(grey[:, :, None], channels, axis=2).astype(np.uint8)
        colours = np.asarray(image.convert("RGB"))
        if channels == 3:
            return colours
        grey = image if image.mode in ("1", "L", "LA") else Image.fromarray(colours)
        return np.asarray(grey.convert("L"))[:, :, None]
