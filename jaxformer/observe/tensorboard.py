"""TensorBoard's files of scalars: records of TFRecord, each an Event of TensorFlow's event.proto.

They are encoded here: packages that write them load PyTorch and clients of clouds where these are installed, which
takes seconds and hundreds of MiB in every process.
"""

import logging
import re
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger("jaxformer")
NOT_IN_TAGS = re.compile(r"[^-/\w.]")
DOUBLE, BYTES, FLOAT = 1, 2, 5  # wire types of Protocol Buffers; 0 is a whole number
START = b"\x08\x01"  # a SessionLog whose status is START
POLYNOMIAL, MASK = 0x82F63B78, 0xA282EAD8  # of CRC-32C, its bits reversed; TFRecord's


class TensorBoard:
    """The files of a run; if they cannot be written, the run goes on without them.

    Args:
      folder: where they are.
      start_step: the step that the run starts from.
    """

    def __init__(self, folder: Path, start_step: int):
        self.folder, self.start_step = folder, start_step
        self.file: BinaryIO | None = None
        self.broken = False

    def write(self, step: int, values: Mapping[str, float], now: float) -> None:
        """Adds the values of a step, by tag; `now` is in seconds since 1970."""
        if self.broken:
            return
        try:
            if self.file is None:
                self.file = self.begun(now)
            self.file.write(record(event(now, step, 5, summary(values))))
        except OSError as error:
            self.give_up(error)

    def begun(self, now: float) -> BinaryIO:
        """A new file with what stands at its beginning."""
        is_resumed = self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(now)}.{socket.gethostname()}.from-step-{self.start_step}"
        file = (self.folder / name).open("wb")
        file.write(record(event(now, 0, 3, b"brain.Event:2")))
        if is_resumed:  # TensorBoard hides what an earlier process wrote from there on
            file.write(record(event(now, self.start_step + 1, 7, START)))
        return file

    def flush(self) -> None:
        """Hands what is written to the operating system."""
        try:
            if self.file is not None and not self.broken:
                self.file.flush()
        except OSError as error:
            self.give_up(error)

    def close(self) -> None:
        """Ends the file."""
        self.flush()
        if self.file is not None:
            with suppress(OSError):
                self.file.close()

    def give_up(self, error: OSError) -> None:
        """Says why there is no more, once."""
        self.broken = True
        logger.warning("%s: no more files there: %s (metrics.jsonl goes on)", self.folder, error)


def event(now: float, step: int, field: int, content: bytes) -> bytes:
    """An Event with its time, its step, and one field of bytes: file_version (3), summary (5) or session_log (7)."""
    return struct.pack("<Bd", 1 << 3 | DOUBLE, now) + b"\x10" + whole(step) + delimited(field, content)


def summary(values: Mapping[str, float]) -> bytes:
    """A Summary of scalars, by tag; what is no part of a tag becomes "_"."""
    return b"".join(
        delimited(
            1,
            delimited(1, NOT_IN_TAGS.sub("_", tag).lstrip("/").encode())
            + bytes([2 << 3 | FLOAT])
            + in_float32(value),
        )
        for tag, value in values.items()
    )


def in_float32(value: float) -> bytes:
    """Four bytes of a number; one that is too large is infinite."""
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def delimited(field: int, content: bytes) -> bytes:
    """A field of bytes, with their number."""
    return bytes([field << 3 | BYTES]) + whole(len(content)) + content


def whole(value: int) -> bytes:
    """A whole number, at least 0, seven bits a byte."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def record(content: bytes) -> bytes:
    """A record of TFRecord: its length, the length's checksum, itself, its checksum."""
    length = struct.pack("<Q", len(content))
    return length + checksum(length) + content + checksum(content)


def checksum(content: bytes) -> bytes:
    """TFRecord's masked CRC-32C (Castagnoli), four bytes."""
    crc, rows = 0xFFFFFFFF, table()
    for byte in content:
        crc = rows[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF)


@cache
def table() -> list[int]:
    """CRC-32C of each byte."""
    rows = []
    for row in range(256):
        for _ in range(8):
            row = row >> 1 ^ (POLYNOMIAL if row & 1 else 0)
        rows.append(row)
    return rows
