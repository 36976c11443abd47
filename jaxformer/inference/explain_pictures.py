"""What a model saw, as pictures: over the image, or all heads of all layers on a sheet; each says what it shows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image, ImageDraw

from jaxformer.drawing import BAR, LARGEST, MARGIN, PAPER, ROW, SIZE, TEXT, fit, font, shorten
from jaxformer.inference.attention_layers import AttentionLayer
from jaxformer.models.token_layout import NOWHERE
from jaxformer.observe.attention_maps import attention_rollout, heads_image, overlay, received

SHEET = 900  # pixels of a sheet's longer side, about
CELLS = 24, 96  # the smallest and the largest map on a sheet, pixels of its longer side
GAP = 3  # pixels between the maps on a sheet


@dataclass(frozen=True)
class Picture:
    """A picture of what a model saw."""

    name: str
    """Its file's, without the ending."""
    shows: str
    """What it is."""
    image: Image.Image
    """The picture."""


def over_image(
    image: np.ndarray,
    seen: np.ndarray,
    said: str,
    extent: tuple[int, int] | None = None,
    box: Sequence[float] | None = None,
) -> Image.Image:
    """An image with a map drawn over it, and a line below.

    Args:
      image: uint8 [H, W, C], as the model takes it, C 1 or 3.
      seen: [h, w], a map of the whole of it, at least 0.
      said: the line.
      extent: height and width without the padding at the bottom and right; None: there is none.
      box: centre x and y, width and height as shares of the extent: is drawn, too.
    """
    height, width = image.shape[:2]
    if extent is not None and tuple(extent) != (height, width):
        seen = cv2.resize(seen.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        seen, image = seen[: extent[0], : extent[1]], image[: extent[0], : extent[1]]
    enlarged = np.asarray(
        fit(Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.uint8)))
    )
    picture = Image.fromarray(overlay(enlarged, seen))
    if box is not None:
        x, y, across, down = (side * share for side, share in zip(picture.size * 2, box))
        corners = (x - across / 2, y - down / 2, x + across / 2, y + down / 2)
        ImageDraw.Draw(picture).rectangle(corners, outline=BAR, width=3)
    return with_line(picture, said)


def with_line(picture: Image.Image, said: str) -> Image.Image:
    """A picture with a line of text below it, for which a narrow one is widened."""
    across = min(LARGEST, int(font(SIZE).getlength(said)) + 2 * MARGIN + 1)
    canvas = Image.new("RGB", (max(picture.width, across), picture.height + ROW), PAPER)
    canvas.paste(picture, (0, 0))
    line = shorten(said, canvas.width - 2 * MARGIN)
    ImageDraw.Draw(canvas).text((MARGIN, picture.height + ROW // 2), line, TEXT, font(SIZE), anchor="lm")
    return canvas


def sheet(maps: np.ndarray, names: Sequence[str], said: str) -> Image.Image:
    """All heads of some layers: layers from top to bottom, heads from left to right.

    Args:
      maps: [L, H, h, w], at least 0; each is scaled to its own range.
      names: of the layers.
      said: a line below them.
    """
    layers, heads, height, width = maps.shape
    cell = int(np.clip(SHEET // max(layers, heads), *CELLS))
    drawn = Image.fromarray(heads_image(maps, cell, GAP))
    down = max(1, round(height * cell / max(height, width))) + GAP
    left = int(max(font(SIZE).getlength(name) for name in names)) + 2 * MARGIN
    canvas = Image.new("RGB", (left + drawn.width + MARGIN, drawn.height + MARGIN), PAPER)
    canvas.paste(drawn, (left, MARGIN), drawn)
    draw = ImageDraw.Draw(canvas)
    for row, name in enumerate(names):
        middle = MARGIN + row * down + (down - GAP) // 2
        draw.text((MARGIN, middle), name, TEXT, font(SIZE), anchor="lm")
    return with_line(canvas, said)


def attention_pictures(
    image: np.ndarray,
    extent: tuple[int, int],
    layers: Sequence[AttentionLayer],
    weights: Mapping[str, np.ndarray],
) -> Iterator[Picture]:
    """Rollout, where it applies, and all heads of every part of a model.

    Args:
      image: uint8 [H, W, C].
      extent: its height and width without padding.
      layers: those to show.
      weights: [N, H, T, S] by the layers' paths.
    """
    parts: dict[str, list[AttentionLayer]] = {}
    for layer in layers:
        parts.setdefault(layer.part, []).append(layer)
    rolled = [
        part for part, members in parts.items() if all(layer.against_rollout is None for layer in members)
    ]
    for part, members in parts.items():
        members = [replace(layer, asking=of_image(layer, image.shape[:2], extent)) for layer in members]
        suffix = part.replace("/", "-")
        if part in rolled:
            seen, whose = rollout_of(members, layers, weights)
            shows = f"attention rollout of {part}, {whose}"
            name = "rollout" if len(rolled) == 1 else f"rollout-{suffix}"
            yield Picture(name, shows, over_image(image, seen, shows, extent))
        maps = [received(weights[layer.path], layer.asking, layer.places, layer.grid) for layer in members]
        shown = np.stack(maps)[:, :, *inside(members[0].grid, image.shape[:2], extent)]
        shows = f"attention of {part}, {members[0].whose}: layers down, heads across"
        drawn = sheet(shown, [layer.name for layer in members], shows)
        yield Picture("heads" if len(parts) == 1 else f"heads-{suffix}", shows, drawn)


def rollout_of(
    members: Sequence[AttentionLayer], layers: Sequence[AttentionLayer], weights: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, str]:
    """What the head draws on through all layers of a part, [h, w], and by which tokens it does."""
    rollout = attention_rollout(np.concatenate([weights[layer.path] for layer in members]))
    last = members[-1]
    asking, whose = last.asking, last.whose
    for pool in layers:  # tokens are pooled by weights: these say how much each counts
        if pool.queries.shape == (1, 1) and pool.grid == last.grid:
            counts = (
                received(weights[pool.path], pool.asking, pool.places, pool.grid).mean(axis=0).reshape(-1)
            )
            asking, whose = np.where(last.queries == NOWHERE, 0.0, counts[last.queries]), "the pooling"
    return received(rollout[None, None], asking, last.places, last.grid)[0], whose


def inside(grid: tuple[int, int], size: Sequence[int], extent: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns of a grid over an image that are no padding."""
    rows, columns = (-(-count * real // whole) for count, real, whole in zip(grid, extent, size))
    return slice(rows), slice(columns)


def of_image(layer: AttentionLayer, size: Sequence[int], extent: tuple[int, int]) -> np.ndarray:
    """How much each query of a layer counts, without those of padding, float64 [N, T]."""
    if tuple(size) == extent or (layer.queries == NOWHERE).all():
        return layer.asking
    real = np.zeros(layer.grid, bool)
    real[inside(layer.grid, size, extent)] = True
    return np.where((layer.queries == NOWHERE) | real.reshape(-1)[layer.queries], layer.asking, 0.0)
