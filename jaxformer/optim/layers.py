"""Stateless transformations that look at one layer at a time, in stacks of layers too."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxformer.paths import STACK, path_of

Tree = Any


def by_layer(choose: Callable[[str, int], optax.GradientTransformation]) -> optax.GradientTransformation:
    """Applies a stateless transformation to every layer for itself.

    What is measured over a leaf (a norm, a root mean square) is then the same whether layers are stacked in
    one leaf or not.

    Args:
      choose: a leaf's path and the rank of one layer of it -> the transformation of that array. Its update
        may depend on the parameter.
    """

    def of_leaf(key_path: Any, update: jax.Array, weight: jax.Array) -> jax.Array:
        path = path_of(key_path)
        stacked = STACK.search(path) is not None
        transformation = choose(path, update.ndim - stacked)

        def one(update: jax.Array, weight: jax.Array) -> jax.Array:
            return transformation.update(update, transformation.init(weight), weight)[0]

        return (jax.vmap(one) if stacked else one)(update, weight)

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(of_leaf, updates, params))
