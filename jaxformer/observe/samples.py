"""Examples in a run's folder, for its report: images or texts, predictions, and the model's attention."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.files import to_json
from jaxformer.observe.attention_maps import (
    Query,
    attention_grid,
    attention_rollout,
    heads_image,
    overlay,
    square_grid,
)
from jaxformer.observe.text_samples import TokenMaps, draw_maps, drawn_every, kept

SAMPLES = "samples"
SHOWN_SIZE = 160  # pixels of the longer side of an image in samples/
DRAWN_SIZE = 320  # of one with the model's answer in it


@dataclass(frozen=True)
class Shown:
    """An example with the model's prediction."""

    said: Mapping[str, Any]
    """The task's row for it ("label", "correct", "top", ...). A text may also have "called", the name of its text,
    and "answer", the range of its letters that is the answer."""
    image: np.ndarray | None = None
    """Uint8 [H, W, C], C 1 or 3; None for a text."""
    attention: np.ndarray | None = None
    """Softmax weights over an image [L, H, T, T]; None for a text and for a model without attention."""
    maps: Sequence[TokenMaps] = ()
    """The attention over a text of each part of the model."""
    drawn: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further images, uint8 [H, W, 3], by what they show."""


@dataclass(frozen=True)
class Patches:
    """The places of an image's patches among a model's tokens, and the query whose attention is shown."""

    grid: tuple[int, int] | None = None
    """(h, w) of the patches; None: the largest square of the tokens, and the rest is prefix tokens."""
    prefix_tokens: int = 0
    """Class and register tokens in front of the patches, where `grid` is given."""
    query: Query | None = None
    """Whose attention is shown; None: the class token's if there is a prefix, else the mean over the patches."""


def write_samples(
    run_dir: Path, examples: Sequence[Shown], *, kind: str, patches: Patches | None = None
) -> Path:
    """Writes RUN/samples/KIND/: PNG files and samples.json; it replaces an earlier one at once.

    Args:
      run_dir: the run's folder.
      examples: what is shown.
      kind: the name of these examples and of their folder, "samples" or "mistakes".
      patches: how attention over images is drawn; None is as `Patches()`.

    Returns:
      The folder.
    """
    parent = Path(run_dir) / SAMPLES
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f".{kind}."))
    try:
        shown, every = [], drawn_every([example.maps for example in examples])
        for index, example in enumerate(examples):
            path = temporary / f"{index:03d}"
            if example.image is None:
                shown.append(write_text(path, example, example.maps if index % every == 0 else ()))
            else:
                shown.append(write_image(path, example, example.image, patches or Patches()))
        content: dict[str, Any] = {"kind": kind, "samples": shown}
        attention = examples[0].attention if examples else None
        if attention is not None:
            content |= {"layers": attention.shape[0], "heads": attention.shape[1]}
        (temporary / "samples.json").write_text(json.dumps(to_json(content), indent=2) + "\n")
        temporary.chmod(0o755)
        replace_folder(temporary, parent / kind)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return parent / kind


def write_image(path: Path, example: Shown, image: np.ndarray, patches: Patches) -> dict[str, Any]:
    """An image's entry in samples.json; the names of its PNG files begin as `path`."""
    entry = {**example.said, "image": save_png(named(path, ""), visible(image))}
    if example.drawn:
        entry["drawn"] = [
            {"shows": shows, "picture": save_png(named(path, f"-{shows}"), visible(image, DRAWN_SIZE))}
            for shows, image in example.drawn.items()
        ]
    if example.attention is None:
        return entry
    grid, prefix_tokens = patches.grid, patches.prefix_tokens
    if grid is None:
        grid, prefix_tokens = square_grid(example.attention.shape[-1])
    whose: Query = patches.query or ("class_token" if prefix_tokens else "mean")
    rollout = attention_grid(attention_rollout(example.attention), grid, prefix_tokens, whose)
    heads = attention_grid(example.attention, grid, prefix_tokens, whose)  # [L, H, h, w]
    entry["rollout"] = save_png(named(path, "-rollout"), overlay(visible(image), rollout))
    drawn = heads_image(heads, heads_cell(*heads.shape[:2]))
    return entry | {"heads": save_png(named(path, "-heads"), drawn)}


def write_text(path: Path, example: Shown, parts: Sequence[TokenMaps]) -> dict[str, Any]:
    """A text's entry in samples.json, with the attention of these parts; the names of its PNG files begin as `path`."""
    drawn = []
    for maps in parts:
        image, entry = draw_maps(maps)
        name = maps.name.replace("/", "-")
        drawn.append({**entry, "picture": save_png(named(path, f"-{name}"), image)})
    return {**kept(example.said), "maps": drawn}


def named(path: Path, ending: str) -> Path:
    """The PNG file beside `path` with an ending to its name."""
    return path.with_name(f"{path.name}{ending}.png")


def heads_cell(layers: int, heads: int) -> int:
    """Pixels of one head's map, so that all of them fit an image of about 480."""
    return max(16, min(48, 480 // max(layers, heads)))


def visible(image: np.ndarray, wanted: int = SHOWN_SIZE) -> np.ndarray:
    """An image at a size that can be seen: whole multiples of tiny ones, pixel by pixel; larger ones shrunk.

    Args:
      image: uint8 [H, W, C].
      wanted: pixels of the longer side, about.

    Returns:
      uint8 [H', W', C], C as it was.
    """
    import cv2

    height, width, channels = image.shape
    longer = max(height, width)
    if longer < wanted:
        return image.repeat(wanted // longer, axis=0).repeat(wanted // longer, axis=1)
    size = max(1, round(width * wanted / longer)), max(1, round(height * wanted / longer))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], channels)


def save_png(path: Path, pixels: np.ndarray) -> str:
    """Writes a PNG of uint8 [H, W, C] with C 1 (grey), 3 (RGB) or 4 (RGBA); returns the file's name.

    RGBA of at most 256 colours is written with a palette, which takes a third of the bytes for maps.
    """
    from PIL import Image

    if pixels.shape[-1] == 4:
        packed = np.ascontiguousarray(pixels).view(np.uint32)[..., 0]
        colours, index = np.unique(packed, return_inverse=True)
        if len(colours) <= 256:
            image = Image.fromarray(index.reshape(packed.shape).astype(np.uint8), "P")
            image.putpalette(colours.view(np.uint8).tobytes(), "RGBA")
            image.save(path)
            return path.name
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)
    return path.name


def replace_folder(new: Path, target: Path) -> None:
    """Renames `new` to `target`, which replaces a folder that is there already."""
    old = new.with_name(new.name + ".old")
    with contextlib.suppress(FileNotFoundError):
        os.rename(target, old)
    os.rename(new, target)
    shutil.rmtree(old, ignore_errors=True)


def read_samples(run_dir: Path) -> list[dict[str, Any]]:
    """The contents of a run's samples.json files, each with its "folder"; unreadable ones are left out."""
    found = []
    for path in sorted((Path(run_dir) / SAMPLES).glob("[!.]*/samples.json")):
        with contextlib.suppress(OSError, ValueError):
            found.append(json.loads(path.read_text()) | {"folder": path.parent})
    return found
