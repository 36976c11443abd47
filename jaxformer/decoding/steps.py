"""Language models as `loop.py` and `beam.py` take them: a state that has seen the prompts, then a step a token.

Of a decoder the state is its cache; of an encoder-decoder the cache and the mask of the source's tokens, if it has one.
"""

from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from jaxformer.models.masks import Cache

Tree: TypeAlias = Any
SourceState: TypeAlias = tuple[Cache, Array | None]


def read_prompts(
    model: Any, variables: Tree, tokens: Array, mask: Array, cache: Cache
) -> tuple[Cache, Array]:
    """A decoder's cache after tokens [B, T] more, and logits [B, V] of what comes next."""
    outputs = model.apply(variables, tokens, mask, cache=cache, last_only=True)
    return outputs.cache, outputs.logits[:, -1]


def next_token(model: Any, variables: Tree, cache: Cache, tokens: Array) -> tuple[Array, Cache]:
    """A decoder's step: logits [B, V] of what comes after tokens [B], and the cache with them."""
    outputs = model.apply(variables, tokens[:, None], cache=cache, last_only=True)
    return outputs.logits[:, -1], outputs.cache


def read_sources(
    model: Any, variables: Tree, tokens: Array, mask: Array, first: Array, slots: int
) -> tuple[SourceState, Array]:
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
    state: SourceState = (model.start(len(tokens), slots), mask)
    logits, state = next_target(model, variables, state, jnp.broadcast_to(first, len(tokens)), context)
    return state, logits


def read_pictures(
    model: Any, variables: Tree, image: Array, tokens: Array, mask: Array, new_tokens: int
) -> tuple[SourceState, Array]:
    """The state of a captioner after pictures and the prompts about them, and logits [B, V] of what comes next.

    Its steps are `next_target`'s; the state has no mask, for everything in a picture is seen.

    Args:
      model: a captioner with unrolled layers.
      variables: its variables.
      image: float [B, H, W, C].
      tokens: int32 [B, T], what starts a text and the prompt, padded in front.
      mask: bool [B, T], False on padding.
      new_tokens: how many further tokens the cache has room for.
    """
    context = model.apply(variables, image, method="encode")
    cache = model.start(len(tokens), tokens.shape[1] + new_tokens, context.shape[1])
    call = partial(model.apply, variables, method="decode")
    outputs = call(tokens, context, mask, cache=cache, last_only=True)
    return (outputs.cache, None), outputs.logits[:, -1]


def next_target(
    model: Any, variables: Tree, state: SourceState, tokens: Array, context: Array | None = None
) -> tuple[Array, SourceState]:
    """A step of an encoder-decoder: logits [B, V] of what comes after tokens [B], and the state with them.

    Only the first step is given the `context`, which the encoder made of the sources.
    """
    call = partial(model.apply, variables, method="decode")
    outputs = call(tokens[:, None], context, state[1], cache=state[0], last_only=True)
    return outputs.logits[:, -1], (outputs.cache, state[1])


def take_targets(state: SourceState, rows: Array) -> SourceState:
    """The state with its targets in the order `rows`; what is of the source is the same for all beams of a row."""
    cache, mask = state
    own = jax.tree.map(lambda x: jnp.take(x, rows, axis=0), [layer.own for layer in cache.layers])
    layers = tuple(replace(layer, own=kept) for layer, kept in zip(cache.layers, own))
    return replace(cache, layers=layers), mask
