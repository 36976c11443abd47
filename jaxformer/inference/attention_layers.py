"""Where the attention of every model of images looks: which token is which place of which grid, layer by layer.

Nothing is said by the models: they are traced once (shapes alone), and every call of a module is written down. The
innermost module around an attention whose result is a feature map has the grid of its queries.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.models.detr import DETR
from jaxformer.models.mask_transformer import MaskTransformer
from jaxformer.models.maxvit import PartitionBlock, to_grid
from jaxformer.models.swin import SwinBlock, Windows
from jaxformer.models.vit import ViT
from jaxformer.models.windows import to_windows
from jaxformer.paths import leaves_by_path

Tree = Any
Grid = tuple[int, int]
Path = tuple[str, ...]
BLOCK = re.compile(r"(?:(?P<stage>stage_\d+)_)?block_\d+")
CROSS = "cross_attention"
NOWHERE = -1  # the place of a token that stands for no place


@dataclass(frozen=True)
class Call:
    """A call of a module."""

    module: nn.Module
    """What was called, as it was bound."""
    path: Path
    """Its place in the model."""
    grids: tuple[Grid, ...]
    """Rows and columns of the feature maps that it gave; none of a module that gives tokens."""
    output: jax.ShapeDtypeStruct | None
    """What it gave, if that is one array: its shape and dtype."""


@dataclass(frozen=True)
class AttentionLayer:
    """An attention over the places of a grid."""

    path: str
    """Of its weights [N, H, T, S] in the collection "attention_maps"."""
    name: str
    """What it is called among those that are drawn together."""
    part: str
    """What they are called: "encoder", "stage_3"."""
    grid: Grid
    """Rows and columns of what it looks at."""
    queries: np.ndarray
    """Int [N, T], the place of each query on the queries' grid, row by row; -1 of one that has none."""
    places: np.ndarray
    """Int [N, S], of each key on `grid`."""
    asking: np.ndarray
    """Float64 [N, T], how much each query counts in what is shown."""
    whose: str
    """What these queries are called."""
    against_rollout: str | None
    """Why layers of its kind cannot be multiplied; None: they can, since every one has the tokens of the one
    before, and a residual around it."""


def unrolled(model: Any) -> Any:
    """A model with its layers unrolled and nothing computed twice, in its backbone and decoder, too."""
    changes = {"scan": False, "remat": "none"}
    changes = {name: value for name, value in changes.items() if hasattr(model, name)}
    for name in ("backbone", "decoder"):
        part = getattr(model, name, None)
        if isinstance(part, nn.Module):
            changes[name] = unrolled(part)
    return model.clone(**changes)


def calls_of(run: Callable[[], Any]) -> tuple[list[Call], Any]:
    """Every call of a module in `run`, in the order in which they end, and what `run` gives, as shapes."""
    calls: list[Call] = []

    def record(
        next_fun: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        output = next_fun(*args, **kwargs)
        if context.method_name == "__call__":
            one = jax.ShapeDtypeStruct(output.shape, output.dtype) if isinstance(output, jax.Array) else None
            calls.append(Call(context.module, context.module.path, grids_of(output), one))
        return output

    with nn.intercept_methods(record):
        return calls, jax.eval_shape(run)


def grids_of(output: Any) -> tuple[Grid, ...]:
    """Rows and columns of the feature maps [B, h, w, C] that a module gives: alone, first, or as `maps`."""
    if hasattr(output, "maps"):
        return tuple(found.shape[1:3] for found in output.maps)
    first = output[0] if isinstance(output, tuple) and output else output
    return (first.shape[1:3],) if getattr(first, "ndim", 0) == 4 else ()


def attention_layers(model: Any, calls: Sequence[Call], maps: Tree) -> list[AttentionLayer]:
    """The layers whose attention can be shown on an image, in the order in which they were called.

    Args:
      model: the linen module.
      calls: what `calls_of` found.
      maps: the collection "attention_maps" of one image, as shapes.
    """
    by_path = {call.path: call for call in calls}
    order = {call.path: number for number, call in enumerate(calls)}
    shapes = {tuple(path.split("/")): leaf.shape for path, leaf in leaves_by_path(maps).items()}
    found = [
        (layer_of(model, by_path, path, shapes[path]), shapes[path][1])
        for path in sorted(shapes, key=lambda path: order[path[:-1]])
    ]
    # Of a single place there is nothing to see.
    return list(apart([(layer, heads) for layer, heads in found if layer and layer.grid != (1, 1)]))


def layer_of(
    model: Any, calls: Mapping[Path, Call], path: Path, shape: tuple[int, ...]
) -> AttentionLayer | None:
    """The layer with weights of a shape [N, H, T, S] at a path; None if it looks at no image."""
    asks, sees = shape[2:]
    owner, grids = owner_of(model, calls, path)
    if not grids:
        return None
    layer = partial(AttentionLayer, "/".join(path), *names_of(path))
    if isinstance(owner, (SwinBlock, PartitionBlock)):
        places = windowed(owner, grids[-1])
        real = (places >= 0).astype(np.float64)  # what padding asks is of no use
        return layer(grids[-1], places, places, real, "all places", "its attention stays in windows")
    apart_from_queries = asks == 1 or CROSS in path  # what asks is no place
    tokens = numbered(grids)
    in_front = (sees if apart_from_queries else asks) - len(tokens)
    if isinstance(owner, MaskTransformer):
        in_front = 0  # its classes are behind the places
    queries = np.full(asks, NOWHERE) if apart_from_queries else spread(tokens, asks, in_front)
    keys, grid = seen(tokens, grids[-1], sees, in_front)
    asking, whose = asked_for(owner, queries)
    against = None
    if hasattr(owner, "where"):  # the mark of `models.cnn_attention`
        against = "its attention stands between convolutions"
    elif asks != sees:
        against = "what asks are not the tokens that are seen"
    return layer(grid, queries[None], keys[None], asking[None], whose, against)


def owner_of(model: Any, calls: Mapping[Path, Call], path: Path) -> tuple[Any, tuple[Grid, ...]]:
    """The innermost module around an attention that gives feature maps, and their grids; none if it sees no image."""
    if isinstance(model, DETR) and path[0] != "backbone":
        if path[0] == "decoder" and CROSS not in path:
            return model, ()  # queries that look at each other
        maps = calls["backbone",].grids
        return model, tuple(maps[level] for level in model.levels)
    around = (calls[path[:end]] for end in range(len(path) - 1, -1, -1) if path[:end] in calls)
    return next(((call.module, call.grids) for call in around if call.grids), (model, ()))


def windowed(block: Any, grid: Grid) -> np.ndarray:
    """The place of every token of every window on the grid, int [N, T]; -1 of padding."""
    index = 1 + np.arange(grid[0] * grid[1]).reshape(1, *grid, 1)
    if isinstance(block, SwinBlock):
        cut = Windows(grid, block.window, block.shifted).cut(jnp.asarray(index))
    else:
        size = min(block.size, grid[0]), min(block.size, grid[1])
        index = np.pad(index, [(0, 0), *((0, -n % part) for n, part in zip(grid, size)), (0, 0)])
        cut = (to_windows if block.parts == "block" else to_grid)(jnp.asarray(index), size)
    return np.asarray(cut)[..., 0] - 1


def numbered(grids: Sequence[Grid]) -> np.ndarray:
    """The places of the tokens of all grids, one after the other, on the last one: int [T]; -1 of the others'."""
    *others, last = (rows * columns for rows, columns in grids)
    return np.concatenate([np.full(sum(others), NOWHERE), np.arange(last)])


def spread(tokens: np.ndarray, count: int, in_front: int) -> np.ndarray:
    """The places of `count` tokens, of which those behind the first `in_front` are `tokens`; -1 of the rest."""
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
    for stride in range(2, max(grid) + 1):
        coarse = -(-grid[0] // stride), -(-grid[1] // stride)
        if in_front + coarse[0] * coarse[1] == count:
            return spread(numbered([coarse]), count, in_front), coarse
    raise ValueError(f"{count} keys are no grid of {grid[0]} x {grid[1]} behind {in_front} tokens")


def asked_for(owner: Any, queries: np.ndarray) -> tuple[np.ndarray, str]:
    """Which queries are shown, as their shares, float64 [T], and what they are called.

    Those that decide, where there are such: a class token. Else all places alike.
    """
    nowhere = queries == NOWHERE
    chosen, whose = ~nowhere, "all places"
    if nowhere.all():
        chosen, whose = nowhere, "all objects" if isinstance(owner, DETR) else "the pooling"
    elif isinstance(owner, MaskTransformer):
        chosen, whose = nowhere, "the classes' tokens"
    elif isinstance(owner, ViT):
        if owner.pool == "cls" and owner.num_classes:
            chosen, whose = np.arange(len(queries)) < 1 + owner.distillation_token, "the class token"
    elif nowhere.any():
        chosen, whose = nowhere, "the class token"
    return chosen / chosen.sum(), whose


def names_of(path: Path) -> tuple[str, str]:
    """Name and part of a layer: "block_3" of "encoder", "block_1/non_local" of "backbone/stage_3"."""
    names = [name for name in path if name not in ("attention", "weights", CROSS)]
    for number, name in enumerate(names):
        if found := BLOCK.fullmatch(name):
            stage = [found["stage"]] if found["stage"] else []
            block = name.removeprefix(f"{found['stage']}_")
            return "/".join([block, *names[number + 1 :]]), "/".join([*names[:number], *stage])
    return names[-1], "/".join(names)


def apart(layers: Sequence[tuple[AttentionLayer, int]]) -> Iterator[AttentionLayer]:
    """Yields the layers; parts whose layers differ in heads or grid are told apart by these."""
    kinds: dict[str, set[tuple[Grid, int]]] = {}
    for layer, heads in layers:
        kinds.setdefault(layer.part, set()).add((layer.grid, heads))
    for layer, heads in layers:
        rows, columns = layer.grid
        several = len(kinds[layer.part]) > 1
        yield replace(layer, part=f"{layer.part}/{rows}x{columns}x{heads}") if several else layer
