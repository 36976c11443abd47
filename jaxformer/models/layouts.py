"""The two layouts of a tower's layers: unrolled ("block_0", "block_1", ...) and stacked ("blocks").

Unrolled layers are entries of their own; stacked layers are one entry whose leaves have a leading layer axis,
as nn.scan has them. Converting is lossless; what is not a layer of a tower is passed through as it is.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxformer.errors import UserError

Tree = Any
BLOCK = re.compile(r"block_(\d+)")
STACK = "blocks"
TOWERS = ("encoder", "decoder")  # the modules that can scan over their layers


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """From encoder/block_{i}/... to encoder/blocks/..., with a leading layer axis.

    Args:
      params: a nested mapping of arrays; any array that NumPy can read. Jitted, it stacks on the device.

    Returns:
      A nested dict of the same leaves otherwise, the same dtypes.

    Raises:
      UserError: a number is missing among the blocks, or the blocks do not have the same leaves.
    """
    return map_towers(params, stacked)


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """From encoder/blocks/... to encoder/block_{i}/...: the inverse of `stack_layers`.

    Raises:
      UserError: the leaves of the stack do not have the same number of layers.
    """
    return map_towers(params, unstacked)


def unrolled(model: Any, variables: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """A model and its variables with their layers unrolled, as decoding with a cache needs them.

    Args:
      model: a linen module; one with a field `scan` that is True is changed.
      variables: {"params": ..., ...}.
    """
    if not model.scan:
        return model, variables
    return model.clone(scan=False), {**variables, "params": unstack_layers(variables["params"])}


def map_towers(tree: Mapping[str, Any], convert: Any) -> dict[str, Any]:
    """Applies `convert` to the mapping of every encoder and decoder in a nested mapping, at any depth."""
    result: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            value = map_towers(value, convert)
            value = convert(value, name) if name in TOWERS else value
        result[name] = value
    return result


def stacked(tower: dict[str, Any], name: str) -> dict[str, Any]:
    """One tower's entries, its blocks stacked."""
    blocks = {int(found[1]): key for key in tower if (found := BLOCK.fullmatch(key))}
    if not blocks:
        return tower
    if sorted(blocks) != list(range(len(blocks))):
        raise UserError(
            f"{name}: has the blocks {sorted(blocks)}; expected every number from 0 to {max(blocks)}"
        )
    layers = [tower[blocks[i]] for i in range(len(blocks))]
    signatures = [signature(layer) for layer in layers]
    for i, layer in enumerate(signatures):
        if layer != signatures[0]:
            raise UserError(
                f"{name}/block_{i} and {name}/block_0 differ in names, shapes or dtypes: cannot be stacked"
            )
    rest = {key: value for key, value in tower.items() if key not in blocks.values()}
    return {**rest, STACK: jax.tree.map(lambda *leaves: array_module(leaves[0]).stack(leaves), *layers)}


def unstacked(tower: dict[str, Any], name: str) -> dict[str, Any]:
    """One tower's entries, its stack taken apart."""
    if STACK not in tower:
        return tower
    depths = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(tower[STACK])}
    if len(depths) != 1:
        raise UserError(f"{name}/{STACK}: leaves have {sorted(depths)} layers; expected one number of layers")
    rest = {key: value for key, value in tower.items() if key != STACK}
    for i in range(depths.pop()):
        rest[f"block_{i}"] = jax.tree.map(lambda leaf, i=i: leaf[i], tower[STACK])
    return rest


def signature(tree: Tree) -> tuple[Any, ...]:
    """What has to be the same of trees that are to be stacked."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, np.dtype(leaf.dtype)) for leaf in leaves)


def array_module(leaf: Any) -> Any:
    """jax.numpy for JAX's arrays, NumPy for NumPy's, so that reading a checkpoint touches no device."""
    return jax.numpy if isinstance(leaf, jax.Array) else np
