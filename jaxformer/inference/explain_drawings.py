"""What a model saw, as drawings: over the image, or all heads of all layers on a sheet; each says what it shows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image, ImageDraw

from jaxformer.drawing import BAR, LARGEST, MARGIN, PAPER, ROW, SIZE, SMALLEST, TEXT, fit, font, shorten
from jaxformer.inference.attention_layers import AttentionLayer
from jaxformer.models.token_layout import NOWHERE, Grid
from jaxformer.observe.attention_maps import attention_rollout, heads_image, overlay, received

SHEET = 900  # pixels of a sheet's longer side, about
CELLS = 24, 96  # the smallest and the largest map on a sheet, pixels of its longer side
WORD = 160  # pixels of the longer side of an image with a word's map, about
GAP = 3  # pixels between the maps on a sheet


@dataclass(frozen=True)
class Drawing:
    """A drawing of what a model saw."""

    name: str
    """The name of its file, without the ending."""
    shows: str
    """What it is."""
    image: Image.Image
    """The drawing itself."""


def over_image(
    image: np.ndarray, seen: np.ndarray, said: str, extent: Grid, box: np.ndarray | None = None
) -> Image.Image:
    """An image with a map drawn over it, and a line below.

    Args:
      image: uint8 [H, W, C], as the model takes it, C 1 or 3.
      seen: [h, w], a map of the whole of it, at least 0.
      said: the line.
      extent: height and width without the padding at the bottom and right.
      box: centre x and y, width and height as shares of the extent: is drawn, too.
    """
    drawn = Image.fromarray(overlay(*without_padding(image, seen, extent, SMALLEST, LARGEST)))
    if box is not None:
        x, y, across, down = (side * share for side, share in zip(drawn.size * 2, box))
        corners = (x - across / 2, y - down / 2, x + across / 2, y + down / 2)
        ImageDraw.Draw(drawn).rectangle(corners, outline=BAR, width=3)
    return with_line(drawn, said)


def without_padding(
    image: np.ndarray, seen: np.ndarray, extent: Grid, smallest: int, largest: int
) -> tuple[np.ndarray, np.ndarray]:
    """An image at a size at which it can be seen, uint8 [H', W', 3], and a map [h, w] of it, both without padding."""
    height, width = image.shape[:2]
    if extent != (height, width):
        seen = cv2.resize(seen.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        seen, image = seen[: extent[0], : extent[1]], image[: extent[0], : extent[1]]
    pixels = np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.uint8)
    return np.asarray(fit(Image.fromarray(pixels), smallest, largest)), seen


def word_sheet(
    image: np.ndarray, words: Sequence[tuple[str, np.ndarray]], said: str, extent: Grid
) -> Image.Image:
    """The image, and for each word the image with the word's map over it (Xu et al. 2015, figure 3); then a line.

    Args:
      image: as of `over_image`.
      words: each with a map of the whole image, at least 0, [h, w].
      said: the line.
      extent: as of `over_image`.
    """
    itself, _ = without_padding(image, np.zeros((1, 1)), extent, WORD, WORD)
    shown = [without_padding(image, seen, extent, WORD, WORD) for _, seen in words]
    pictures = [itself, *(overlay(*each) for each in shown)]
    height, width = pictures[0].shape[:2]
    down = -(-len(pictures) // max(1, SHEET // (width + MARGIN)))
    across = -(-len(pictures) // down)
    size = across * (width + MARGIN) + MARGIN, down * (height + ROW) + MARGIN
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, (picture, word) in enumerate(zip(pictures, ["", *(word for word, _ in words)])):
        x, y = MARGIN + number % across * (width + MARGIN), MARGIN + number // across * (height + ROW)
        canvas.paste(Image.fromarray(picture), (x, y))
        draw.text(
            (x + width // 2, y + height + ROW // 2), shorten(word, width), TEXT, font(SIZE), anchor="mm"
        )
    return with_line(canvas, said)


def with_line(drawn: Image.Image, said: str) -> Image.Image:
    """A drawing with a line of text below it, for which a narrow one is widened."""
    across = min(LARGEST, int(font(SIZE).getlength(said)) + 2 * MARGIN + 1)
    canvas = Image.new("RGB", (max(drawn.width, across), drawn.height + ROW), PAPER)
    canvas.paste(drawn, (0, 0))
    line = shorten(said, canvas.width - 2 * MARGIN)
    ImageDraw.Draw(canvas).text((MARGIN, drawn.height + ROW // 2), line, TEXT, font(SIZE), anchor="lm")
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


def attention_drawings(
    image: np.ndarray, extent: Grid, layers: Sequence[AttentionLayer], weights: Mapping[str, np.ndarray]
) -> Iterator[Drawing]:
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
    rolled = [part for part, members in parts.items() if not any(layer.against_rollout for layer in members)]
    for part, members in parts.items():
        members = [replace(layer, asking=of_image(layer, image.shape[:2], extent)) for layer in members]
        suffix = f"-{part.replace('/', '-')}"
        if part in rolled:
            seen, whose = rollout_of(members, layers, weights)
            shows = f"attention rollout of {part}, {whose}"
            name = "rollout" + suffix * (len(rolled) > 1)
            yield Drawing(name, shows, over_image(image, seen, shows, extent))
        maps = [received(weights[layer.path], layer.asking, layer.places, layer.grid) for layer in members]
        shown = np.stack(maps)[:, :, *inside(members[0].grid, image.shape[:2], extent)]
        shows = f"attention of {part}, {members[0].whose}: layers down, heads across"
        drawn = sheet(shown, [layer.name for layer in members], shows)
        yield Drawing("heads" + suffix * (len(parts) > 1), shows, drawn)


def rollout_of(
    members: Sequence[AttentionLayer], layers: Sequence[AttentionLayer], weights: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, str]:
    """What the head draws on through all layers of a part, [h, w], and by which tokens it does."""
    rollout = attention_rollout(np.concatenate([weights[layer.path] for layer in members]))
    last = members[-1]
    asking, whose = last.asking, last.whose
    for pool in layers:  # tokens are pooled by weights: these say how much each counts
        if pool.queries.shape == (1, 1) and pool.grid == last.grid:
            counts = received(weights[pool.path], pool.asking, pool.places, pool.grid).mean(axis=0)
            asking = np.where(last.queries == NOWHERE, 0.0, counts.reshape(-1)[last.queries])
            whose = "the pooling"
    return received(rollout[None, None], asking, last.places, last.grid)[0], whose


def inside(grid: Grid, size: Sequence[int], extent: Grid) -> tuple[slice, slice]:
    """The rows and columns of a grid over an image that are no padding."""
    rows, columns = (-(-count * real // whole) for count, real, whole in zip(grid, extent, size))
    return slice(rows), slice(columns)


def of_image(layer: AttentionLayer, size: Sequence[int], extent: Grid) -> np.ndarray:
    """How much each query of a layer counts, without those of padding, float64 [N, T]."""
    if tuple(size) == extent or (layer.queries == NOWHERE).all():
        return layer.asking
    real = np.zeros(layer.grid, bool)
    real[inside(layer.grid, size, extent)] = True
    return np.where((layer.queries == NOWHERE) | real.reshape(-1)[layer.queries], layer.asking, 0.0)
