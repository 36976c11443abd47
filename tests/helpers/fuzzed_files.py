"""What a parser is that is fuzzed, and small valid files; see fuzzed.py."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from helpers import hostile

RUNS = Path(__file__).parent.parent / "fixtures" / "runs_0_1"


@dataclass(frozen=True)
class Parser:
    """What reads files from outside."""

    files: Callable[[], Mapping[str, bytes]]
    """Valid files by their names; one of them is changed for each input."""
    read: Callable[[Path, Path], Any]
    """Reads the folder of the files; what it writes goes to another one. Raises UserError for what it refuses, or
    returns the exit code of the command line."""
    kinds: Mapping[str, hostile.Kind] = field(default_factory=dict)
    """The kind of edits by a file's name or its ending; of files that are not named here, "bytes"."""
    fixed: tuple[str, ...] = ()
    """Endings of files that stay as they are."""
    usual: int = 200
    """How many inputs the usual suite has."""
    lists_all: bool = False
    """Whether all mistakes are said at once, a line each, as those of a config are; else two lines are the most."""


TEXT = {".csv": "text", ".txt": "text", ".jsonl": "json", ".json": "json", ".xml": "text", ".yaml": "text"}
WORDS = ["the cat saw a dog", "a dog saw Ann", "Ann is in Oslo", 'the dog, "it" said', "no: yes"]


def text(*lines: str) -> bytes:
    return "\n".join([*lines, ""]).encode()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def lines_of_json(values: Any) -> bytes:
    return b"\n".join(map(as_json, values)) + b"\n"


@cache
def image(form: str, seed: int = 0, turned: bool = False) -> bytes:
    """A small image; a turned one says so in its EXIF."""
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 6, 3), np.uint8)
    buffer, picture = io.BytesIO(), Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(
        buffer, form, **({"exif": exif} if turned and form in ("JPEG", "TIFF", "PNG", "WEBP") else {})
    )
    return buffer.getvalue()
