"""Where the tokens of an attention lie on the grid of an image's places: what `Layer.token_layout` answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Grid: TypeAlias = tuple[int, int]  # rows and columns
NOWHERE = -1  # the place of a token that stands for no place


@dataclass(frozen=True)
class TokenLayout:
    """The places of the queries and keys of an attention over N images, or over N windows of one."""

    grid: Grid
    """Rows and columns of what is looked at."""
    queries: np.ndarray
    """Int [N, T], the place of each query on the queries' grid, row by row; NOWHERE of one that has none."""
    places: np.ndarray
    """Int [N, S], the place of each key on `grid`."""
    asking: np.ndarray
    """Float64 [N, T], how much each query counts in what is shown."""
    whose: str
    """Name of the queries that count."""
    against_rollout: str | None
    """Why layers of this kind cannot be multiplied; None: they can, since every one has the tokens of the one before,
    and a residual around it."""


def plain_layout(
    grids: Sequence[Grid],
    asks: int,
    sees: int,
    cross: bool,
    *,
    in_front: int | None = None,
    deciding: int | None = None,
    whose: str = "the class token",
    pooled: str = "the pooling",
    against_rollout: str | None = None,
) -> TokenLayout:
    """The layout of tokens that are the places of grids, one grid after the other, behind some tokens without a place.

    Args:
      grids: those whose places are seen; what is shown is seen on the last.
      asks: T, the number of queries.
      sees: S, the number of keys.
      cross: whether the queries are other tokens than the keys.
      in_front: tokens in front of the places; None: all that there are beside the places.
      deciding: how many of the first queries count; 0: all places alike; None: those without a place, if there are any.
      whose: name of the queries without a place, where they count.
      pooled: name of the queries where none has a place.
      against_rollout: as of `TokenLayout`.
    """
    apart = asks == 1 or cross
    tokens = numbered(grids)
    if in_front is None:
        in_front = (sees if apart else asks) - len(tokens)
    queries = np.full(asks, NOWHERE) if apart else spread(tokens, asks, in_front)
    places, grid = seen(tokens, grids[-1], sees, in_front)
    nowhere = queries == NOWHERE
    if nowhere.all():
        counting, whose = nowhere, pooled
    elif deciding == 0 or not nowhere.any():
        counting, whose = ~nowhere, "all places"
    else:
        counting = nowhere if deciding is None else np.arange(asks) < deciding
    if against_rollout is None and asks != sees:
        against_rollout = "what asks are not the tokens that are seen"
    asking = counting / counting.sum()
    return TokenLayout(grid, queries[None], places[None], asking[None], whose, against_rollout)


def window_layout(grid: Grid, places: np.ndarray) -> TokenLayout:
    """The layout of attention in windows, of whose tokens `places` int [N, T] are the places, NOWHERE of padding."""
    real = (places >= 0).astype(np.float64)  # what padding asks is of no use
    return TokenLayout(grid, places, places, real, "all places", "its attention stays in windows")


def numbered(grids: Sequence[Grid]) -> np.ndarray:
    """The places of the tokens of all grids, one after the other, on the last one: int [T]; NOWHERE of the others'."""
    *others, last = (rows * columns for rows, columns in grids)
    return np.concatenate([np.full(sum(others), NOWHERE), np.arange(last)])


def spread(tokens: np.ndarray, count: int, in_front: int) -> np.ndarray:
    """The places of `count` tokens, of which those behind the first `in_front` are `tokens`; NOWHERE of the rest."""
    places = np.full(count, NOWHERE)
    places[in_front : in_front + len(tokens)] = tokens
    return places


def seen(tokens: np.ndarray, grid: Grid, count: int, in_front: int) -> tuple[np.ndarray, Grid]:
    """The places of `count` keys, int [S], and the grid that they are on: a coarser one if keys are strided.

    Raises:
      ValueError: no stride makes so many.
    """
    if count >= in_front + len(tokens):
        return spread(tokens, count, in_front), grid
    strides = range(2, max(grid) + 1)
    up = ((-(-grid[0] // stride), -(-grid[1] // stride)) for stride in strides)
    down = ((grid[0] // stride, grid[1] // stride) for stride in strides)  # what is over is not seen
    for coarse in (*up, *down):
        if in_front + coarse[0] * coarse[1] == count:
            return spread(numbered([coarse]), count, in_front), coarse
    raise ValueError(f"{count} keys are no grid of {grid[0]} x {grid[1]} behind {in_front} tokens")
