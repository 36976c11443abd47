"""Language models as `loop.py` and `beam.py` take them: a state that has seen the prompts, then a step a token.

Of a decoder the state is its cache; of an encoder-decoder the cache and the mask of the source's tokens.
"""

from dataclasses import replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxformer.models.masks import Cache

Tree: TypeAlias = Any
SourceState: TypeAlias = tuple[Cache, jax.Array]


def read_prompts(
    model: Any, variables: Tree, tokens: jax.Array, mask: jax.Array, cache: Cache
) -> tuple[Cache, jax.Array]:
    """A decoder's cache after tokens [B, T] more, and logits [B, V] of what comes next."""
    outputs = model.apply(variables, tokens, mask, cache=cache, last_only=True)
    return outputs.cache, outputs.logits[:, -1]


def next_token(model: Any, variables: Tree, cache: Cache, tokens: jax.Array) -> tuple[jax.Array, Cache]:
    """A decoder's step: logits [B, V] of what comes after tokens [B], and the cache with them."""
    outputs = model.apply(variables, tokens[:, None], cache=cache, last_only=True)
    return outputs.logits[:, -1], outputs.cache


def read_sources(
    model: Any, variables: Tree, tokens: jax.Array, mask: jax.Array, first: jax.Array, slots: int
) -> tuple[SourceState, jax.Array]:
    """The state of an encoder-decoder after the sources, and logits [B, V] of what comes after the first token.

    Args:
      model: an encoder-decoder with unrolled layers.
      variables: its variables.
      tokens: int32 [B, S], the sources.
      mask: bool [B, S], False on their padding.
      first: int32 [] or [B], the token that every target begins with.
      slots: how many target tokens the cache has room for, the first one included.
    """
    context = model.apply(variables, tokens, mask, method="encode")
    cache = model.start(len(tokens), slots)
    firsts = jnp.broadcast_to(first, len(tokens))[:, None]
    outputs = model.apply(variables, firsts, context, mask, cache=cache, last_only=True, method="decode")
    return (outputs.cache, mask), outputs.logits[:, -1]


def next_target(
    model: Any, variables: Tree, state: SourceState, tokens: jax.Array
) -> tuple[jax.Array, SourceState]:
    """A step of an encoder-decoder: logits [B, V] of what comes after tokens [B], and the state with them."""
    cache, mask = state
    outputs = model.apply(
        variables, tokens[:, None], None, mask, cache=cache, last_only=True, method="decode"
    )
    return outputs.logits[:, -1], (outputs.cache, mask)


def take_targets(state: SourceState, rows: jax.Array) -> SourceState:
    """The state with its targets in the order `rows`; what is of the source is the same for all beams of a row."""
    cache, mask = state
    own = jax.tree.map(lambda x: jnp.take(x, rows, axis=0), [layer.own for layer in cache.layers])
    layers = tuple(replace(layer, own=kept) for layer, kept in zip(cache.layers, own))
    return replace(cache, layers=layers), mask
