"""Attention weights as maps over an image or a text, and maps as images. NumPy in, NumPy out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Query = Literal["class_token", "mean"]
MOST_TOKENS = 64  # of a text whose attention is drawn
MOST_WEIGHTS = 600_000  # in an image of all heads; pages would be too large otherwise
MOST_OF_A_KIND = 2_400_000  # in all images of samples, and of mistakes
CELL = 48  # pixels of a map's longer side, at least


def attention_rollout(weights: np.ndarray, residual: float = 0.5) -> np.ndarray:
    """The share of every input token in every output token, through all layers.

    The attention rollout of Abnar & Zuidema 2020 (arXiv 2005.00928, section 3): heads
    are averaged; each layer is mixed with the identity, for its residual connection, and its rows are made to
    sum to 1 again; the layers are multiplied.

    Args:
      weights: softmax weights [L, H, T, T], the first layer first; rows are queries.
      residual: the identity's share of a layer.

    Returns:
      float64 [T, T]; rows sum to 1.
    """
    layers = np.asarray(weights, np.float64).mean(axis=1)  # [L, T, T]
    rollout = identity = np.eye(layers.shape[-1])
    for layer in layers:
        mixed = (1 - residual) * layer + residual * identity
        rollout = mixed / mixed.sum(axis=-1, keepdims=True) @ rollout
    return rollout


def attention_grid(
    weights: np.ndarray, grid: tuple[int, int], prefix_tokens: int = 0, query: Query = "mean"
) -> np.ndarray:
    """The attention to the patches, on the image's grid.

    Args:
      weights: [..., T, T], T = prefix_tokens + h * w; rows are queries. A layer's heads, or a rollout.
      grid: (h, w), patches in a column and in a row.
      prefix_tokens: class and register tokens in front of the patches.
      query: whose attention is taken: the class token's (token 0), or the mean over the patches, for a model
        that averages them.

    Returns:
      [..., h, w].

    Raises:
      ValueError: the tokens are not prefix_tokens + h * w.
    """
    tokens, height, width = weights.shape[-1], *grid
    if tokens != prefix_tokens + height * width:
        raise ValueError(f"{tokens} tokens are not {prefix_tokens} in front of {height} x {width} patches")
    given = weights[..., 0, :] if query == "class_token" else weights[..., prefix_tokens:, :].mean(axis=-2)
    return given[..., prefix_tokens:].reshape(*weights.shape[:-2], height, width)


def received(
    weights: np.ndarray, asking: np.ndarray, places: np.ndarray, grid: tuple[int, int]
) -> np.ndarray:
    """The attention to the places of a grid, from global attention or from windows, which are put back in place.

    Args:
      weights: [N, H, T, S] of N windows (1: all places see each other); rows are queries.
      asking: [N, T], the weight of each query.
      places: int [N, S], the place of each key on the grid, row by row; -1 for a key without one (a class
        token, padding). No place has two keys.
      grid: (h, w).

    Returns:
      float64 [H, h, w].
    """
    given = np.einsum("nhts,nt->hns", np.asarray(weights, np.float64), asking)
    there = places >= 0
    maps = np.zeros((weights.shape[1], grid[0] * grid[1]))
    maps[:, places[there]] = given[:, there]
    return maps.reshape(-1, *grid)


def square_grid(tokens: int) -> tuple[tuple[int, int], int]:
    """The grid and the number of prefix tokens of a square image: the largest square of patches that fits.

    Wrong where the prefix is long enough to make up another row and column; give the grid there.
    """
    side = int(np.sqrt(tokens))
    return (side, side), tokens - side * side


def overlay(image: np.ndarray, attention: np.ndarray, strength: float = 0.55) -> np.ndarray:
    """An image with a map drawn over it: dark and grey where little, bright where much.

    Args:
      image: uint8 [H, W, C], C 1 or 3.
      attention: [h, w], at least 0; scaled to its own range.
      strength: the share of the map's colour.

    Returns:
      uint8 [H, W, 3], RGB.
    """
    import cv2

    height, width = image.shape[:2]
    shares = unit_range(attention).astype(np.float32)
    smooth = cv2.resize(shares, (width, height), interpolation=cv2.INTER_CUBIC)
    colours = colour_map(np.clip(smooth, 0, 1))
    grey = np.broadcast_to(image, (height, width, 3)).mean(axis=-1, keepdims=True, dtype=np.float32)
    return np.round((1 - strength) * grey + strength * colours).astype(np.uint8)


def heads_image(maps: np.ndarray, cell: int = 48, gap: int = 3) -> np.ndarray:
    """All heads of all layers in one image: layers from top to bottom, heads from left to right.

    Args:
      maps: [L, H, h, w]; each is scaled to its own range.
      cell: the longer side of a map in pixels.
      gap: transparent pixels between maps.

    Returns:
      uint8 [height, width, 4], RGBA.
    """
    import cv2

    layers, heads, height, width = maps.shape
    scale = cell / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    values = np.zeros((layers * (rows + gap) - gap, heads * (columns + gap) - gap), np.float32)
    opaque = np.zeros(values.shape, np.uint8)
    for layer, head in np.ndindex(layers, heads):
        shown = unit_range(maps[layer, head]).astype(np.float32)
        place = np.s_[layer * (rows + gap) :, head * (columns + gap) :]
        values[place][:rows, :columns] = cv2.resize(shown, (columns, rows), interpolation=cv2.INTER_NEAREST)
        opaque[place][:rows, :columns] = 255
    return np.dstack([colour_map(values), opaque])


def unit_range(values: np.ndarray) -> np.ndarray:
    """Values moved and scaled to 0 ... 1; a flat map becomes 0."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def colour_map(values: np.ndarray) -> np.ndarray:
    """Values 0 ... 1 [h, w] as RGB uint8 [h, w, 3], dark to bright in even steps (matplotlib's inferno)."""
    import cv2

    coded = cv2.applyColorMap(np.round(values * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return coded[..., ::-1]


@dataclass(frozen=True)
class TokenMaps:
    """Attention of one part of a model, for one text."""

    name: str
    """The part: "encoder", "decoder", or "cross" for a decoder's attention to the source."""
    weights: np.ndarray
    """Float32 [L, heads, T, S], T queries and S keys: the text's first tokens, without padding."""
    queries: Sequence[str]
    """T tokens."""
    keys: Sequence[str]
    """S tokens."""
    whole: bool = True
    """Whether these are all of its tokens."""


def tokens_drawn(layers: int, heads: int) -> int:
    """How many of a text's first tokens are drawn: MOST_TOKENS, or fewer where there are many heads."""
    return max(16, min(MOST_TOKENS, math.isqrt(MOST_WEIGHTS // (layers * heads))))


def drawn_every(texts: Sequence[Sequence[TokenMaps]]) -> int:
    """Attention is drawn for one text in so many: 1, or more for large models, whose maps are large."""
    sizes = (sum(cropped(maps).size for maps in parts) for parts in texts)
    images = max(1, MOST_OF_A_KIND // max(1, *sizes, 1))
    return max(1, -(-len(texts) // images))


def cropped(maps: TokenMaps) -> np.ndarray:
    """The weights that are drawn."""
    most = tokens_drawn(*maps.weights.shape[:2])
    return maps.weights[:, :, :most, :most]


def draw_maps(maps: TokenMaps) -> tuple[np.ndarray, dict[str, Any]]:
    """All heads' maps as one image, and the facts that a page shows beside it.

    Returns:
      uint8 [height, width, 4], RGBA: a layer a row; in a map, queries are rows and keys columns, a whole number of
        pixels each. Brightness is the square root of a weight, between the map's least and its largest.
      "name", "layers", "heads", "queries", "keys", and "given": the share of each key in the result, [S], 0 to 1
        (`given_by`); None where the tokens that are drawn do not determine it.
    """
    weights = cropped(maps)
    layers, heads, rows, columns = weights.shape
    longer, crosses = max(rows, columns), maps.name == "cross"
    image = heads_image(np.sqrt(weights), longer * max(1, -(-CELL // longer)))
    whole = maps.whole and weights.shape == maps.weights.shape
    known = whole or (not crosses and is_causal(weights))
    return image, {
        "name": maps.name,
        "layers": layers,
        "heads": heads,
        "queries": list(maps.queries[:rows]),
        "keys": list(maps.keys[:columns]),
        "given": given_by(weights, crosses).round(4).tolist() if known else None,
    }


def is_causal(weights: np.ndarray) -> bool:
    """Whether no query of [..., T, T] looks at a later key."""
    return weights.shape[-1] == weights.shape[-2] and not np.triu(weights, 1).any()


def given_by(weights: np.ndarray, cross: bool) -> np.ndarray:
    """The share of each key, float64 [S], by weights [L, heads, T, S]; the shares sum to 1.

    In self-attention it is the attention rollout: of the last token where attention is causal, because the next one
    is predicted from it, else the mean over all tokens. In cross-attention it is the mean over layers, heads and
    queries.
    """
    if cross:
        return weights.astype(np.float64).mean(axis=(0, 1, 2))
    rollout = attention_rollout(weights)
    return rollout[-1] if is_causal(weights) else rollout.mean(axis=0)
