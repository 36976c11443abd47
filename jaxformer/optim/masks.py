"""Which rule takes which parameter: weight decay, freezing, learning-rate multipliers, regularisation."""

import re
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.config.fields import left_out
from jaxformer.paths import BLOCK, layer_paths, layers_taken, leaves_by_path, matches, path_of

Tree = Any

# As big_vision (only kernels decay) and timm (`no_weight_decay` of its ViT, and every parameter of one axis).
NO_DECAY = (
    r"[^/]*bias$",
    r"[^/]*_bias/embedding",
    r"[^/]*scale$",
    "class_token",
    "distillation_token",
    "register_tokens",
    r"[^/]*position_embedding",
    "probe",
    "anchors",
    "(query|label)_embedding",
)
# What stands before the first layer of a model: layer 0 of layer-wise decay, and not a matrix to Muon.
EMBEDDINGS = (
    r"[^/]*embedding(_\d+)?",
    "class_token",
    "distillation_token",
    "(register|prompt)_tokens",
    r"[^/]*stem(_\d+)?",
)


def path_mask(patterns: Iterable[str], params: Tree) -> Tree:
    """A tree of bools: True where a pattern takes the leaf, and all layers of it if it is a stack."""
    patterns = tuple(patterns)
    return jax.tree_util.tree_map_with_path(
        lambda key_path, leaf: all(layers_taken(patterns, path_of(key_path), leaf.shape)), params
    )


def decay_mask(config: Any, params: Tree) -> Tree:
    """A tree of bools: True where weight decay and L1/L2 regularisation apply."""
    return jax.tree.map(lambda taken: not taken, path_mask(config.no_decay, params))


def trainable_mask(config: Any, params: Tree) -> Tree:
    """A tree of bools: False for the parameters that `config.freeze` takes, and that `config.train_only` does not.

    Args:
      config: one of OPTIMIZERS' classes.
      params: a tree of arrays or ShapeDtypeStructs.
    """
    frozen, wanted = path_mask(config.freeze, params), path_mask(config.train_only or (".*",), params)
    return jax.tree.map(lambda taken, trained: trained and not taken, frozen, wanted)


def block_of(path: str) -> tuple[str, tuple[int, ...]] | None:
    """The tower and the numbers of the block that a path lies in; None outside of blocks.

    "encoder/block_3/norm_1/scale" -> ("encoder/block_#", (3,)); "stage_2_block_1/conv_1/kernel" ->
    ("stage_#_block_#", (2, 1)). Two towers ("image/encoder/block_0") count for themselves.
    """
    found = BLOCK.search(path)
    if not found:
        return None
    tower = path[: found.start()] + re.sub(r"\d+", "#", found[0])
    return tower, tuple(int(number) for number in re.findall(r"\d+", found[0]))


def layer_indices(params: Tree) -> tuple[dict[str, int], dict[str, int]]:
    """The layer of every (unrolled) path: embeddings 0, block i -> i + 1, everything else one after the last.

    Returns:
      Two mappings by unrolled path: the layer, and the last layer of its tower. Outside of a tower that is
      the longest tower's. Both are empty where there is no block.
    """
    paths = [n for path, leaf in leaves_by_path(params).items() for n in layer_paths(path, leaf.shape)]
    blocks = {path: block_of(path) for path in paths}
    towers: dict[str, list[tuple[int, ...]]] = {}
    for tower, numbers in sorted({block for block in blocks.values() if block}):
        towers.setdefault(tower, []).append(numbers)
    if not towers:
        return {}, {}
    depth = max(len(numbers) for numbers in towers.values())
    layers, lasts = {}, {}
    for path, block in blocks.items():
        lasts[path] = (len(towers[block[0]]) if block else depth) + 1
        if block:
            layers[path] = towers[block[0]].index(block[1]) + 1
        else:
            layers[path] = 0 if any(matches(p, path) for p in EMBEDDINGS) else lasts[path]
    return layers, lasts


def multipliers(config: Any, params: Tree) -> dict[str, Any]:
    """What the update of each parameter is multiplied by.

    The first pattern of `learning_rate_multipliers` that takes it, times layer_decay ** (last layer - layer)
    (Clark et al. 2020, ELECTRA, appendix A; Bao et al. 2022, BEiT, appendix).

    Args:
      config: one of OPTIMIZERS' classes.
      params: a tree of arrays or ShapeDtypeStructs.

    Returns:
      Path -> float32 scalar; for a stack of L layers [L, 1, ...]. They are NumPy's, unless layer_decay is traced.
    """
    layers, lasts = layer_indices(params) if config.layer_decay is not None else ({}, {})
    powers = config.layer_decay ** np.arange(1 + max(lasts.values())) if layers else np.ones(1)

    def given(path: str, name: str) -> float:
        """The multiplier of a layer by its own name, `path` being that of the stack that it is in."""
        found = (v for p, v in config.learning_rate_multipliers if matches(p, name) or matches(p, path))
        return next(found, 1.0)

    result = {}
    for path, leaf in leaves_by_path(params).items():
        names = layer_paths(path, leaf.shape)
        exponents = np.array([lasts[name] - layers[name] if layers else 0 for name in names])
        values = (np.array([given(path, name) for name in names]) * powers[exponents]).astype(np.float32)
        stacked = len(names) > 1 or names[0] != path
        result[path] = values.reshape((-1, *(1 for _ in leaf.shape[1:])) if stacked else ())
    return result


def regularizes(config: Any) -> bool:
    """Whether there are L1 or L2 regularisation."""
    return not (left_out(config.l1) and left_out(config.l2))


def regularization(config: Any, params: Tree) -> dict[str, jax.Array]:
    """L1 and L2 regularisation as losses, on what decays and is not frozen.

    Args:
      config: one of OPTIMIZERS' classes.
      params: a tree of arrays.

    Returns:
      {"l1": config.l1 * sum |w|, "l2": config.l2 / 2 * sum w^2} as float32 scalars, without those that are 0.
      The gradient of "l2" is config.l2 * w: what PyTorch's SGD and Adam call weight_decay.
    """
    taken = jax.tree.map(lambda a, b: a and b, decay_mask(config, params), trainable_mask(config, params))
    weights = [w.astype(jnp.float32) for w, t in zip(jax.tree.leaves(params), jax.tree.leaves(taken)) if t]
    losses = {}
    if not left_out(config.l1):
        losses["l1"] = config.l1 * sum((jnp.abs(w).sum() for w in weights), jnp.float32(0))
    if not left_out(config.l2):
        losses["l2"] = config.l2 / 2 * sum((jnp.square(w).sum() for w in weights), jnp.float32(0))
    return losses
