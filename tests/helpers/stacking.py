"""From unrolled layers to stacked ones: the inverse of `unstack_layers`, for tests."""

import re
from collections.abc import Mapping

import jax
import numpy as np

from jaxformer.models.layouts import STACK, TOWERS

BLOCK = re.compile(r"block_(\d+)")


def stack_layers(params):
    """From encoder/block_{i}/... to encoder/blocks/..., with a leading layer axis."""
    inner = {name: stack_layers(x) if isinstance(x, Mapping) else x for name, x in params.items()}
    return {name: stacked(x) if name in TOWERS else x for name, x in inner.items()}


def stacked(tower):
    blocks = {int(found[1]): value for key, value in tower.items() if (found := BLOCK.fullmatch(key))}
    if not blocks:
        return tower
    rest = {key: value for key, value in tower.items() if not BLOCK.fullmatch(key)}
    layers = [blocks[i] for i in range(len(blocks))]
    return {**rest, STACK: jax.tree.map(lambda *leaves: np_of(leaves[0]).stack(leaves), *layers)}


def np_of(leaf):
    return jax.numpy if isinstance(leaf, jax.Array) else np
