"""The first variables of a model that begins as another one (`model.pretrained`)."""

import logging
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxformer.errors import UserError, counted
from jaxformer.paths import ADAPTERS, layer_paths, leaves_by_path, matches
from jaxformer.weights.base import on_device
from jaxformer.weights.convert import Match
from jaxformer.weights.pretrained import load_pretrained

logger = logging.getLogger("jaxformer")
FEW = 10  # tensors whose names a line has


def first_variables(model: Any, shapes: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The variables that the sources of a model and of those in its fields give, laid out as `shapes` are; new heads
    are left out.

    Args:
      model: a `Model`.
      shapes: its variables as shapes with shardings ("params", and "batch_stats" where there are any), stacked where
        layers are scanned over.

    Returns:
      Path -> array, as "params/encoder/norm/scale". Of every tensor a process copies the part that its devices hold.

    Raises:
      UserError: a source is of another kind of model, or its tensors do not fit: a line for each.
    """
    leaves = leaves_by_path(shapes)
    begun: dict[str, jax.Array] = {}
    for inside, part in model.beginnings().items():
        where = ".".join(["model", *inside.split("/"), "pretrained"] if inside else ["model", "pretrained"])
        below = re.compile(
            rf"(\w+/){re.escape(inside + '/') if inside else ''}(.+)"
        )  # "params/image/norm/scale"
        places = {found[1] + found[2]: path for path in leaves if (found := below.fullmatch(path))}
        own = unflatten_dict({place: leaves[path] for place, path in places.items()}, sep="/")
        begun |= {places[place]: array for place, array in variables_of(part, own, where).items()}
    return begun


def variables_of(model: Any, shapes: Mapping[str, Any], where: str) -> dict[str, jax.Array]:
    """`first_variables` of one model that has a source; `where` is its place in the config."""
    source = load_pretrained(model.pretrained)
    made = type(source.model)
    if not isinstance(model, made):
        raise UserError(
            f"{where}: {source.source} is a {made.__name__}, and the model a {type(model).__name__}"
        )
    leaves = leaves_by_path(shapes)
    single = {
        path: jax.ShapeDtypeStruct(leaf.shape if path == stack else leaf.shape[1:], leaf.dtype)
        for stack, leaf in leaves.items()
        for path in layer_paths(stack, leaf.shape)
    }
    tensors = source.tensors
    added = (path.partition("/")[2] for path in single if matches(ADAPTERS, path))
    matched = source.family.matched(tensors, unflatten_dict(single, sep="/"), (*model.heads, *added))
    found = {"/".join(path): match for path, match in matched.items()}
    begun = {
        path: laid_out([found[each] for each in layer_paths(path, leaf.shape)], path in single, leaf)
        for path, leaf in leaves.items()
        if all(each in found for each in layer_paths(path, leaf.shape))
    }
    shapes_of = {path.partition("/")[2]: leaf.shape for path, leaf in single.items()}
    tell(source.source, begun, leaves, source.family.prepare(tensors, shapes_of), matched)
    return begun


def laid_out(layers: list[Match], whole: bool, leaf: Any) -> jax.Array:
    """A parameter on the devices: one tensor, or a stack of one for each layer."""

    def part(index: Any) -> np.ndarray:
        if whole:
            return layers[0].array(copy=False)[index]
        return np.stack([layer.array(copy=False)[index[1:]] for layer in layers[index[0]]])

    places = leaf.sharding.addressable_devices_indices_map(leaf.shape)
    parts = [on_device(part(index), device) for device, index in places.items()]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, parts)


def tell(
    source: str, begun: Mapping[str, Any], leaves: Mapping[str, Any], tensors: Any, matched: Any
) -> None:
    """Logs what was taken, what is new and what was left unread."""
    read = {match.row.theirs for match in matched.values()}
    new = [path.partition("/")[2] for path in leaves if path not in begun]
    left = [name for name in tensors if name not in read]
    said = f"{counted(len(begun), 'parameter')} from {source}"
    said += f"; new: {', '.join(new)}" if new else ""
    more = f" and {len(left) - FEW} more" if len(left) > FEW else ""
    logger.info("%s%s", said, f"; not read: {', '.join(left[:FEW])}{more}" if left else "")
