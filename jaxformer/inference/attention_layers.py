"""Where the attention of every model of images looks: which token is which place of which grid, layer by layer.

A model is traced once (shapes alone), and every call of a module is written down. The innermost module around an
attention whose result is a feature map has the grid of its queries, and its `token_layout` says how tokens lie there.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from flax import linen as nn

from jaxformer.models.base import Layer, Model
from jaxformer.models.outputs import ImageOutputs, SegmentationOutputs
from jaxformer.models.token_layout import Grid, TokenLayout
from jaxformer.paths import leaves_by_path

Tree = Any
Path = tuple[str, ...]
BLOCK = re.compile(r"(?:(?P<stage>stage_\d+)_)?block_\d+")
CROSS = "cross_attention"


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
    """Shape and dtype of its result, if that is one array."""


@dataclass(frozen=True)
class AttentionLayer(TokenLayout):
    """An attention over the places of a grid."""

    path: str
    """Path of its weights [N, H, T, S] in the collection "attention_maps"."""
    name: str
    """Its name among those that are drawn together."""
    part: str
    """The name of these: "encoder", "stage_3"."""


def calls_of(run: Callable[[], Any]) -> tuple[list[Call], Any]:
    """Every call of a module in `run`, in the order in which they end, and what `run` gives, as shapes."""
    calls: list[Call] = []

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = call(*args, **kwargs)
        if context.method_name == "__call__":
            one = jax.ShapeDtypeStruct(output.shape, output.dtype) if isinstance(output, jax.Array) else None
            calls.append(Call(context.module, context.module.path, grids_of(output), one))
        return output

    with nn.intercept_methods(record):
        return calls, jax.eval_shape(run)


def grids_of(output: Any) -> tuple[Grid, ...]:
    """Rows and columns of the feature maps [B, h, w, C] that a module gives: alone, first, or as `maps`."""
    if isinstance(output, (ImageOutputs, SegmentationOutputs)):
        return tuple((found.shape[1], found.shape[2]) for found in output.maps)
    first = output[0] if isinstance(output, tuple) and output else output
    is_map = isinstance(first, jax.Array) and first.ndim == 4
    return ((first.shape[1], first.shape[2]),) if is_map else ()


def attention_layers(model: Model, calls: Sequence[Call], maps: Tree) -> list[AttentionLayer]:
    """The layers whose attention can be shown on an image, in the order in which they were called.

    Parts whose layers differ in heads or grid are told apart by these.

    Args:
      model: the linen module.
      calls: what `calls_of` found.
      maps: the collection "attention_maps" of one image, as shapes.
    """
    by_path = {call.path: call for call in calls}
    order = {call.path: number for number, call in enumerate(calls)}
    shapes = {tuple(path.split("/")): leaf.shape for path, leaf in leaves_by_path(maps).items()}
    paths = sorted(shapes, key=lambda path: order[path[:-1]])
    found = [(layer_of(model, by_path, path, shapes[path]), shapes[path][1]) for path in paths]
    # Of a single place there is nothing to see.
    layers = [(layer, heads) for layer, heads in found if layer and layer.grid != (1, 1)]
    kinds = Counter(part for part, _, _ in {(layer.part, layer.grid, heads) for layer, heads in layers})
    named = [(layer, "x".join(map(str, (*layer.grid, heads)))) for layer, heads in layers]
    return [
        replace(layer, part=f"{layer.part}/{kind}") if kinds[layer.part] > 1 else layer
        for layer, kind in named
    ]


def layer_of(
    model: Model, calls: Mapping[Path, Call], path: Path, shape: tuple[int, ...]
) -> AttentionLayer | None:
    """The layer with weights of a shape [N, H, T, S] at a path; None if it looks at no image."""
    owner: Layer = model
    grids = model.attended(path, calls["backbone",].grids if ("backbone",) in calls else ())
    if grids is None:  # those of the innermost module around it that gives feature maps
        around = (calls[path[:end]] for end in range(len(path) - 1, -1, -1) if path[:end] in calls)
        for call in around:
            if call.grids and isinstance(call.module, Layer):
                owner, grids = call.module, call.grids
                break
    if not grids:
        return None
    layout = owner.token_layout(grids, shape[2], shape[3], CROSS in path)
    name, part = names_of(path)
    return AttentionLayer(**vars(layout), path="/".join(path), name=name, part=part)


def names_of(path: Path) -> tuple[str, str]:
    """Name and part of a layer: "block_3" of "encoder", "block_1/non_local" of "backbone/stage_3"."""
    names = [name for name in path if name not in ("attention", "weights", CROSS)] or [path[0]]
    for number, name in enumerate(names):
        if found := BLOCK.fullmatch(name):
            stage = [found["stage"]] if found["stage"] else []
            block = name.removeprefix(f"{found['stage']}_")
            return "/".join([block, *names[number + 1 :]]), "/".join([*names[:number], *stage])
    return names[-1], "/".join(names)
