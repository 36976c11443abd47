"""Examples in a run's folder, for its report: images or texts, predictions, and the model's attention."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.files import delete_at_once, incomplete, put_in_place, to_json
from jaxformer.observe import attention_maps
from jaxformer.reading import load_json

SAMPLES = "samples"
RETRIEVAL = "retrieval"  # the kind of samples that are pictures of the table of this name
SHOWN_SIZE = 160  # pixels of the longer side of an image in samples/
DRAWN_SIZE = 320  # of one with the model's answer in it
WORD_SIZE = 80  # of one with a word's map over it
MOST_WORDS = 24  # that are shown so
MOST_PIECES = 512  # of a text that are kept


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
    maps: Sequence[attention_maps.TokenMaps] = ()
    """The attention over a text of each part of the model."""
    drawn: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further images, uint8 [H, W, 3], by what they show."""
    words: Sequence[tuple[str, np.ndarray]] = ()
    """The words that are said of the image, each with a map over it, at least 0, [h, w]."""


@dataclass(frozen=True)
class Patches:
    """The places of an image's patches among a model's tokens, and the query whose attention is shown."""

    grid: tuple[int, int] | None = None
    """(h, w) of the patches; None: the largest square of the tokens, and the rest is prefix tokens."""
    prefix_tokens: int = 0
    """Class and register tokens in front of the patches, where `grid` is given."""
    query: attention_maps.Query = "mean"
    """Whose attention is shown: the class token's, or the mean over the patches."""


def write_samples(
    run_dir: Path, examples: Sequence[Shown], *, kind: str, patches: Patches = Patches()
) -> Path:
    """Writes RUN/samples/KIND/: PNG files and samples.json, all at once; it replaces an earlier one.

    Args:
      run_dir: the run's folder.
      examples: the examples.
      kind: the name of these examples and of their folder, "samples" or "mistakes".
      patches: how attention over images is drawn.

    Returns:
      The folder.
    """
    folder = Path(run_dir) / SAMPLES / kind
    every = attention_maps.drawn_every([example.maps for example in examples])
    with incomplete(folder) as hidden:
        hidden.mkdir(parents=True)
        shown = [
            write_sample(hidden / f"{index:03d}", example, patches, with_maps=index % every == 0)
            for index, example in enumerate(examples)
        ]
        content: dict[str, Any] = {"kind": kind, "samples": shown}
        attention = examples[0].attention if examples else None
        if attention is not None:
            content |= {"layers": attention.shape[0], "heads": attention.shape[1]}
        (hidden / "samples.json").write_text(json.dumps(to_json(content), indent=2) + "\n")
        if folder.is_dir():
            delete_at_once(folder)
        put_in_place(hidden, folder)
    return folder


def write_sample(path: Path, example: Shown, patches: Patches, with_maps: bool) -> dict[str, Any]:
    """An example's entry in samples.json.

    Args:
      path: the beginning of the names of its PNG files.
      example: an image or a text.
      patches: how attention over an image is drawn.
      with_maps: whether attention over a text is drawn.
    """

    def save(pixels: np.ndarray, name: str = "") -> str:
        return save_png(path.with_name(f"{path.name}{name}.png"), pixels)

    entry, image = dict(example.said), example.image
    if image is None:
        pieces = entry.get("pieces") or []
        if len(pieces) > MOST_PIECES:
            entry |= {"pieces": pieces[:MOST_PIECES], "left_out": len(pieces) - MOST_PIECES}
        drawn = [(part.name, *attention_maps.draw_maps(part)) for part in example.maps if with_maps]
        found = [
            {**facts, "picture": save(image_map, "-" + name.replace("/", "-"))}
            for name, image_map, facts in drawn
        ]
        return entry | {"maps": found}
    entry["image"] = save(visible(image))
    if example.drawn:
        entry["drawn"] = [
            {"shows": shows, "picture": save(visible(drawing, DRAWN_SIZE), f"-{shows}")}
            for shows, drawing in example.drawn.items()
        ]
    if example.words:
        small = visible(image, WORD_SIZE)
        entry["words"] = [
            {"word": word, "picture": save(attention_maps.overlay(small, seen), f"-word-{number}")}
            for number, (word, seen) in enumerate(example.words[:MOST_WORDS], 1)
        ]
    if example.attention is not None:
        grid, prefix = patches.grid, patches.prefix_tokens
        if grid is None:
            grid, prefix = attention_maps.square_grid(example.attention.shape[-1])
        rollout = attention_maps.attention_rollout(example.attention)
        over = attention_maps.attention_grid(rollout, grid, prefix, patches.query)
        heads = attention_maps.attention_grid(example.attention, grid, prefix, patches.query)  # [L, H, h, w]
        cell = max(16, min(48, 480 // max(heads.shape[:2])))  # all of them fit an image of about 480 pixels
        entry["rollout"] = save(attention_maps.overlay(visible(image), over), "-rollout")
        entry["heads"] = save(attention_maps.heads_image(heads, cell), "-heads")
    return entry


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

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if pixels.shape[-1] == 4:
        packed = np.ascontiguousarray(pixels).view(np.uint32)[..., 0]
        colours, index = np.unique(packed, return_inverse=True)
        if len(colours) <= 256:
            image = Image.fromarray(index.reshape(packed.shape).astype(np.uint8), "P")
            image.putpalette(colours.view(np.uint8).tobytes(), "RGBA")
    image.save(path)
    return path.name


def read_samples(run_dir: Path) -> list[dict[str, Any]]:
    """The contents of a run's samples.json files, each with its "folder"; unreadable ones are left out."""
    found = []
    for path in sorted((Path(run_dir) / SAMPLES).glob("[!.]*/samples.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(load_json(path) | {"folder": path.parent})
    return found
