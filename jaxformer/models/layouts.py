"""The two layouts of a tower's layers: unrolled ("block_0", "block_1", ...) and stacked ("blocks").

Unrolled layers are entries of their own; stacked layers are one entry whose leaves have a leading layer axis,
as nn.scan has them. Converting is lossless; what is not a layer of a tower is passed through as it is.
"""

from collections.abc import Mapping
from typing import Any

import jax

from jaxformer.errors import UserError
from jaxformer.models.base import replaced

STACK = "blocks"
TOWERS = ("encoder", "decoder", "unimodal")  # the modules that can scan over their layers


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """From encoder/blocks/... to encoder/block_{i}/..., in all of TOWERS at any depth.

    Args:
      params: a nested mapping of arrays; any array that NumPy can read.

    Returns:
      A nested dict of the same leaves otherwise, the same dtypes.

    Raises:
      UserError: the leaves of the stack do not have the same number of layers.
    """
    inner = {name: unstack_layers(x) if isinstance(x, Mapping) else x for name, x in params.items()}
    return {name: unstacked(x, name) if name in TOWERS and STACK in x else x for name, x in inner.items()}


def unstacked(tower: dict[str, Any], name: str) -> dict[str, Any]:
    """The entries of one tower, its stack taken apart."""
    depths = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(tower[STACK])}
    if len(depths) != 1:
        raise UserError(f"{name}/{STACK}: leaves have {sorted(depths)} layers; expected one number of layers")
    rest = {key: value for key, value in tower.items() if key != STACK}
    layers = {
        f"block_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], tower[STACK]) for i in range(depths.pop())
    }
    return rest | layers


def unrolled(model: Any, variables: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """A model and its variables with their layers unrolled, as decoding with a cache needs them.

    Args:
      model: a linen module; one with a field `scan` that is True is changed.
      variables: {"params": ..., ...}.
    """
    if not model.scan:
        return model, variables
    return replaced(model, scan=False), {**variables, "params": unstack_layers(variables["params"])}
